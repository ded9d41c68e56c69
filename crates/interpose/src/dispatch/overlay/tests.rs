use super::*;
use exeunt_abi::kvm::run::{ExitReason, Hypercall, SystemEvent};
use exeunt_model::SparseMemory;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::cell::Cell;
use std::os::fd::AsFd;

const VCPU: File = File::Vcpu(0, 0);

/// A player, the pages of a vCPU, and a kernel that counts.
struct World {
    player: Arc<dyn Overlay>,
    pages: VcpuPages,
    memory: SparseMemory,
    /// How often the kernel was entered only to take an answer.
    taken: Cell<u32>,
}

impl World {
    fn new(scene: &str) -> Self {
        Self::seeded(scene, 0)
    }

    fn seeded(scene: &str, seed: u64) -> Self {
        let plan = Plan { seed, ..Plan::new(Stage::Overlay).with_scene(scene) };
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, crate::VCPU_BYTES as u64).unwrap();
        let world = Self {
            player: Player::of(&plan).unwrap().unwrap(),
            pages: VcpuPages::map(file.as_fd()).unwrap(),
            memory: SparseMemory::default(),
            taken: Cell::new(0),
        };
        world.made(File::System, nr::KVM_CREATE_VM, 0, Some(File::Vm(0)));
        world
    }

    fn call(&self, on: File, request: nr::Ioctl, arg: u64) -> Call<'_> {
        Call { on, request: request.0, arg, memory: &self.memory }
    }

    fn made(&self, on: File, request: nr::Ioctl, arg: u64, made: Option<File>) {
        self.player.made(&self.call(on, request, arg), Ok(0), made);
    }

    fn enable(&self, cap: Cap, mask: u64) -> Option<Result<u32, Errno>> {
        let enable = EnableCap { cap: cap.0, args: [mask, 0, 0, 0], ..EnableCap::new_zeroed() };
        self.memory.write(0x1000, enable.as_bytes()).unwrap();
        let answer = self.player.ioctl(&self.call(File::Vm(0), nr::KVM_ENABLE_CAP, 0x1000));
        if answer.is_none_or(|answer| answer.is_ok()) {
            self.made(File::Vm(0), nr::KVM_ENABLE_CAP, 0x1000, None);
        }
        answer
    }

    /// One `KVM_RUN`. The kernel brings port I/O with these bytes.
    fn run(&self) -> (By, bool, Vec<What>) {
        let enter = || {
            assert!(self.pages.immediate_exit(), "the guest would run");
            self.taken.set(self.taken.get() + 1);
            Some(Err(Errno::EINTR))
        };
        let Turn { by, is_answer, notes } = self.player.run(VCPU, &self.pages, &enter);
        if by == By::Kernel {
            self.bring(ExitReason::IO, 0x11);
        }
        assert!(!self.pages.immediate_exit());
        (by, is_answer, notes)
    }

    fn bring(&self, reason: ExitReason, byte: u8) {
        let page = RunPage { exit_reason: reason.0, exit: [byte; 256], ..self.pages.run() };
        self.pages.set_run(&page);
    }
}

const KERNEL: (By, bool, Vec<What>) = (By::Kernel, false, Vec::new());

#[test]
fn an_exit_comes_after_its_number_of_others_and_the_kernels_bytes_come_back() {
    let world = World::new("overlay-newer-exit");
    assert_eq!([world.run(), world.run()], [KERNEL, KERNEL]);
    assert_eq!(world.run(), (By::Us(Ok(())), false, Vec::new()));
    let page = world.pages.run();
    assert_eq!(
        (page.exit_reason, &page.exit[..9]),
        (0x40, &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x11][..])
    );
    assert_eq!(world.taken.get(), 1);
    // The VMM writes an answer, and enters: the kernel sees its own exit.
    world.bring(ExitReason(0x40), 0xee);
    let enter = || -> Option<Result<u32, Errno>> { panic!("there is nothing to take") };
    let turn = world.player.run(VCPU, &world.pages, &enter);
    assert_eq!((turn.by, turn.is_answer, turn.notes), (By::Kernel, true, vec![What::SceneOver]));
    let page = world.pages.run();
    assert_eq!((page.reason(), page.exit), (ExitReason::IO, [0x11; 256]));
    assert_eq!([world.run(), world.run()], [KERNEL, KERNEL]);
}

#[test]
fn a_seed_chooses_the_place() {
    for seed in 0..4 {
        let world = World::seeded("overlay-shutdown", seed);
        let kernels = std::iter::from_fn(|| (world.run().0 == By::Kernel).then_some(())).count();
        assert_eq!(kernels as u64, 2 + seed);
        assert_eq!(world.pages.run().reason(), ExitReason::SHUTDOWN);
    }
}

#[test]
fn exits_in_a_row_keep_the_kernels_bytes_of_before_the_first() {
    let world = World::new("overlay-interrupted");
    assert_eq!(world.run(), KERNEL);
    let interrupted = By::Us(Err(Errno::EINTR));
    assert_eq!(world.run().0, interrupted);
    assert_eq!(world.pages.run().reason(), ExitReason::INTR);
    world.bring(ExitReason::INTR, 0xee);
    assert_eq!(world.run(), (interrupted, true, Vec::new()));
    assert_eq!(world.run(), (By::Kernel, true, Vec::new()));
    assert_eq!(world.taken.get(), 1);
}

#[test]
fn who_asks_to_be_let_out_at_once_is_left_to_the_kernel() {
    let world = World::new("overlay-shutdown");
    world.run();
    world.run();
    assert!(world.pages.hold());
    let turn = world.player.run(VCPU, &world.pages, &|| panic!("it is the VMM's own call"));
    assert_eq!(turn.by, By::Kernel);
    world.pages.release();
    assert_eq!(world.run().0, By::Us(Ok(())));
}

#[test]
fn an_exit_that_the_kernel_brings_when_it_takes_the_answer_comes_first() {
    let world = World::new("overlay-shutdown");
    world.run();
    world.run();
    let enter = || {
        world.bring(ExitReason::MMIO, 0x22);
        Some(Ok(0))
    };
    let turn = world.player.run(VCPU, &world.pages, &enter);
    assert_eq!((turn.by, world.pages.run().reason()), (By::KernelAlready(Ok(0)), ExitReason::MMIO));
    assert_eq!(world.run().0, By::Us(Ok(())));
}

#[test]
fn a_way_in_that_cannot_enter_puts_exits_in_all_the_same() {
    let world = World::new("overlay-shutdown");
    world.run();
    world.run();
    let turn = world.player.run(VCPU, &world.pages, &|| None);
    assert_eq!(turn.by, By::Us(Ok(())));
}

#[test]
fn an_exit_that_cannot_come_ends_the_scene_with_its_reason_said_once() {
    for scene in ["overlay-not-started", "overlay-event-ignored", "overlay-fault", "overlay-termination"] {
        let world = World::new(scene);
        let notes: Vec<What> = (0..10)
            .flat_map(|_| {
                let (by, _, notes) = world.run();
                assert_eq!(by, By::Kernel, "{scene}");
                notes
            })
            .collect();
        let [What::Trouble { why }, What::SceneOver] = &notes[..] else { panic!("{scene}: {notes:?}") };
        assert!(why.contains("because the "), "{why}");
    }
}

#[test]
fn conversions_come_where_the_vmm_enabled_them_and_the_capability_is_there_for_it() {
    let world = World::new("overlay-conversion");
    let ask = |cap: Cap| world.player.ioctl(&world.call(File::System, nr::KVM_CHECK_EXTENSION, cap.0.into()));
    assert_eq!(ask(Cap::EXIT_HYPERCALL), Some(Ok(1 << 12)));
    assert_eq!(ask(Cap::USER_MEMORY), None);
    assert_eq!(world.enable(Cap::EXIT_HYPERCALL, 1 << 13), Some(Err(Errno::EINVAL)));
    assert_eq!(world.enable(Cap::EXIT_HYPERCALL, 1 << 12), Some(Ok(0)));
    assert_eq!(world.enable(Cap::SPLIT_IRQCHIP, 24), None);
    assert_eq!([world.run(), world.run()], [KERNEL, KERNEL]);
    assert_eq!(world.run().0, By::Us(Ok(())));
    let call: Hypercall = world.pages.run().payload();
    assert_eq!((call.nr, call.args[..3].to_vec(), call.ret), (12, vec![0x8000, 1, 0x10], 0));
    let missing = World::new("overlay-conversion");
    let notes: Vec<What> = (0..4).flat_map(|_| missing.run().2).collect();
    assert!(
        matches!(&notes[..], [What::Trouble { why }, What::SceneOver] if why.contains("KVM_CAP_EXIT_HYPERCALL")),
        "{notes:?}"
    );
}

#[test]
fn events_of_hyperv_come_where_the_guest_is_shown_it() {
    let world = World::new("overlay-event-ignored");
    let entry = |function, eax| CpuidEntry2 { function, eax, ..CpuidEntry2::default() };
    let mut table = Cpuid2 { nent: 2, padding: 0 }.as_bytes().to_vec();
    table.extend(entry(0, 1).as_bytes());
    table.extend(entry(0x4000_0001, 0x3123_7648).as_bytes());
    world.memory.write(0x2000, &table).unwrap();
    world.made(VCPU, nr::KVM_SET_CPUID2, 0x2000, None);
    assert_eq!([world.run(), world.run()], [KERNEL, KERNEL]);
    assert_eq!(world.run().0, By::Us(Ok(())));
    let event: SystemEvent = world.pages.run().payload();
    assert_eq!((event.event_type, event.ndata), (2, 0));
}

#[test]
fn other_vcpus_and_other_stages_are_left_alone() {
    let world = World::new("overlay-shutdown");
    for _ in 0..10 {
        let turn = world.player.run(File::Vcpu(0, 1), &world.pages, &|| panic!());
        assert_eq!(turn.by, By::Kernel);
    }
    assert!(Player::of(&Plan::new(Stage::Overlay)).unwrap().is_none());
    assert!(Player::of(&Plan::new(Stage::Scripted).with_scene("overlay-shutdown")).unwrap().is_none());
    let error = Player::of(&Plan::new(Stage::Overlay).with_scene("other")).unwrap_err();
    assert_eq!(error, DispatchError::NoScene { name: "other".into() });
}
