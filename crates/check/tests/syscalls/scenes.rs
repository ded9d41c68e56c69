//! What the child does under `strace`.

use crate::trace::MARK;
use exeunt::Policy;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn, Gpa, Kernel};
use exeunt_linux::{Backings, FlatGuest, HostMemory, Vcpu, Vm, guests};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{self, Exit, Hypercall, Io};
use exeunt_proto::host::{Action, Backing, Events as _, Host, Vcpu as _};
use exeunt_proto::state::{Area, State as _};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A part of what the child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// What happens once only, such as the first use of a thread's own data.
    Warm,
    /// Pages become what they are.
    NothingToDo,
    /// Shared pages become private.
    OneRun,
    /// The same request comes again.
    SameAgain,
    /// Pages become private of which the middle is so already.
    TwoRuns,
    /// All of them become shared.
    Back,
    /// Pages of two slots become private whose memory is next to each other in the files.
    AcrossSlots,
    /// A request that makes no sense.
    Refused,
    /// The guest writes to a port.
    PortIo,
    /// Two threads give back and populate the same pages.
    Overlap,
    /// Everything that `exeunt-linux` offers.
    Device,
    /// Certificates are replaced and leased.
    Certificates,
    /// A quote is asked for.
    Quotes,
}

impl Scene {
    pub(crate) const CONVERSIONS: [Self; 9] = [
        Self::Warm,
        Self::NothingToDo,
        Self::OneRun,
        Self::SameAgain,
        Self::TwoRuns,
        Self::Back,
        Self::AcrossSlots,
        Self::Refused,
        Self::PortIo,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::NothingToDo => "nothing-to-do",
            Self::OneRun => "one-run",
            Self::SameAgain => "same-again",
            Self::TwoRuns => "two-runs",
            Self::Back => "back",
            Self::AcrossSlots => "across-slots",
            Self::Refused => "refused",
            Self::PortIo => "port-io",
            Self::Overlap => "overlap",
            Self::Device => "device",
            Self::Certificates => "certificates",
            Self::Quotes => "quotes",
        }
    }

    /// What the guest does. A request has the first frame, the count of frames, and whether they become private.
    fn exit(self) -> Exit {
        let [gfn, pages, private] = match self {
            Self::Warm | Self::Overlap | Self::Device | Self::Certificates | Self::Quotes => [0xf0, 1, 0],
            Self::NothingToDo => [0x10, 0x10, 0],
            Self::OneRun | Self::SameAgain => [0x10, 0x10, 1],
            Self::TwoRuns => [0, 0x30, 1],
            Self::Back => [0, 0x30, 0],
            Self::AcrossSlots => [0x70, 0x20, 1],
            Self::Refused => [u64::MAX >> 12, 2, 1],
            Self::PortIo => {
                return Exit::Io(Io { is_out: true, size: 1, port: 0x3f8, count: 1, start: 0 });
            }
        };
        Exit::Hypercall(Hypercall { nr: 12, args: [gfn << 12, pages, private << 4, 0, 0, 0], flags: 1 })
    }
}

/// The descriptor that attributes are set on: a VM, or without `/dev/kvm` something that refuses as an old VM does.
enum Target {
    Vm(Vm),
    Other(File),
}

struct Executor {
    backings: Backings,
    target: Target,
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Vm(vm) => vm.as_fd(),
            Self::Other(file) => file.as_fd(),
        }
    }
}

impl Host for Executor {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match (action, self.backings.apply(&self.target, action)) {
            // The call has been made, which is what is counted.
            (Action::SetAttributes { .. }, Err(Errno::ENOTTY)) => Ok(()),
            (_, result) => result,
        }
    }

    fn port_out(&mut self, port: u16, size: u8, data: &[u8]) {
        std::hint::black_box((port, size, data));
    }
}

/// Two slots of 128 pages each, whose memory is next to each other in two files.
fn executor() -> Executor {
    const SLOT_BYTES: u64 = 0x8_0000;
    let made = exeunt_linux::probe().ok().and_then(|kvm| {
        let vm = kvm.create_vm(VmType::Default).ok()?;
        let private = vm.create_guest_memfd(2 * SLOT_BYTES).ok()?;
        Some((Target::Vm(vm), private))
    });
    let (target, private) = made.unwrap_or_else(|| {
        (Target::Other(File::open("/dev/null").unwrap()), HostMemory::memfd(2 * SLOT_BYTES).unwrap())
    });
    let shared = HostMemory::memfd(2 * SLOT_BYTES).unwrap();
    let backings = Backings::default();
    for start in [0, SLOT_BYTES] {
        backings.add(Gpa(start), SLOT_BYTES, shared.at(start), Some(private.at(start))).unwrap();
    }
    Executor { backings, target }
}

fn policy() -> Policy {
    let slot = |gfn| MemorySlot { range: PageRange::new(Gfn(gfn), 0x80).unwrap(), has_private: true };
    Policy::new(GuestMemory::new([slot(0), slot(0x80)]).unwrap())
}

/// Asks for a file that is not there, so that `strace` shows where a scene begins or the last one ends.
pub(crate) fn mark(name: &str) {
    assert!(std::fs::metadata(format!("{MARK}{name}")).is_err());
}

#[test]
#[ignore = "played under strace by other tests"]
fn plays_conversions() {
    let (mut executor, policy, kernel) = (executor(), policy(), Kernel::default());
    let (mut page, mut port_data) = (RunPage::zeroed(), [0; 4096]);
    for scene in Scene::CONVERSIONS {
        let entered = exit::encode(&scene.exit(), kernel, &mut page);
        mark(scene.name());
        let exit = exit::decode(entered, &page, kernel).unwrap();
        let answer = policy.plan(&exit).unwrap().carry_out(&mut executor, &mut port_data);
        let lease = answer.encode(kernel, &mut page);
        mark("between");
        assert!(lease.is_none());
    }
    let state = policy.memory().state_of(PageRange::new(Gfn(0x70), 0x20).unwrap());
    assert_eq!(state, Some(PageState::Private));
}

/// Rounds of each of two threads.
pub(crate) const OVERLAPS: usize = 20;

#[test]
#[ignore = "played under strace by other tests"]
fn plays_two_threads() {
    const PAGES: u64 = 0x1000;
    let memory = HostMemory::memfd(PAGES << 12).unwrap();
    memory.populate(0, PAGES << 12).unwrap();
    let backings = Backings::default();
    backings.add(Gpa(0), PAGES << 12, memory.at(0), None).unwrap();
    // Neither the start nor the end is waited for in the kernel, so that every futex in between is of the code under test.
    let (is_started, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for start in [0, PAGES / 4] {
            let (backings, is_started, done) = (&backings, &is_started, &done);
            scope.spawn(move || {
                let range = PageRange::new(Gfn(start), PAGES / 2).unwrap();
                done.fetch_add(1, Ordering::SeqCst);
                while !is_started.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
                for _ in 0..OVERLAPS {
                    backings.populate(range).unwrap();
                    backings.discard(range, Backing::Shared).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
                // The end of a thread makes system calls of its own.
                while is_started.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
            });
        }
        let wait_for = |count| {
            while done.load(Ordering::SeqCst) < count {
                std::hint::spin_loop();
            }
        };
        wait_for(2);
        mark(Scene::Overlap.name());
        is_started.store(true, Ordering::SeqCst);
        wait_for(4);
        mark("between");
        is_started.store(false, Ordering::SeqCst);
    });
}

#[test]
#[ignore = "played under strace by other tests"]
fn uses_the_device() {
    mark(Scene::Device.name());
    if let Ok(kvm) = exeunt_linux::probe() {
        let _ = kvm.dialect();
        use_all_of(kvm.create_vm(VmType::Default).unwrap());
    }
    mark("end");
}

fn use_all_of(mut vm: Vm) {
    let guest = guests::by_name("port-io").unwrap();
    let memfd = HostMemory::memfd(0x10_0000).unwrap();
    HostMemory::file(File::open("/proc/self/exe").unwrap()).map(drop).unwrap();
    vm.add_memory(Gpa(0), 0x1_0000).unwrap();
    vm.add_slot(Gpa(0x10_0000), 0x1_0000, memfd.at(0), None).unwrap();
    if let Ok(private) = vm.create_guest_memfd(0x1_0000) {
        // A VM without private memory may refuse the slot; the call is made all the same.
        let _ = vm.add_slot(Gpa(0x20_0000), 0x1_0000, memfd.at(0x1_0000), Some(private.at(0)));
    }
    let _ = vm.add_private_memory(Gpa(0x30_0000), 0x1_0000);
    let _ = vm.enable_cap(Cap::EXCEPTION_PAYLOAD, 1);
    vm.write_guest(guest.load, guest.image).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    vcpu.start(&guest).unwrap();
    vcpu.set_cpuid(&[]).unwrap();
    let mp_state = Vcpu::mp_state(&vcpu).unwrap();
    Vcpu::set_mp_state(&vcpu, mp_state).unwrap();
    let events = vcpu.events().unwrap();
    vcpu.set_events(&events).unwrap();
    vcpu.registers().unwrap();
    for area in Area::ALL {
        let mut bytes = vec![0; area.max_bytes()];
        if let Ok(Some(length)) = vcpu.area(area, &mut bytes) {
            vcpu.set_area(area, &bytes[..length]).unwrap();
        }
    }
    let kicker = vcpu.kicker();
    let mut effects = vcpu.effects().unwrap();
    exeunt::step(&mut vcpu, &mut effects, &Policy::default()).unwrap();
    kicker.kick();
    vcpu.enter_immediately().unwrap_err();
    kicker.clear();
    let page = |gfn| PageRange::new(Gfn(gfn), 1).unwrap();
    for gfn in [1, 0x100, 0x200] {
        for action in [
            Action::SetAttributes { range: page(gfn), to: PageState::Shared },
            Action::Discard { range: page(gfn), backing: Backing::Shared },
            Action::Discard { range: page(gfn), backing: Backing::Private },
            Action::Prefault { range: page(gfn) },
        ] {
            // What the host lacks it refuses to the same call.
            let _ = effects.apply(&action);
        }
        let _ = effects.populate(page(gfn));
    }
    memfd.populate(0, 0x1000).unwrap();
    let _ = vcpu.raise_triple_fault();
    kick_out(&vm, &guests::by_name("spin").unwrap());
}

/// Takes a vCPU out of a guest that spins, by a signal.
fn kick_out(vm: &Vm, spinner: &FlatGuest) {
    vm.write_guest(spinner.load, spinner.image).unwrap();
    let mut vcpu = vm.create_vcpu(1).unwrap();
    vcpu.start(spinner).unwrap();
    let kicker = vcpu.kicker();
    std::thread::scope(|scope| {
        let spinning = scope.spawn(move || vcpu.enter());
        std::thread::sleep(std::time::Duration::from_millis(50));
        kicker.kick();
        assert_eq!(spinning.join().unwrap(), Err(Errno::EINTR));
    });
}
