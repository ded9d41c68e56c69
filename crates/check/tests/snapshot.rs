//! Snapshots of VMs of the model: what is pending is handed over before anything is read, however many exits follow from it.

use exeunt::memory::{GuestMemory, MemorySlot, PageInfo};
use exeunt::run::step;
use exeunt::snapshot::save::save_outside;
use exeunt::snapshot::{
    Drained, Layout, Limits, Origin, PrivatePages, SaveError, SlotLayout, Snapshot, restore_vcpu, save,
    save_vcpu,
};
use exeunt::{Policy, Stop};
use exeunt_abi::ghcb::psc::{Entry, operation};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Gfn, Gpa, Kernel};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Kvm, Slot, Vcpu, Vm};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::Host;
use exeunt_proto::state::{Area, State};

const KERNEL: Kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::X86 };
const PAGES: u64 = 64;
const GHCB: Gpa = Gpa(0x2000);
/// The first page that the guest converts; it converts every other one, so that no two are in one run.
const FIRST: u64 = 32;
const CONVERTED: u64 = 12;

fn memory() -> (PageRange, GuestMemory) {
    let range = PageRange::new(Gfn(0), PAGES).unwrap();
    (range, GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap())
}

fn vm(vm_type: VmType) -> Vm {
    let vm = Kvm::new(KERNEL).create_vm(vm_type).unwrap();
    let (range, _) = memory();
    let file = vm.create_guest_memfd(range.bytes()).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), range.bytes()).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE).unwrap();
    vm
}

async fn converts(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, GHCB).await?;
    let entries: Vec<_> =
        (0..CONVERTED).map(|index| Entry::new(FIRST + 2 * index, operation::SHARED, false)).collect();
    ghcb.page_state_change(&cpu, &entries).await.map(drop)
}

/// An SNP VM in the middle of a page-state change: the first of its runs is answered, and the answer not handed over.
fn in_the_middle() -> (Vm, Vcpu, Policy) {
    let vm = vm(VmType::Snp);
    let (range, memory) = memory();
    vm.set_memory_attributes(Gpa(0), range.bytes(), MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    memory.assume(range, PageInfo::fresh(PageState::Private));
    vm.sev_init2(0).unwrap();
    vm.launch().unwrap();
    let mut vcpu = vm.create_vcpu(0, converts).unwrap();
    let policy = Policy::new(memory);
    while policy.memory().state_of(PageRange::new(Gfn(FIRST), 1).unwrap()) != Some(PageState::Shared) {
        step(&mut vcpu, &mut vm.effects(), &policy).unwrap();
    }
    (vm, vcpu, policy)
}

fn layout(policy: &Policy) -> Layout {
    let (range, _) = memory();
    Layout::of(vec![SlotLayout { range, has_private: true }], policy.memory())
}

#[test]
fn a_page_state_change_is_answered_to_its_last_run_before_a_vcpu_is_saved() {
    let (vm, mut vcpu, policy) = in_the_middle();
    let (made, taken) = vcpu.completions();
    assert_eq!(made - taken, 1, "an answer waits");
    let last = PageRange::new(Gfn(FIRST + 2 * (CONVERTED - 1)), 1).unwrap();
    assert_eq!(policy.memory().state_of(last), Some(PageState::Private), "runs are left");
    let mut host = vm.effects();
    let mut drained = [Drained::drain(&mut vcpu, &mut host, &policy).unwrap()];
    let origin = Origin::new(KERNEL, VmType::Snp);
    // Neither memory nor registers can be read; what the VMM sees is of the VM as it is now.
    let refused =
        save(origin.clone(), layout(&policy), PrivatePages::LeaveBehind, &mut host, &mut drained, Vec::new());
    assert_eq!(refused, Err(SaveError::Confidential { vm_type: VmType::Snp }));
    let snapshot = save_outside(origin, layout(&policy), &mut drained, Vec::new()).unwrap();
    let (made, taken) = vcpu.completions();
    assert_eq!((made - taken, taken >= CONVERTED), (0, true), "all runs followed");
    for gfn in 0..PAGES {
        // The guest shares its GHCB, too.
        let is_converted =
            gfn == GHCB.gfn().0 || (FIRST..FIRST + 2 * CONVERTED).contains(&gfn) && gfn % 2 == 0;
        let is_private = vm.page_state(Gfn(gfn)) == PageState::Private;
        assert_eq!(
            (is_private, snapshot.is_private(Gfn(gfn))),
            (!is_converted, !is_converted),
            "frame {gfn}"
        );
    }
    let (bytes, _) = snapshot.write(Vec::new()).unwrap();
    assert_eq!(Snapshot::read(bytes.as_slice(), Limits::default()).map(|(it, _)| it), Ok(snapshot));
}

/// A host on which every effect fails.
struct Broken;

impl Host for Broken {
    fn apply(&mut self, _: &exeunt_proto::host::Action<'_>) -> Result<(), exeunt_abi::Errno> {
        Err(exeunt_abi::Errno::EIO)
    }
}

#[test]
fn a_vcpu_whose_chain_does_not_end_well_is_not_saved() {
    let (vm, mut vcpu, policy) = in_the_middle();
    // The guest is told that it failed: the chain ends, and the vCPU is drained.
    assert!(Drained::drain(&mut vcpu, &mut Broken, &policy).is_ok());
    // A dead VM says nothing more.
    vm.kill();
    let stop = Drained::drain(&mut vcpu, &mut vm.effects(), &policy).map(drop).unwrap_err();
    assert!(matches!(stop, Stop::Enter(_)), "{stop}");
}

async fn reads_a_port(cpu: Cpu) -> Result<(), GuestFault> {
    let value = cpu.port_in(0x60, 4).await?;
    cpu.write(Gpa(0x3000), &value.to_le_bytes(), Access::Shared).await
}

/// A keyboard with one value.
struct Keyboard(exeunt_model::Effects);

impl Host for Keyboard {
    fn apply(&mut self, action: &exeunt_proto::host::Action<'_>) -> Result<(), exeunt_abi::Errno> {
        self.0.apply(action)
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), exeunt_abi::Errno> {
        self.0.read_guest(gpa, bytes)
    }

    fn port_in(&mut self, _: u16, _: u8, data: &mut [u8]) {
        data.fill(0x5a);
    }
}

fn rax(vcpu: &mut impl State) -> u64 {
    let mut regs = [0; 144];
    vcpu.area(Area::Regs, &mut regs).unwrap();
    u64::from_le_bytes(*regs.first_chunk().unwrap())
}

#[test]
fn what_was_read_from_a_port_is_in_the_registers_that_are_saved() {
    let (source, policy) = (vm(VmType::SwProtected), Policy::new(memory().1));
    let mut vcpu = source.create_vcpu(0, reads_a_port).unwrap();
    let mut host = Keyboard(source.effects());
    step(&mut vcpu, &mut host, &policy).unwrap();
    assert_eq!(rax(&mut vcpu) & 0xffff_ffff, 0, "the answer is in the port page still");
    let mut drained = Drained::drain(&mut vcpu, &mut host, &policy).unwrap();
    let saved = save_vcpu(&mut drained).unwrap();
    assert_eq!(rax(&mut vcpu) & 0xffff_ffff, 0x5a5a_5a5a);
    let target = vm(VmType::SwProtected);
    let mut other = target.create_vcpu(0, reads_a_port).unwrap();
    restore_vcpu(&saved, &mut other).unwrap();
    assert_eq!(rax(&mut other) & 0xffff_ffff, 0x5a5a_5a5a);
    let mut drained = Drained::drain(&mut other, &mut Keyboard(target.effects()), &policy).unwrap();
    assert_eq!(save_vcpu(&mut drained), Ok(saved), "what is saved of it again is the same");
}
