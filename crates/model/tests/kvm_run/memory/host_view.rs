//! What the host sees of private memory, which is nothing, and what holds after every step of guest and VMM.

use crate::world::{DATA, MEMORY_BYTES, kernel, new_vm, snp};
use exeunt_abi::kvm::memory::{MEMORY_ATTRIBUTE_PRIVATE, PreFaultMemory};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa, PAGE_SIZE};
use exeunt_model::falloc::{KEEP_SIZE, PUNCH_HOLE};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{FaultPlan, Slot, Vcpu, Vm};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::{Action, Backing, Host as _, Vcpu as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::sync::{Arc, Mutex};

/// What guests write privately, and hosts never see.
const SECRET: [u8; 8] = *b"secret!!";
/// Pages of the first slot.
const PAGES: u64 = MEMORY_BYTES / PAGE_SIZE;

/// What a guest does next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Write(Gpa, Access),
    Read(Gpa, Access),
    Pvalidate(Gpa, bool),
    Pvalidate2m(Gpa, bool),
    Rmpadjust(Gpa, bool, u64),
}

/// What a VMM does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Guest(Act),
    Attributes(Gpa, u64, bool),
    Discard(u64, u64, Backing),
    Allocate(u64, u64, bool),
    PreFault(Gpa, u64),
    AddSlot(u32, u64, u64, u64),
    DeleteSlot(u32),
    Poison(u64),
    Huge(bool),
    Level(u8),
    Faults(u64),
    Close,
}

fn pages() -> impl Strategy<Value = (u64, u64)> {
    let count = prop_oneof![3 => Just(1), 2 => 1..600u64, 1 => Just(512)];
    (prop_oneof![3 => 0..PAGES + 8, 1 => (0..3u64).prop_map(|large| large * 512)], count)
}

fn gpa() -> impl Strategy<Value = Gpa> {
    pages().prop_map(|(page, _)| Gpa(page * PAGE_SIZE))
}

fn act() -> impl Strategy<Value = Act> {
    let access = || prop_oneof![1 => Just(Access::Shared), 2 => Just(Access::Private)];
    prop_oneof![
        3 => (gpa(), access()).prop_map(|(gpa, access)| Act::Write(gpa, access)),
        2 => (gpa(), access()).prop_map(|(gpa, access)| Act::Read(gpa, access)),
        3 => (gpa(), any::<bool>()).prop_map(|(gpa, on)| Act::Pvalidate(gpa, on)),
        1 => (gpa(), any::<bool>()).prop_map(|(gpa, on)| Act::Pvalidate2m(gpa, on)),
        1 => (gpa(), any::<bool>(), 0..0x2_0000u64).prop_map(|(gpa, large, bits)| Act::Rmpadjust(gpa, large, bits)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let backing = prop_oneof![Just(Backing::Shared), Just(Backing::Private)];
    prop_oneof![
        14 => act().prop_map(Step::Guest),
        5 => (pages(), weighted()).prop_map(|((page, count), private)| {
            Step::Attributes(Gpa(page * PAGE_SIZE), count * PAGE_SIZE, private)
        }),
        2 => (pages(), backing).prop_map(|((page, count), backing)| Step::Discard(page, count, backing)),
        2 => (pages(), any::<bool>()).prop_map(|((page, count), hole)| Step::Allocate(page, count, hole)),
        2 => pages().prop_map(|(page, count)| Step::PreFault(Gpa(page * PAGE_SIZE), count * PAGE_SIZE)),
        2 => (0..4u32, pages(), 0..PAGES).prop_map(|(slot, (gfn, count), offset)| {
            Step::AddSlot(slot, gfn, count, offset)
        }),
        1 => (0..4u32).prop_map(Step::DeleteSlot),
        1 => (0..PAGES).prop_map(Step::Poison),
        1 => any::<bool>().prop_map(Step::Huge),
        1 => (0..4u8).prop_map(Step::Level),
        1 => any::<u64>().prop_map(Step::Faults),
        1 => Just(Step::Close),
    ]
}

fn weighted() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.7)
}

/// A guest that does what is put down for it, and halts in between.
async fn obedient(cpu: Cpu, next: Arc<Mutex<Option<Act>>>) -> Result<(), GuestFault> {
    loop {
        let act = next.lock().unwrap().take();
        // Exceptions are part of what may happen.
        match act {
            Some(Act::Write(gpa, Access::Private)) => _ = cpu.write(gpa, &SECRET, Access::Private).await,
            Some(Act::Write(gpa, Access::Shared)) => _ = cpu.write(gpa, b"shared..", Access::Shared).await,
            Some(Act::Read(gpa, access)) => _ = cpu.read(gpa, 8, access).await,
            Some(Act::Pvalidate(gpa, on)) => _ = cpu.pvalidate(gpa, on).await,
            Some(Act::Pvalidate2m(gpa, on)) => _ = cpu.pvalidate_2m(gpa, on).await,
            Some(Act::Rmpadjust(gpa, large, bits)) => _ = cpu.rmpadjust(gpa, large, bits).await,
            None => cpu.hlt().await,
        }
    }
}

struct World {
    vm: Vm,
    vcpu: Vcpu,
    next: Arc<Mutex<Option<Act>>>,
}

impl World {
    fn new(vm: Vm) -> Self {
        let next = Arc::new(Mutex::new(None));
        let acts = Arc::clone(&next);
        let vcpu = vm.create_vcpu(0, |cpu| obedient(cpu, acts)).unwrap();
        Self { vm, vcpu, next }
    }

    fn step(&mut self, step: Step) {
        let file = || self.vm.slots().iter().find_map(|slot| Some(slot.guest_memfd?.0));
        match step {
            Step::Guest(act) => {
                *self.next.lock().unwrap() = Some(act);
                let _ = self.vcpu.enter();
            }
            Step::Attributes(gpa, bytes, private) => {
                let attributes = if private { MEMORY_ATTRIBUTE_PRIVATE } else { 0 };
                let _ = self.vm.set_memory_attributes(gpa, bytes, attributes);
            }
            Step::Discard(gfn, pages, backing) => {
                let range = PageRange::new(exeunt_abi::Gfn(gfn), pages).unwrap();
                self.vm.effects().apply(&Action::Discard { range, backing }).unwrap();
            }
            Step::Allocate(page, count, hole) => {
                let mode = if hole { KEEP_SIZE | PUNCH_HOLE } else { KEEP_SIZE };
                let bytes = |pages| i64::try_from(pages * PAGE_SIZE).unwrap();
                let done = file().map(|file| self.vm.fallocate(file, mode, bytes(page), bytes(count)));
                assert!(!matches!(done, Some(Err(Errno::EBADF | Errno::EOPNOTSUPP))) || file().is_some());
            }
            Step::PreFault(gpa, size) => {
                let mut range = PreFaultMemory { gpa: gpa.0, size, flags: 0, padding: [0; 5] };
                let _ = self.vcpu.pre_fault_memory(&mut range);
                assert_eq!(range.gpa + range.size, gpa.0 + size, "what is done and what is left");
            }
            Step::AddSlot(number, gfn, pages, offset) => {
                let slot = Slot::shared(number, Gpa(gfn * PAGE_SIZE), pages * PAGE_SIZE).unwrap();
                let _ = match file() {
                    Some(file) => self.vm.add_slot(slot.with_guest_memfd(file, offset * PAGE_SIZE)),
                    None => self.vm.add_slot(slot),
                };
            }
            Step::DeleteSlot(number) => _ = self.vm.delete_slot(number),
            Step::Poison(page) => {
                if let Some(file) = file() {
                    self.vm.poison_guest_memfd(file, page * PAGE_SIZE);
                }
            }
            Step::Huge(on) => self.vm.set_huge_folios(on),
            Step::Level(level) => self.vcpu.set_vmpl(level),
            Step::Faults(seed) => self.vm.set_fault_plan(FaultPlan::seeded(seed, seed % 20)),
            // A file that is closed is closed for good, so it happens seldom.
            Step::Close if self.vm.slots().len() > 2 => {
                if let Some(file) = file() {
                    self.vm.close_guest_memfd(file);
                }
            }
            Step::Close => {}
        }
    }

    /// Everything that the host can read, page by page.
    fn host_sees_a_secret(&self) -> Option<u64> {
        (0..PAGES + 600).find(|page| {
            let mut got = [0; 8];
            self.vm.read_shared(Gpa(page * PAGE_SIZE), &mut got).is_ok() && got == SECRET
        })
    }
}

proptest! {
    #![proptest_config(Config { cases: 80, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_guest_and_vmm_do_the_invariants_hold_and_no_private_page_is_readable(
        vm_type in prop_oneof![4 => Just(VmType::Snp), 1 => Just(VmType::SwProtected)],
        dialect in prop_oneof![Just(Dialect::Linux7_2), Just(Dialect::Linux6_12)],
        steps in vec(step(), 20..150),
    ) {
        let vm = new_vm(kernel(dialect), vm_type);
        if vm_type == VmType::Snp {
            vm.sev_init2(0).unwrap();
            vm.launch().unwrap();
        }
        vm.set_memory_attributes(Gpa(0), MEMORY_BYTES / 2, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
        let mut world = World::new(vm);
        for step in steps {
            // Without a C-bit, what a guest writes to shared memory is not meant to be secret.
            let step = match step {
                Step::Guest(Act::Write(gpa, Access::Private)) if vm_type == VmType::SwProtected => {
                    Step::Guest(Act::Read(gpa, Access::Private))
                }
                step => step,
            };
            world.step(step);
            prop_assert_eq!(world.vm.check_invariants(), Ok(()), "after {:?}", step);
        }
        prop_assert_eq!(world.host_sees_a_secret(), None);
    }
}

#[test]
fn the_host_reads_shared_memory_wherever_the_guest_has_private_memory() {
    let vm = snp();
    vm.set_memory_attributes(Gpa(0), MEMORY_BYTES, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm.write_shared(DATA, b"shared").unwrap();
    let mut world = World::new(vm);
    world.step(Step::Guest(Act::Pvalidate(DATA, true)));
    world.step(Step::Guest(Act::Write(DATA, Access::Private)));
    for private in [true, false, true] {
        world.step(Step::Attributes(DATA, PAGE_SIZE, private));
        let mut got = [0; 8];
        world.vm.read_shared(DATA, &mut got).unwrap();
        assert_eq!(&got, b"shared\0\0");
        world.vm.effects().read_guest(DATA, &mut got).unwrap();
        assert_eq!(&got, b"shared\0\0");
    }
    assert_eq!(world.host_sees_a_secret(), None);
}
