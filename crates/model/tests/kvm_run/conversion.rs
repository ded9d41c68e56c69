//! Page-state changes: what userspace's answer does, and what it does not.

use crate::world::{DATA, Seen, answer, hypercall, launched, reason, registered, run_to_halt, snp};
use exeunt_abi::ghcb::msr;
use exeunt_abi::ghcb::psc::{Entry, operation, result};
use exeunt_abi::kvm::run::{ExitReason, map_gpa_range};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::guest::Cpu;
use exeunt_model::guest::snp::Answer;
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::Vcpu as _;

/// Three entries that no batch can hold together.
fn three_batches() -> [Entry; 3] {
    [0x200, 0x210, 0x220].map(|gfn| Entry::new(gfn, operation::PRIVATE, false))
}

/// A guest that makes `requests` page-state changes of three batches and tells how each ended.
fn page_guest(vm: &Vm, requests: usize) -> (Vcpu, Seen<(Answer, u64)>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        for _ in 0..requests {
            let answer = ghcb.page_state_change(&cpu, &three_batches()).await?;
            log.push((answer, ghcb.current_entry(&cpu).await?));
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

/// A guest that makes one page private by MSR.
fn msr_guest(vm: &Vm) -> (Vcpu, Seen<u64>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.vmgexit(MsrRequest::psc(DATA.gfn(), operation::PRIVATE)).await?);
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

/// What the guest finds: `SW_EXITINFO1`, `SW_EXITINFO2`, `cur_entry`.
fn ends(seen: &Seen<(Answer, u64)>) -> Vec<(u64, u64, u64)> {
    seen.take().into_iter().map(|(answer, cur)| (answer.info_1, answer.info_2, cur)).collect()
}

#[test]
fn immediate_exit_drains_three_batches_as_two_exits_and_eintr() {
    let vm = snp();
    let (mut vcpu, seen) = page_guest(&vm, 1);
    assert_eq!(vcpu.enter(), Ok(()));
    for gpa in [0x20_0000, 0x21_0000, 0x22_0000] {
        let [at, pages, attributes, ..] = hypercall(&vcpu).args;
        assert_eq!([at, pages, attributes], [gpa, 1, map_gpa_range::ENCRYPTED]);
        answer(&mut vcpu, 0);
        let expected = if gpa == 0x22_0000 { Err(Errno::EINTR) } else { Ok(()) };
        assert_eq!(vcpu.enter_immediately(), expected);
    }
    assert_eq!(reason(&vcpu), ExitReason::HYPERCALL, "stale");
    assert!(seen.take().is_empty(), "the guest was entered");
    run_to_halt(&mut vcpu);
    assert_eq!(ends(&seen), [(0, 0, 3)]);
}

#[test]
fn a_bad_answer_by_msr_fails_once_and_the_guest_finds_its_own_request() {
    let vm = snp();
    let (mut vcpu, seen) = msr_guest(&vm);
    assert_eq!(vcpu.enter(), Ok(()));
    answer(&mut vcpu, 7);
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    assert_eq!(reason(&vcpu), ExitReason::HYPERCALL, "stale");
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [MsrRequest::psc(DATA.gfn(), operation::PRIVATE)]);
}

#[test]
fn a_bad_answer_by_page_reads_as_success_and_the_next_request_fails_once() {
    let vm = snp();
    let (mut vcpu, seen) = page_guest(&vm, 3);
    assert_eq!(vcpu.enter(), Ok(()));
    answer(&mut vcpu, 7);
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    assert_eq!(vcpu.warnings(), 0);
    // The guest goes on, asks again, is refused, and asks a third time.
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(ends(&seen), [(0, 0, 0), (0, result::GENERIC, 0)]);
    assert_eq!(vcpu.warnings(), 1);
    for _ in 0..3 {
        assert_eq!(reason(&vcpu), ExitReason::HYPERCALL);
        answer(&mut vcpu, 0);
        assert_eq!(vcpu.enter(), Ok(()));
    }
    assert_eq!(reason(&vcpu), ExitReason::HLT);
    assert_eq!(ends(&seen), [(0, 0, 3)]);
}

#[test]
fn a_refused_batch_leaves_the_earlier_ones_done() {
    for ret in [22, 11] {
        let vm = snp();
        let (mut vcpu, seen) = page_guest(&vm, 1);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, 0);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, ret);
        run_to_halt(&mut vcpu);
        assert_eq!(ends(&seen), [(0, result::GENERIC, 1)]);
    }
}

#[test]
fn linux_6_12_takes_every_other_answer_for_an_error_and_never_fails() {
    let vm = launched(Dialect::Linux6_12, VmType::Snp);
    for ret in [1, 7, 11, 22, 95, 1 << 32, u64::MAX, 22u64.wrapping_neg()] {
        let (mut vcpu, seen) = msr_guest(&vm);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, ret);
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [msr::PSC_RESPONSE_ERROR], "ret {ret:#x} by MSR");

        let (mut vcpu, seen) = page_guest(&vm, 1);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, ret);
        run_to_halt(&mut vcpu);
        assert_eq!(ends(&seen), [(0, result::GENERIC, 0)], "ret {ret:#x} by page");
    }
}

#[test]
fn an_answer_is_taken_before_immediate_exit_is_looked_at() {
    for (ret, expected) in [(0, msr::PSC_RESPONSE), (22, msr::PSC_RESPONSE_ERROR)] {
        let vm = snp();
        let (mut vcpu, seen) = msr_guest(&vm);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, ret);
        assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
        // Too late to change it.
        answer(&mut vcpu, 7);
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [expected]);
    }
}

#[test]
fn an_unknown_operation_by_msr_is_refused_without_an_exit() {
    let vm = snp();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        for operation in [0, 3, 4, 15] {
            log.push(cpu.vmgexit(MsrRequest::psc(DATA.gfn(), operation)).await?);
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [msr::PSC_RESPONSE_ERROR; 4]);
}

#[test]
fn a_hypercall_of_a_plain_guest_hands_over_any_answer() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    for ret in [0, 7, u64::MAX] {
        let seen = Seen::new();
        let log = seen.clone();
        let program = |cpu: Cpu| async move {
            log.push(cpu.vmmcall(12, [DATA.0, 1, 16, 0]).await?);
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(hypercall(&vcpu).args[..3], [DATA.0, 1, 16]);
        answer(&mut vcpu, ret);
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [ret]);
    }
}
