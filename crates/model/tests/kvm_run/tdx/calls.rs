//! Calls that KVM answers itself, passes on, or does not know.

use super::{SHARED, finalised, initialised, payload, run_to_halt};
use crate::world::{Seen, answer, hypercall, reason};
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::kvm::run::{
    ExitReason, MAP_GPA_RANGE, SystemEvent, Tdx, TdxGetQuote, TdxGetTdVmCallInfo, TdxSetupEventNotify,
    event_type,
};
use exeunt_abi::tdx::{CompletionStatus, gpr, operand};
use exeunt_model::Vcpu;
use exeunt_model::guest::tdx::{TdRegs, report_fatal_error};
use exeunt_proto::exit::{Exit, SystemEvent as Event, decode};
use exeunt_proto::ghci::FatalError;
use exeunt_proto::host::Vcpu as _;
use proptest::prelude::*;

/// A guest that makes these calls, each with the registers that it gets back.
fn calling(calls: Vec<TdRegs>) -> (Vcpu, Seen<TdRegs>) {
    let seen = Seen::new();
    let log = seen.clone();
    let vcpu = finalised(&initialised(), |cpu| async move {
        for call in calls {
            log.push(cpu.tdcall(call).await?);
        }
        Ok(())
    });
    (vcpu, seen)
}

fn call(leaf: u64, r12: u64, r13: u64) -> TdRegs {
    TdRegs::vmcall(leaf, [r12, r13, 0x14, 0x15])
}

/// Values of `ret` of every class: each status, errors of both signs, and anything.
const RETS: [u64; 12] = [
    0,
    1,
    1 << 63,
    1 << 63 | 1,
    1 << 63 | 2,
    1 << 63 | 3,
    5,
    22,
    28,
    22u64.wrapping_neg(),
    1 << 32,
    u64::MAX,
];

#[test]
fn get_quote_names_the_buffer_without_its_shared_bit_and_is_refused_if_nobody_answers() {
    let (mut vcpu, seen) = calling(vec![call(leaf::GET_QUOTE, 0x5123 | SHARED, 77)]);
    assert_eq!(vcpu.enter(), Ok(()));
    let exit: TdxGetQuote = payload(&vcpu, ExitReason::TDX);
    assert_eq!((exit.flags, exit.nr, exit.ret), (0, 0x10002, 0x8000_0000_0000_0003));
    assert_eq!((exit.gpa, exit.size), (0x5123, 77), "neither is checked");
    run_to_halt(&mut vcpu);
    let regs = seen.take()[0];
    assert_eq!(regs.status(), Status::SUBFUNC_UNSUPPORTED);
    assert_eq!((regs.r12, regs.r13), (0x5123 | SHARED, 77), "no other register changes");
}

#[test]
fn get_quote_with_a_private_buffer_makes_no_exit() {
    let (mut vcpu, seen) = calling(vec![call(leaf::GET_QUOTE, 0x5000, 0x1000)]);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].status(), Status::INVALID_OPERAND);
}

#[test]
fn any_answer_to_a_forwarded_call_reaches_the_guest_as_it_is() {
    for nr in [leaf::GET_QUOTE, leaf::SETUP_EVENT_NOTIFY_INTERRUPT] {
        for ret in RETS {
            let (mut vcpu, seen) =
                calling(vec![call(nr, 0x40 | if nr == leaf::GET_QUOTE { SHARED } else { 0 }, 0)]);
            assert_eq!(vcpu.enter(), Ok(()));
            let mut exit: Tdx = payload(&vcpu, ExitReason::TDX);
            assert_eq!(exit.nr, nr);
            exit.ret = ret;
            vcpu.page_mut().set_payload(&exit);
            run_to_halt(&mut vcpu);
            assert_eq!(seen.take()[0].r10, ret, "{nr:#x}");
        }
    }
}

#[test]
fn the_vector_of_a_notification_is_one_of_32_to_255() {
    for vector in (0..512).chain([1 << 32 | 64, u64::MAX]) {
        let (mut vcpu, seen) = calling(vec![call(leaf::SETUP_EVENT_NOTIFY_INTERRUPT, vector, 0)]);
        if (32..=255).contains(&vector) {
            assert_eq!(vcpu.enter(), Ok(()), "{vector}");
            let exit: TdxSetupEventNotify = payload(&vcpu, ExitReason::TDX);
            assert_eq!(
                (exit.flags, exit.nr, exit.ret, exit.vector),
                (0, 0x10004, 0x8000_0000_0000_0003, vector)
            );
        } else {
            run_to_halt(&mut vcpu);
            assert_eq!(seen.take()[0].status(), Status::INVALID_OPERAND, "{vector}");
        }
    }
}

#[test]
fn what_calls_there_are_is_answered_by_the_kernel_for_leaf_0_and_asked_for_leaf_1() {
    let (mut vcpu, seen) =
        calling([0, 1, 2, u64::MAX].map(|leaf| call(leaf::GET_TD_VM_CALL_INFO, leaf, 9)).to_vec());
    assert_eq!(vcpu.enter(), Ok(()));
    let regs = seen.take()[0];
    assert_eq!([regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15], [0, 0, 0, 0, 0, 0x15]);
    let mut exit: TdxGetTdVmCallInfo = payload(&vcpu, ExitReason::TDX);
    assert_eq!((exit.flags, exit.nr, exit.ret, exit.leaf), (0, 0x10000, 0, 1));
    assert_eq!([exit.r11, exit.r12, exit.r13, exit.r14], [0; 4]);
    [exit.r11, exit.r12, exit.r13, exit.r14] = [2, 3, 4, 5];
    exit.ret = 7;
    vcpu.page_mut().set_payload(&exit);
    run_to_halt(&mut vcpu);
    let answers = seen.take();
    let regs = answers[0];
    assert_eq!([regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15], [7, 2, 3, 4, 5, 0x15]);
    assert!(answers[1..].iter().all(|regs| regs.status() == Status::INVALID_OPERAND));
}

#[test]
fn a_leaf_that_does_not_exist_is_unsupported_and_makes_no_exit() {
    let known: Vec<u64> = leaf::ALL.iter().map(|(number, _)| *number).collect();
    let unknown: Vec<u64> =
        (0..256).chain(0xfff0..0x10100).filter(|number| !known.contains(number)).collect();
    let (mut vcpu, seen) = calling(unknown.iter().map(|number| call(*number, 1, 1)).collect());
    run_to_halt(&mut vcpu);
    let answers = seen.take();
    assert_eq!(answers.len(), unknown.len());
    for (number, regs) in unknown.iter().zip(answers) {
        assert_eq!((regs.status(), regs.r11), (Status::SUBFUNC_UNSUPPORTED, *number));
    }
}

#[test]
fn a_fatal_error_carries_sixteen_registers_in_the_order_of_their_encodings() {
    let regs = TdRegs {
        rcx: gpr::ALL,
        rdx: 2,
        rbx: 3,
        rsi: 6,
        rdi: 7,
        r8: 8,
        r9: 9,
        ..TdRegs::vmcall(leaf::REPORT_FATAL_ERROR, [12, 13, 14, 15])
    };
    let (mut vcpu, seen) = calling(vec![regs]);
    assert_eq!(vcpu.enter(), Ok(()));
    let event: SystemEvent = payload(&vcpu, ExitReason::SYSTEM_EVENT);
    assert_eq!((event.event_type, event.ndata), (event_type::TDX_FATAL, 16));
    // RAX is the status of the entry: an exit by TDCALL.
    assert_eq!(event.data, [77, gpr::ALL, 2, 3, 0, 0, 6, 7, 8, 9, 0, 0x10003, 12, 13, 14, 15]);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].status(), Status::SUCCESS, "nothing is stored for the guest");
}

#[test]
fn the_text_of_a_fatal_error_comes_out_as_it_went_in() {
    let mut vcpu = finalised(&initialised(), |cpu| async move {
        report_fatal_error(&cpu, 0x42, b"no memory for \x1b[31m the second page of the stack").await
    });
    let entered = vcpu.enter();
    let Ok(Exit::SystemEvent(Event { data, .. })) = decode(entered, vcpu.page(), vcpu.kernel()) else {
        panic!()
    };
    let error = FatalError::from_words(&data).unwrap();
    assert_eq!((error.error, error.gpa), (0x42, None));
    assert_eq!(error.text(), b"no memory for \x1b[31m the second page of the stack");
}

#[test]
fn a_call_of_the_vendor_is_a_hypercall_whose_result_is_r10() {
    let vendor = |nr, gpa| TdRegs { r10: nr, ..TdRegs::vmcall(gpa, [1, 0x13, 7, 0]) };
    let (mut vcpu, seen) =
        calling(vec![vendor(99, 0x1000), vendor(MAP_GPA_RANGE, 0x1001), vendor(MAP_GPA_RANGE, 0x1000)]);
    assert_eq!(vcpu.enter(), Ok(()));
    let refused: Vec<u64> = seen.take().iter().map(|regs| regs.r10).collect();
    assert_eq!(refused, [1000u64.wrapping_neg(), 22u64.wrapping_neg()]);
    let exit = hypercall(&vcpu);
    assert_eq!((exit.nr, &exit.args[..3]), (MAP_GPA_RANGE, &[0x1000, 1, 0x13][..]), "unfiltered");
    answer(&mut vcpu, 0x1_2345_6789_abcd);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].r10, 0x1_2345_6789_abcd, "any answer, as it is");
}

#[test]
fn registers_that_the_guest_does_not_select_are_zero_for_the_host_and_stay_as_they_are() {
    // Without R10 and R12: a call of the GHCI with an argument of 0.
    let regs = TdRegs { rcx: 1 << 11, r10: 5, ..call(leaf::GET_TD_VM_CALL_INFO, 1, 9) };
    let (mut vcpu, seen) = calling(vec![regs]);
    run_to_halt(&mut vcpu);
    let back = seen.take()[0];
    assert_eq!((back.r10, back.r12, back.r13), (5, 1, 9));
    assert_eq!((back.r11, back.rax), (0, 0), "leaf 0 answers 0 in R11");
}

#[test]
fn registers_that_cannot_be_passed_are_refused_by_the_module() {
    for bit in 0..64 {
        let (mut vcpu, seen) = calling(vec![TdRegs { rcx: 1 << bit, ..call(0x777, 0, 0) }]);
        run_to_halt(&mut vcpu);
        let refused = matches!(bit, 0 | 1 | 4 | 5 | 32..);
        let expected = if refused {
            CompletionStatus::OPERAND_INVALID.with(operand::RCX)
        } else {
            CompletionStatus::SUCCESS
        };
        assert_eq!(seen.take()[0].completion(), expected, "bit {bit}");
    }
}

#[test]
fn tdcall_has_no_leaf_that_it_does_not_have() {
    let (mut vcpu, seen) = calling(vec![TdRegs { rax: 99, ..TdRegs::default() }]);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].completion(), CompletionStatus::OPERAND_INVALID.with(operand::RAX));
}

#[test]
fn tdcall_is_an_invalid_opcode_in_every_other_guest() {
    use crate::world::launched;
    use exeunt_abi::Dialect;
    use exeunt_abi::kvm::vm_type::VmType;
    use exeunt_model::guest::GuestFault;
    for vm_type in [VmType::Default, VmType::SwProtected, VmType::SevEs, VmType::Snp] {
        let seen = Seen::new();
        let log = seen.clone();
        let program = |cpu: exeunt_model::guest::Cpu| async move {
            log.push(cpu.tdcall(TdRegs::default()).await);
            Ok(())
        };
        let mut vcpu = launched(Dialect::Linux7_2, vm_type).create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!((reason(&vcpu), seen.take()), (ExitReason::HLT, vec![Err(GuestFault::InvalidOpcode)]));
    }
}

#[test]
fn a_td_knows_what_it_is() {
    let seen = Seen::new();
    let log = seen.clone();
    let vm = initialised();
    let _first = super::vcpu_with(&vm, 0, super::halts);
    let mut vcpu = super::vcpu_with(&vm, 0x1234, |cpu| async move {
        log.push((cpu.tdg_vp_info().await?, cpu.initial_rcx().await));
        Ok(())
    });
    vm.tdx_finalize_vm().unwrap();
    run_to_halt(&mut vcpu);
    let (info, rcx) = seen.take()[0];
    assert_eq!((info.gpa_width, info.attributes), (48, 1 << 28));
    assert_eq!((info.vcpus, info.max_vcpus, info.index, rcx), (2, 8, 1, 0x1234));
}

fn any_regs() -> impl Strategy<Value = TdRegs> {
    let word =
        prop_oneof![any::<u64>(), 0..0x80u64, 0x10000..0x10010u64, Just(SHARED | 0x1000), Just(1 << 21)];
    (
        prop::array::uniform14(word),
        prop_oneof![Just(gpr::R10_TO_R15), Just(gpr::ALL), any::<u64>()],
        prop_oneof![
            4 => Just(0u64),
            1 => any::<u64>(),
            1 => 0..16u64,
        ],
    )
        .prop_map(|(w, rcx, rax)| TdRegs {
            rax,
            rcx,
            rbx: w[0],
            rdx: w[1],
            rsi: w[2],
            rdi: w[3],
            r8: w[4],
            r9: w[5],
            r10: if w[13] % 4 == 0 { w[6] } else { 0 },
            r11: w[7],
            r12: w[8],
            r13: w[9],
            r14: w[10],
            r15: w[11],
        })
}

proptest! {
    #[test]
    fn no_registers_and_no_answer_panic_or_loop(
        calls in prop::collection::vec(any_regs(), 1..8),
        fill in any::<u8>(),
    ) {
        let (mut vcpu, seen) = calling(calls.clone());
        // An unknown size of a conversion may be many chunks; each is an exit.
        for _ in 0..64 {
            let _ = vcpu.enter();
            let page = vcpu.page_mut();
            page.exit[24..].fill(fill);
        }
        prop_assert!(seen.take().len() <= calls.len());
    }
}
