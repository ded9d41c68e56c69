//! SBI of riscv64: resets, suspends, and what KVM forwards or answers.

use crate::world::{Seen, reason};
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::run::{ExitReason, RiscvSbi, SystemEvent, event_type};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::sbi::{base_function, error, extension, hart_state, hsm_function};
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel};
use exeunt_model::guest::Cpu;
use exeunt_model::{Kvm, MpState, Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

fn riscv64(dialect: Dialect) -> Vm {
    let vm = Kvm::new(Kernel { dialect, arch: Arch::Riscv64 }).create_vm(VmType::Default).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
    vm
}

const fn register(error: i64) -> u64 {
    u64::from_ne_bytes(error.to_ne_bytes())
}

type Call = (u64, u64, [u64; 6]);

/// A vCPU that makes these calls, and what it finds in `a0` and `a1` after each.
fn calling(vm: &Vm, calls: Vec<Call>) -> (Vcpu, Seen<[u64; 2]>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        for (extension, function, args) in calls {
            log.push(cpu.sbi_call(extension, function, args).await?);
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

/// Enters. `false`: the program ended, and what is left of it is a wait for an interrupt.
fn exits(vcpu: &mut Vcpu) -> bool {
    let entered = vcpu.enter();
    if entered == Ok(()) {
        return true;
    }
    assert_eq!((entered, reason(vcpu)), (Err(Errno::EINTR), ExitReason::INTR));
    false
}

#[test]
fn a_reset_exits_by_its_type_with_its_reason_and_stops_every_vcpu() {
    for dialect in [Dialect::Linux6_12, Dialect::Linux7_2] {
        for kind in 0..6u64 {
            let vm = riscv64(dialect);
            let (mut vcpu, seen) = calling(&vm, vec![(extension::SRST, 0, [kind, 1 << 32 | 1, 0, 0, 0, 0])]);
            let (mut other, _) = calling(&vm, Vec::new());
            vcpu.page_mut().exit = [0xaa; 256];
            exits(&mut vcpu);
            let expected = match kind {
                0 => event_type::SHUTDOWN,
                1 | 2 => event_type::RESET,
                _ => {
                    assert_eq!(seen.take(), [[register(error::NOT_SUPPORTED), 0]], "type {kind}");
                    assert_eq!(other.mp_state(), MpState::Runnable);
                    continue;
                }
            };
            assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
            let event: SystemEvent = vcpu.page().payload();
            assert_eq!((event.event_type, event.ndata, event.data[0]), (expected, 1, 1), "type {kind}");
            assert_eq!(event.data[1..], [0; 15]);
            assert_eq!(vcpu.page().exit[136..], [0xaa; 120]);
            assert_eq!((vcpu.mp_state(), other.mp_state()), (MpState::Stopped, MpState::Stopped));
        }
    }
}

#[test]
fn a_shutdown_leaves_the_program_counter_on_the_call() {
    let vm = riscv64(Dialect::Linux7_2);
    let (mut vcpu, seen) = calling(&vm, vec![(extension::SHUTDOWN_V01, 0, [0; 6])]);
    for _ in 0..3 {
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
        assert_eq!(vcpu.page().payload::<SystemEvent>().event_type, event_type::SHUTDOWN);
        assert_eq!(vcpu.enter(), Err(Errno::EINTR), "stopped");
        vcpu.set_mp_state(mp_state::RUNNABLE).unwrap();
    }
    assert!(seen.take().is_empty(), "the call never returns");
}

#[test]
fn a_suspend_is_checked_by_the_kernel_and_then_forwarded() {
    let suspend = |kind: u64, address: u64| (extension::SUSP, 0, [kind, address, 99, 0, 0, 0]);
    let vm = riscv64(Dialect::Linux7_2);
    let calls = vec![suspend(1, 0x1000), suspend(0, 1 << 40), suspend(1 << 32, 0x1000)];
    let (mut vcpu, seen) = calling(&vm, calls);
    let (mut other, _) = calling(&vm, Vec::new());
    vcpu.set_sbi_extension(extension::SUSP, true).unwrap();
    assert!(!exits(&mut vcpu));
    assert_eq!(reason(&vcpu), ExitReason::INTR, "none of them exits");
    let refused = [error::INVALID_PARAM, error::INVALID_ADDRESS, error::DENIED];
    assert_eq!(seen.take(), refused.map(|error| [register(error), 0]), "the other vCPU runs");

    other.set_mp_state(mp_state::STOPPED).unwrap();
    vcpu.set_mp_state(mp_state::STOPPED).unwrap();
    let (mut third, _) = calling(&vm, vec![suspend(1 << 32, 0x1000)]);
    third.set_sbi_extension(extension::SUSP, true).unwrap();
    assert_eq!(third.enter(), Ok(()));
    assert_eq!(reason(&third), ExitReason::RISCV_SBI, "the type has 32 bits");
}

#[test]
fn a_forwarded_suspend_presets_not_supported_and_resumes_at_its_address() {
    let vm = riscv64(Dialect::Linux7_2);
    let (mut vcpu, seen) = calling(&vm, vec![(extension::SUSP, 0, [0, 0x1000, 99, 3, 4, 5])]);
    vcpu.set_sbi_extension(extension::SUSP, true).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::RISCV_SBI);
    let sbi: RiscvSbi = vcpu.page().payload();
    assert_eq!((sbi.extension_id, sbi.function_id), (extension::SUSP, 0));
    assert_eq!((sbi.args, sbi.ret), ([0, 0x1000, 99, 3, 4, 5], [register(error::NOT_SUPPORTED), 0]));
    assert_eq!(vcpu.mp_state(), MpState::Runnable, "no system event, nothing stops");
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [[0, 99]], "the hart and the opaque word, whatever the answer");
}

#[test]
fn a_suspend_needs_its_extension_which_is_off_at_first_and_fixed_once_the_vcpu_ran() {
    let vm = riscv64(Dialect::Linux7_2);
    let (mut vcpu, seen) = calling(&vm, vec![(extension::SUSP, 0, [0, 0x1000, 0, 0, 0, 0])]);
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [[register(error::NOT_SUPPORTED), 0]]);
    assert_eq!(vcpu.set_sbi_extension(extension::SUSP, true), Err(Errno::EBUSY));
    let (mut old, _) = calling(&riscv64(Dialect::Linux6_12), Vec::new());
    assert_eq!(old.set_sbi_extension(extension::SUSP, true), Err(Errno::ENOENT));
    assert_eq!(old.set_sbi_extension(extension::SRST, false), Ok(()));
}

#[test]
fn an_extension_that_is_off_ends_in_no_event() {
    let vm = riscv64(Dialect::Linux7_2);
    let calls = vec![(extension::SRST, 0, [0; 6]), (extension::SHUTDOWN_V01, 0, [0; 6])];
    let (mut vcpu, seen) = calling(&vm, calls);
    vcpu.set_sbi_extension(extension::SRST, false).unwrap();
    vcpu.set_sbi_extension(extension::SHUTDOWN_V01, false).unwrap();
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [[register(error::NOT_SUPPORTED), 0]; 2]);
}

#[test]
fn an_answer_is_found_by_the_exit_reason_and_taken_once() {
    let vm = riscv64(Dialect::Linux7_2);
    let console = (extension::DBCN, 0, [4, 0x2000, 0, 0, 0, 0]);
    let (mut vcpu, seen) = calling(&vm, vec![console, console, (extension::CONSOLE_PUTCHAR_V01, 0, [65; 6])]);
    vcpu.set_sbi_extension(extension::DBCN, true).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    let mut sbi: RiscvSbi = vcpu.page().payload();
    sbi.ret = [0, 4];
    vcpu.page_mut().set_payload(&sbi);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR), "the answer is taken");
    sbi.ret = [7, 7];
    vcpu.page_mut().set_payload(&sbi);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(seen.take(), [[0, 4]], "and not taken again");
    assert_eq!(reason(&vcpu), ExitReason::RISCV_SBI);
    // A VMM that destroys the reason loses its answer: the guest finds the words of its own last call.
    vcpu.page_mut().exit_reason = 0;
    vcpu.page_mut().set_payload(&sbi);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(seen.take(), [[0, 4]]);
    assert_eq!(vcpu.page().payload::<RiscvSbi>().extension_id, extension::CONSOLE_PUTCHAR_V01);
}

#[test]
fn a_hart_starts_another_and_sees_its_state() {
    let vm = riscv64(Dialect::Linux7_2);
    let hsm = |function: u64, hart: u64| (extension::HSM, function, [hart, 0x3000, 5, 0, 0, 0]);
    let calls = vec![
        hsm(hsm_function::HART_STATUS, 1),
        hsm(hsm_function::HART_START, 1),
        hsm(hsm_function::HART_START, 1),
        hsm(hsm_function::HART_STATUS, 1),
        hsm(hsm_function::HART_START, 2),
        hsm(hsm_function::HART_STOP, 0),
    ];
    let (mut first, seen) = calling(&vm, calls);
    let (mut second, _) = calling(&vm, vec![hsm(hsm_function::HART_STOP, 0)]);
    second.set_mp_state(mp_state::STOPPED).unwrap();
    assert_eq!(first.enter(), Err(Errno::EINTR), "it stopped itself");
    let answers = [[0, hart_state::STOPPED], [0, 0], [register(error::ALREADY_AVAILABLE), 0], [0, 0]];
    assert_eq!(seen.take(), [&answers[..], &[[register(error::INVALID_PARAM), 0]]].concat());
    assert_eq!(second.enter(), Err(Errno::EINTR));
    assert_eq!((first.mp_state(), second.mp_state()), (MpState::Stopped, MpState::Stopped));
}

#[test]
fn the_base_extension_says_what_is_there() {
    let vm = riscv64(Dialect::Linux7_2);
    let base = |function: u64, asked: u64| (extension::BASE, function, [asked, 0, 0, 0, 0, 0]);
    let probe = |asked: u64| base(base_function::PROBE_EXT, asked);
    let calls = vec![
        base(base_function::GET_SPEC_VERSION, 0),
        base(base_function::GET_IMP_ID, 0),
        probe(extension::SRST),
        probe(extension::SUSP),
        probe(0x0900_0000),
        probe(0x5555),
        base(77, 0),
        (0x5555, 0, [0; 6]),
    ];
    let (mut vcpu, seen) = calling(&vm, calls);
    assert!(!exits(&mut vcpu));
    let not = [register(error::NOT_SUPPORTED), 0];
    assert_eq!(seen.take(), [[0, 2 << 24], [0, 3], [0, 1], [0, 0], [0, 1], [0, 0], not, not]);
}
