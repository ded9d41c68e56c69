use super::*;
use crate::pages_unsafe::VCPU_BYTES;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::run::{ExitReason, Hypercall};
use exeunt_model::SparseMemory;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// A process in the process of the test: its numbers are not descriptors.
#[derive(Debug, Default)]
struct Tame {
    files: Mutex<BTreeMap<i32, OwnedFd>>,
}

impl Process for Tame {
    fn take(&self) -> Result<i32, Errno> {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, VCPU_BYTES as u64).unwrap();
        let mut files = self.files.lock().unwrap();
        let fd = (3..999).find(|fd| !files.contains_key(fd)).unwrap();
        files.insert(fd, file);
        Ok(fd)
    }

    fn give_back(&self, fd: i32) {
        self.files.lock().unwrap().remove(&fd).unwrap();
    }

    fn event_file(&self, _: i32) -> Result<(), Errno> {
        Err(Errno::EBADF)
    }

    fn pages(&self, fd: i32) -> Result<VcpuPages, Errno> {
        VcpuPages::map(self.files.lock().unwrap()[&fd].as_fd())
    }

    fn is_same(&self, fd: i32) -> bool {
        fd != 1000
    }

    fn mapped(&self, fd: i32) -> Vec<Mapped> {
        if fd == 77 {
            vec![Mapped { uaddr: 0x10_0000, bytes: 0x10_0000, offset_bytes: 0x4000 }]
        } else {
            vec![]
        }
    }
}

#[derive(Debug, Default)]
struct Heap(Mutex<Vec<What>>);

impl Sink for Heap {
    fn put(&self, record: Record) {
        assert_eq!(record.pid, 42);
        self.0.lock().unwrap().push(record.what);
    }
}

struct World {
    dispatcher: Dispatcher,
    process: Arc<Tame>,
    heap: Arc<Heap>,
    memory: Arc<dyn UserMemory>,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let (process, heap) = (Arc::new(Tame::default()), Arc::new(Heap::default()));
        let dispatcher =
            Dispatcher::new(plan, 42, Arc::<Tame>::clone(&process), Arc::<Heap>::clone(&heap)).unwrap();
        Self { dispatcher, process, heap, memory: Arc::new(SparseMemory::new()) }
    }

    fn ioctl(&self, fd: i32, request: nr::Ioctl, arg: u64) -> Outcome {
        self.dispatcher.ioctl(fd, request.0, arg, &self.memory)
    }

    fn made(&self, fd: i32, request: nr::Ioctl, arg: u64) -> i32 {
        let Outcome::Done(Ok(made)) = self.ioctl(fd, request, arg) else { panic!("{request:?} fails") };
        i32::try_from(made).unwrap()
    }

    /// A VM of type 1 with a slot at 0, and a vCPU.
    fn vcpu(&self) -> (i32, i32) {
        let kvm = self.dispatcher.open(b"/dev/kvm", true).unwrap().unwrap();
        let vm = self.made(kvm, nr::KVM_CREATE_VM, 1);
        let region: Vec<u8> =
            [0u64, 0, 0x10_0000, 0x10_0000].iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write(0x1000, &region).unwrap();
        assert_eq!(self.ioctl(vm, nr::KVM_SET_USER_MEMORY_REGION, 0x1000), Outcome::Done(Ok(0)));
        let mut enable = [0u8; 104];
        enable[0] = 201;
        // KVM_HC_MAP_GPA_RANGE
        enable[9] = 1 << 4;
        self.memory.write(0x2000, &enable).unwrap();
        assert_eq!(self.ioctl(vm, nr::KVM_ENABLE_CAP, 0x2000), Outcome::Done(Ok(0)));
        (vm, self.made(vm, nr::KVM_CREATE_VCPU, 0))
    }

    fn records(&self) -> Vec<What> {
        std::mem::take(&mut self.heap.0.lock().unwrap())
    }
}

fn scripted(scene: &str) -> Plan {
    Plan::new(Stage::Scripted).with_scene(scene)
}

#[test]
fn only_the_devices_are_opened_and_only_by_the_model() {
    let world = World::new(&Plan::new(Stage::Scripted));
    for path in [b"/dev/kv".as_slice(), b"/dev/kvm/", b"", b"dev/kvm", b"/dev/kvm\0"] {
        assert_eq!(world.dispatcher.open(path, true), None);
    }
    assert_eq!(world.dispatcher.open(b"/dev/sev", false), Some(Ok(3)));
    let world = World::new(&Plan::new(Stage::Observe));
    assert_eq!(world.dispatcher.open(b"/dev/kvm", true), None);
    world.dispatcher.opened(b"/dev/kvm", Ok(9));
    assert!(world.dispatcher.knows(9) && !world.dispatcher.knows(10));
}

#[test]
fn a_plan_that_cannot_be_followed_says_why() {
    let process: Arc<dyn Process> = Arc::new(Tame::default());
    let sink: Arc<dyn Sink> = Arc::new(Heap::default());
    let why = Dispatcher::new(&scripted("no-such"), 1, process, sink).unwrap_err();
    assert_eq!(why, DispatchError::NoScene { name: "no-such".into() });
}

#[test]
fn the_files_of_a_vm_are_numbered_and_each_call_is_told() {
    let world = World::new(&Plan::new(Stage::Scripted));
    let (vm, vcpu) = world.vcpu();
    let files: Vec<_> = [3, vm, vcpu].map(|fd| world.dispatcher.file(fd)).to_vec();
    assert_eq!(files, [Some(File::System), Some(File::Vm(0)), Some(File::Vcpu(0, 0))]);
    let records = world.records();
    assert!(matches!(records[0], What::Opened { file: File::System, result: Ok(3) }));
    let What::Ioctl { on, before, after, made, .. } = &records[2] else { panic!("no ioctl") };
    assert_eq!((*on, before.len(), before == after, *made), (File::Vm(0), 32, true, None));
    let What::Ioctl { made, .. } = &records[4] else { panic!("no ioctl") };
    assert_eq!(*made, Some(File::Vcpu(0, 0)));
}

#[test]
fn a_scene_is_played_to_its_end_and_the_end_is_told_once() {
    let world = World::new(&scripted("page-that-changes"));
    let (_, vcpu) = world.vcpu();
    let page = || world.dispatcher.files.vcpu(vcpu).unwrap().pages.run();
    for _ in 0..20 {
        match world.ioctl(vcpu, nr::KVM_RUN, 0) {
            Outcome::Done(Ok(0)) if page().reason() == ExitReason::HYPERCALL => {
                let mut answered = page();
                let mut call: Hypercall = answered.payload();
                call.ret = 22;
                answered.set_payload(&call);
                world.dispatcher.files.vcpu(vcpu).unwrap().pages.set_run(&answered);
            }
            Outcome::Done(_) => {}
            Outcome::Blocked => break,
            Outcome::NotOurs => panic!("it is ours"),
        }
    }
    let records = world.records();
    let over = records.iter().filter(|what| **what == What::SceneOver).count();
    assert_eq!(over, 1);
    let calls = |what: &&What| matches!(what, What::Run(run) if run.after.reason() == ExitReason::HYPERCALL);
    assert!(records.iter().any(|what| calls(&what)));
}

#[test]
fn a_scene_is_set_in_the_vm_that_runs_and_not_in_one_that_was_made_to_see_what_there_is() {
    let world = World::new(&scripted("interrupted"));
    let kvm = world.dispatcher.open(b"/dev/kvm", true).unwrap().unwrap();
    let probe = world.made(kvm, nr::KVM_CREATE_VM, 0);
    let unused = world.made(probe, nr::KVM_CREATE_VCPU, 0);
    assert!(world.dispatcher.close(unused) && world.dispatcher.close(probe));
    let (_, vcpu) = world.vcpu();
    let outcomes: Vec<_> = (0..20).map(|_| world.ioctl(vcpu, nr::KVM_RUN, 0)).collect();
    assert!(outcomes.contains(&Outcome::Done(Err(Errno::EINTR))), "no signal comes: {outcomes:?}");
    assert_eq!(world.records().iter().filter(|what| **what == What::SceneOver).count(), 1);
}

#[test]
fn a_guest_that_has_ended_is_told_of_where_its_vcpu_waits_in_the_kernel() {
    let world = World::new(&scripted("save-and-run-on"));
    world.dispatcher.open(b"/dev/kvm", true).unwrap().unwrap();
    let vm = world.made(3, nr::KVM_CREATE_VM, 0);
    assert_eq!(world.ioctl(vm, nr::KVM_CREATE_IRQCHIP, 0), Outcome::Done(Ok(0)));
    let vcpu = world.made(vm, nr::KVM_CREATE_VCPU, 0);
    let ends = (0..100).any(|_| world.ioctl(vcpu, nr::KVM_RUN, 0) == Outcome::Blocked);
    assert!(ends && world.ioctl(vcpu, nr::KVM_RUN, 0) == Outcome::Blocked);
    let over = world.records().iter().filter(|what| **what == What::SceneOver).count();
    assert_eq!(over, 1);
}

#[test]
fn who_enters_too_often_is_hung_and_still_ends_by_immediate_exit() {
    let world = World::new(&Plan { max_exits: 5, ..Plan::new(Stage::Scripted) });
    let (_, vcpu) = world.vcpu();
    let outcomes: Vec<_> = (0..8).map(|_| world.ioctl(vcpu, nr::KVM_RUN, 0)).collect();
    assert_eq!(outcomes[4..6], [Outcome::Done(Ok(0)), Outcome::Blocked]);
    assert_eq!(world.records().iter().filter(|what| **what == What::Hung).count(), 1);
    let pages = world.process.pages(vcpu).unwrap();
    exeunt_model::device::LivePages::store(&pages, 1, &[1]);
    assert_eq!(world.ioctl(vcpu, nr::KVM_RUN, 0), Outcome::Done(Err(Errno::EINTR)));
}

#[test]
fn a_number_that_was_reused_unseen_is_no_longer_ours() {
    let world = World::new(&Plan::new(Stage::Scripted));
    world.dispatcher.opened(b"/dev/kvm", Ok(1000));
    assert_eq!(world.dispatcher.ioctl(1000, 0x5421, 0, &world.memory), Outcome::NotOurs);
    assert!(!world.dispatcher.knows(1000));
}

#[test]
fn copies_lead_to_the_same_file_and_closing_one_leaves_the_other() {
    let world = World::new(&Plan::new(Stage::Scripted));
    let (vm, vcpu) = world.vcpu();
    world.dispatcher.duplicated(vm, 500);
    assert_eq!(world.dispatcher.file(500), Some(File::Vm(0)));
    assert!(world.dispatcher.close(vm) && !world.dispatcher.close(vm));
    assert_eq!(world.ioctl(500, nr::KVM_CHECK_EXTENSION, 0), Outcome::Done(Ok(1)));
    assert_eq!(world.ioctl(vm, nr::KVM_CHECK_EXTENSION, 0), Outcome::NotOurs);
    // What is copied over is closed.
    world.dispatcher.duplicated(500, vcpu);
    assert_eq!(world.dispatcher.file(vcpu), Some(File::Vm(0)));
    assert_eq!(world.ioctl(vcpu, nr::KVM_RUN, 0), Outcome::Done(Err(Errno::ENOTTY)));
}

#[test]
fn memory_of_a_slot_that_is_given_back_is_told_and_other_memory_is_not() {
    let world = World::new(&Plan::new(Stage::Scripted));
    world.vcpu();
    world.records();
    let dispatcher = &world.dispatcher;
    dispatcher.madvised(0x10_0000, 0x1000, 4, Ok(()));
    dispatcher.madvised(0x10_0000, 0x1000, 14, Ok(()));
    dispatcher.madvised(0xf_f000, 0x1000, 4, Ok(()));
    dispatcher.madvised(0x20_0000, u64::MAX, 4, Ok(()));
    dispatcher.fallocated(77, 3, 0x3000, 0x2000, Ok(()));
    dispatcher.fallocated(77, 0, 0x3000, 0x2000, Ok(()));
    dispatcher.fallocated(78, 3, 0x3000, 0x2000, Ok(()));
    dispatcher.fallocated(77, 3, -1, i64::MIN, Ok(()));
    let shared = |uaddr| What::Discard {
        memory: crate::record::Memory::Shared { uaddr, bytes: 0x1000 },
        result: Ok(()),
    };
    assert_eq!(world.records(), [shared(0x10_0000), shared(0x10_0000)]);
}

#[test]
fn garbage_ends_in_an_error_and_never_in_a_panic() {
    let world = World::new(&scripted("page-that-changes"));
    let (vm, vcpu) = world.vcpu();
    for fd in [3, vm, vcpu] {
        for number in 0..=0xffu32 {
            for high in [0xae00u32, 0x4008_ae00, 0xc008_ae00, 0xffff_ae00] {
                for arg in [0, 1, 0x1000, u64::MAX] {
                    let _ = world.dispatcher.ioctl(fd, high | number, arg, &world.memory);
                }
            }
        }
    }
    for (mode, offset, bytes) in [(3, -1, 1), (u32::MAX, 0, 0), (3, i64::MAX, i64::MAX)] {
        let _ = world.dispatcher.fallocate(vm, mode, offset, bytes);
    }
}
