//! What large guests cost: a model of a TiB has to fit into a laptop.

mod live_bytes_unsafe;

use exeunt_abi::kvm::memory::{MEMORY_ATTRIBUTE_PRIVATE, PreFaultMemory};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_model::falloc::{KEEP_SIZE, PUNCH_HOLE};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Kvm, Slot, Vcpu, Vm};
use exeunt_proto::conversion::PageState;
use exeunt_proto::host::Vcpu as _;
use live_bytes_unsafe::live_bytes;

const TIB: u64 = 1 << 40;
const GIB: u64 = 1 << 30;
const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;
const LARGE: u64 = 2 << 20;

/// A launched SNP guest with this much memory, all of it shared.
fn guest_of(bytes: u64) -> Vm {
    let vm = Kvm::default().create_vm(VmType::Snp).unwrap();
    let file = vm.create_guest_memfd(bytes).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), bytes).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.sev_init2(2).unwrap();
    vm.launch().unwrap();
    vm
}

/// Validates large pages in steps and halts after each thousand of them.
async fn validate(cpu: Cpu, pages: u64, step: u64) -> Result<(), GuestFault> {
    for page in 0..pages {
        let done = cpu.pvalidate_2m(Gpa(page * step), true).await?;
        assert_eq!((done.code, done.unchanged), (0, false), "{page}");
    }
    Ok(())
}

/// Enters until the guest halts. A slice of time may end before that.
fn run_to_halt(vcpu: &mut Vcpu) {
    while vcpu.enter().is_err() {}
    assert_eq!(vcpu.page().reason(), ExitReason::HLT);
}

#[test]
fn a_guest_of_a_tib_half_of_it_private_by_turns_takes_less_than_64_mib() {
    let before = live_bytes();
    let vm = guest_of(TIB);
    vm.set_huge_folios(true);
    let turns = TIB / (2 * LARGE);
    for turn in 0..turns {
        vm.set_memory_attributes(Gpa(turn * 2 * LARGE), LARGE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    }
    let attributes = live_bytes() - before;
    let mut vcpu = vm.create_vcpu(0, move |cpu| validate(cpu, turns, 2 * LARGE)).unwrap();
    let mut range = PreFaultMemory { gpa: 0, size: LARGE, flags: 0, padding: [0; 5] };
    vcpu.pre_fault_memory(&mut range).unwrap();
    run_to_halt(&mut vcpu);
    let all = live_bytes() - before;
    assert!(all < 64 * MIB, "{all}");
    for turn in (0..turns).step_by(9973) {
        let [private, shared] = [0, LARGE].map(|offset| Gpa(turn * 2 * LARGE + offset + PAGE_SIZE).gfn());
        assert_eq!([private, shared].map(|gfn| vm.page_state(gfn)), [PageState::Private, PageState::Shared]);
        assert!(vm.rmp_entry(private).is_validated() && !vm.rmp_entry(shared).fields().assigned);
    }
    assert_eq!(vm.check_invariants(), Ok(()));
    assert_eq!(vm.present_pages(vm.slots()[0].guest_memfd.unwrap().0) as u64, TIB / 2 / PAGE_SIZE);
    drop((vcpu, vm));
    assert_eq!(live_bytes(), before, "and gives all of it back");
    // The harness keeps what is printed, so that comes last.
    println!(
        "{turns} turns of 2 MiB: {} KiB for the attributes, {} KiB in all, {} bytes a turn",
        attributes / KIB,
        all / KIB,
        all as u64 / turns
    );
}

#[test]
fn a_tib_that_is_private_in_one_piece_takes_nothing_worth_counting() {
    let before = live_bytes();
    let vm = guest_of(TIB);
    vm.set_memory_attributes(Gpa(0), TIB, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let mut range = PreFaultMemory { gpa: 0, size: TIB, flags: 0, padding: [0; 5] };
    vcpu.pre_fault_memory(&mut range).unwrap();
    assert_eq!((range.gpa, range.size), (TIB, 0));
    assert!(vm.rmp_entry(Gfn(TIB / PAGE_SIZE - 1)).fields().assigned);
    assert!(live_bytes() - before < MIB);
}

#[test]
fn a_checkerboard_of_small_pages_takes_at_most_200_bytes_a_run() {
    let before = live_bytes();
    let bytes = 4 * GIB;
    let vm = guest_of(bytes);
    let runs = bytes / (2 * PAGE_SIZE);
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    for run in 0..runs {
        let gpa = run * 2 * PAGE_SIZE;
        vm.set_memory_attributes(Gpa(gpa), PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
        let mut range = PreFaultMemory { gpa, size: PAGE_SIZE, flags: 0, padding: [0; 5] };
        vcpu.pre_fault_memory(&mut range).unwrap();
    }
    let all = (live_bytes() - before) as u64;
    println!("{runs} runs of 4 KiB: {} KiB, {} bytes a run", all / KIB as u64, all / runs);
    assert!(all / runs <= 200, "{}", all / runs);
    assert_eq!(vm.check_invariants(), Ok(()));
    for attributes in [MEMORY_ATTRIBUTE_PRIVATE, 0] {
        vm.set_memory_attributes(Gpa(0), bytes, attributes).unwrap();
    }
    let file = vm.slots()[0].guest_memfd.unwrap().0;
    vm.fallocate(file, KEEP_SIZE | PUNCH_HOLE, 0, i64::try_from(bytes).unwrap()).unwrap();
    assert!(live_bytes() - before < MIB, "what is whole again costs nothing");
}

#[test]
fn pages_of_zeros_take_no_content() {
    let before = live_bytes();
    let vm = guest_of(GIB);
    vm.set_memory_attributes(Gpa(0), GIB, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm.set_huge_folios(true);
    let zeros = |cpu: Cpu| async move {
        validate_all(&cpu).await?;
        for page in 0..4096 {
            cpu.write(Gpa(page * 64 * PAGE_SIZE), &[0; 4096], Access::Private).await?;
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, zeros).unwrap();
    run_to_halt(&mut vcpu);
    assert!(live_bytes() - before < MIB);
    let shared = guest_of(GIB);
    for page in 0..4096 {
        shared.write_shared(Gpa(page * 64 * PAGE_SIZE), &[0; 4096]).unwrap();
    }
    assert!(live_bytes() - before < MIB);
}

async fn validate_all(cpu: &Cpu) -> Result<(), GuestFault> {
    for page in 0..GIB / LARGE {
        cpu.pvalidate_2m(Gpa(page * LARGE), true).await?;
    }
    Ok(())
}

#[test]
fn a_vm_has_256_vcpus_for_less_than_16_mib() {
    let before = live_bytes();
    let vm = guest_of(GIB);
    let mut vcpus: Vec<_> =
        (0..256).map(|seed| vm.create_vcpu(seed, |_| async { Ok(()) }).unwrap()).collect();
    for vcpu in &mut vcpus {
        run_to_halt(vcpu);
    }
    let all = live_bytes() - before;
    println!("256 vCPUs: {} KiB", all / KIB);
    assert!(all < 16 * MIB, "{all}");
}
