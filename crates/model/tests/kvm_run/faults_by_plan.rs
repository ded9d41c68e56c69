//! Faults by plan: what the VMM and the guest see of each, and that they happen once.

use crate::world::{DATA, Seen, answer, hypercall, reason, registered, run_to_halt, snp};
use exeunt_abi::ghcb::psc::{Entry, operation, result};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_model::guest::Cpu;
use exeunt_model::{Fault, FaultPlan, Met, Point, Vcpu, Vm};
use exeunt_proto::conversion::PageState;
use exeunt_proto::host::Vcpu as _;

const FIRST: u64 = 0x200;
const SECOND: u64 = 0x210;

/// A guest that makes two entries private which no batch can hold together, and tells `SW_EXITINFO2` and `cur_entry`.
fn guest(vm: &Vm) -> (Vcpu, Seen<(u64, u64)>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        let entries = [FIRST, SECOND].map(|gfn| Entry::new(gfn, operation::PRIVATE, false));
        let answer = ghcb.page_state_change(&cpu, &entries).await?;
        log.push((answer.info_2, ghcb.current_entry(&cpu).await?));
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

/// Enters until an exit that is no signal. Returns how many signals there were.
fn enter(vcpu: &mut Vcpu) -> usize {
    for signals in 0..100 {
        match vcpu.enter() {
            Ok(()) => return signals,
            Err(errno) => assert_eq!((errno, reason(vcpu)), (Errno::EINTR, ExitReason::INTR)),
        }
    }
    panic!("nothing but signals");
}

/// Answers 0 until the guest halts. Returns the first frame and the length of each exit.
fn comply(vcpu: &mut Vcpu) -> Vec<(u64, u64)> {
    let mut exits = Vec::new();
    loop {
        enter(vcpu);
        if reason(vcpu) == ExitReason::HLT {
            return exits;
        }
        let [gpa, pages, ..] = hypercall(vcpu).args;
        exits.push((gpa / PAGE_SIZE, pages));
        answer(vcpu, 0);
    }
}

fn rewriting(nth: u64, word: u64, value: u64) -> FaultPlan {
    FaultPlan::new().with(Point::PscRead, nth, Fault::Rewrite { word, value })
}

#[test]
fn an_attribute_change_that_fails_changes_nothing_and_the_next_one_works() {
    let vm = snp();
    vm.set_fault_plan(FaultPlan::new().with(Point::AttributeChange, 1, Fault::Fails(Errno::ENOMEM)));
    let set = |gpa: Gpa| vm.set_memory_attributes(gpa, PAGE_SIZE, MEMORY_ATTRIBUTE_PRIVATE);
    let other = Gpa(DATA.0 + PAGE_SIZE);
    assert_eq!([set(DATA), set(other)], [Ok(()), Err(Errno::ENOMEM)]);
    assert_eq!(vm.page_state(DATA.gfn()), PageState::Private);
    assert_eq!(vm.page_state(other.gfn()), PageState::Shared);
    assert_eq!(set(other), Ok(()));
    let met = Met { point: Point::AttributeChange, nth: 1, fault: Fault::Fails(Errno::ENOMEM) };
    assert_eq!(vm.faults_met(), [met]);
}

#[test]
fn a_range_that_is_refused_does_not_count_as_a_change() {
    let vm = snp();
    vm.set_fault_plan(FaultPlan::new().with(Point::AttributeChange, 0, Fault::Fails(Errno::ENOMEM)));
    assert_eq!(vm.set_memory_attributes(Gpa(1), PAGE_SIZE, 0), Err(Errno::EINVAL));
    assert_eq!(vm.faults_met(), []);
}

#[test]
fn a_signal_at_any_act_is_eintr_once_and_the_guest_never_knows() {
    let undisturbed = {
        let vm = snp();
        let (mut vcpu, seen) = guest(&vm);
        (comply(&mut vcpu), seen.take())
    };
    assert_eq!(undisturbed, (vec![(FIRST, 1), (SECOND, 1)], vec![(result::SUCCESS, 2)]));
    let mut signals = 0;
    for nth in 0..40 {
        let vm = snp();
        vm.set_fault_plan(FaultPlan::new().with(Point::Act, nth, Fault::Signal));
        let (mut vcpu, seen) = guest(&vm);
        assert_eq!((comply(&mut vcpu), seen.take()), undisturbed, "signal at act {nth}");
        signals += vm.faults_met().len();
    }
    assert!(signals > 8, "{signals} of the acts were reached");
}

#[test]
fn a_signal_leaves_the_union_as_the_last_exit_filled_it() {
    let vm = snp();
    let (mut vcpu, _) = guest(&vm);
    enter(&mut vcpu);
    answer(&mut vcpu, 0);
    vcpu.enter().unwrap();
    assert_eq!(reason(&vcpu), ExitReason::HYPERCALL);
    answer(&mut vcpu, 0);
    vm.set_fault_plan(FaultPlan::new().with(Point::Act, 0, Fault::Signal));
    let before = vcpu.page().exit;
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    assert_eq!((reason(&vcpu), vcpu.page().exit), (ExitReason::INTR, before));
}

#[test]
fn an_entry_rewritten_before_it_is_read_is_what_kvm_asks_for() {
    let vm = snp();
    // Reads: the header, the first entry, the second for the batch.
    vm.set_fault_plan(rewriting(1, 1, Entry::new(0x300, operation::SHARED, false).0));
    let (mut vcpu, seen) = guest(&vm);
    assert_eq!(comply(&mut vcpu), [(0x300, 1), (SECOND, 1)]);
    assert_eq!(seen.take(), [(result::SUCCESS, 2)]);
}

#[test]
fn a_page_size_flipped_between_the_exit_and_the_completion_decides_what_done_is() {
    let vm = snp();
    // The fourth read is the completion's.
    let flipped = Entry::new(FIRST, operation::PRIVATE, true);
    vm.set_fault_plan(rewriting(3, 1, flipped.0));
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        let entries = [FIRST, SECOND].map(|gfn| Entry::new(gfn, operation::PRIVATE, false));
        ghcb.page_state_change(&cpu, &entries).await?;
        let first = Gpa(ghcb.shared_buffer().0 + 8);
        log.push(Entry(cpu.read_u64(first, exeunt_model::guest::Access::Shared).await?));
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(comply(&mut vcpu), [(FIRST, 1), (SECOND, 1)]);
    assert_eq!(seen.take(), [flipped.with_cur_page(512)]);
}

#[test]
fn a_header_rewritten_after_it_was_read_moves_nothing_but_what_the_guest_reads() {
    let vm = snp();
    // Before the second entry is read for the batch: `end` is 0 from now on, for who reads it.
    vm.set_fault_plan(rewriting(2, 0, 0));
    let (mut vcpu, seen) = guest(&vm);
    assert_eq!(comply(&mut vcpu), [(FIRST, 1), (SECOND, 1)]);
    assert_eq!(seen.take(), [(result::SUCCESS, 2)]);
}

#[test]
fn a_rewrite_behind_the_shared_buffer_does_nothing() {
    let vm = snp();
    vm.set_fault_plan(rewriting(0, 254, u64::MAX));
    let (mut vcpu, seen) = guest(&vm);
    assert_eq!(comply(&mut vcpu), [(FIRST, 1), (SECOND, 1)]);
    assert_eq!(seen.take(), [(result::SUCCESS, 2)]);
    run_to_halt(&mut vcpu);
}
