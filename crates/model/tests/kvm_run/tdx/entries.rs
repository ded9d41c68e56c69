//! How `KVM_RUN` on a TD ends when the module does not run the guest.

use super::{address_bits, finalised, halts, init_vm, initialised, new_td, payload, run_to_halt};
use crate::world::{Seen, kernel, reason};
use exeunt_abi::ghci::leaf;
use exeunt_abi::kvm::run::{ExitReason, FailEntry, InternalError};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::CompletionStatus;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::guest::Cpu;
use exeunt_model::{Fault, FaultPlan, Host, Kvm, MpState, Point, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

/// A TD of which an entry comes back with a status.
fn refused(status: u64) -> (Vm, Vcpu) {
    let vm = initialised();
    let vcpu = finalised(&vm, halts);
    vm.set_fault_plan(FaultPlan::new().with(Point::VpEnter, 0, Fault::VpEnter(CompletionStatus(status))));
    (vm, vcpu)
}

#[test]
fn a_vcpu_runs_after_its_own_and_the_tds_initialisation_only() {
    let vm = initialised();
    let mut vcpu = vm.create_vcpu(0, halts).unwrap();
    let _other = super::vcpu_with(&vm, 0, halts);
    vcpu.page_mut().exit_reason = 77;
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL), "nothing is done yet");
    vcpu.set_cpuid2(&super::cpuid(52)).unwrap();
    vcpu.tdx_init_vcpu(0).unwrap();
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL), "the TD is not final");
    assert_eq!(vcpu.page().exit_reason, 77, "the reason is stale");
    vm.tdx_finalize_vm().unwrap();
    run_to_halt(&mut vcpu);
    let vm = initialised();
    let mut forgotten = vm.create_vcpu(0, halts).unwrap();
    let _other = super::vcpu_with(&vm, 0, halts);
    vm.tdx_finalize_vm().unwrap();
    assert_eq!(forgotten.enter(), Err(Errno::EINVAL), "the TD is final and the vCPU was forgotten");
}

#[test]
fn a_td_that_is_not_initialised_has_no_vcpus() {
    assert_eq!(new_td().create_vcpu(0, halts).err(), Some(Errno::EIO));
}

#[test]
fn a_td_needs_its_local_apics_in_the_kernel_and_nothing_else_there() {
    let kvm = Kvm::on(Host::INTEL, kernel(Dialect::Linux7_2));
    let vm = kvm.create_vm(VmType::Tdx).unwrap();
    vm.tdx_init_vm(&init_vm(), &[address_bits(48)]).unwrap();
    assert_eq!(vm.create_vcpu(0, halts).err(), Some(Errno::EINVAL));
    assert_eq!(vm.create_irqchip(), Err(Errno::ENOTTY));
    vm.split_irqchip(24).unwrap();
    assert!(vm.create_vcpu(0, halts).is_ok());
    assert_eq!(vm.create_irqchip(), Err(Errno::EEXIST));
}

#[test]
fn an_application_processor_waits_until_it_is_initialised_and_takes_no_init() {
    let vm = initialised();
    let _first = super::vcpu_with(&vm, 0, halts);
    let seen = Seen::new();
    let log = seen.clone();
    let mut vcpu = vm
        .create_vcpu(0, |cpu: Cpu| async move {
            log.push(cpu.id());
            cpu.tdvmcall(leaf::HLT, [0; 4]).await?;
            log.push(99);
            Ok(())
        })
        .unwrap();
    assert_eq!((vcpu.mp_state(), vcpu.enter()), (MpState::Uninitialized, Err(Errno::EINTR)));
    vcpu.set_cpuid2(&super::cpuid(52)).unwrap();
    vcpu.tdx_init_vcpu(0).unwrap();
    assert_eq!(vcpu.mp_state(), MpState::Runnable);
    vm.tdx_finalize_vm().unwrap();
    run_to_halt(&mut vcpu);
    // INIT and a startup interrupt for APIC id 1.
    assert_eq!(vm.signal_msi(0xfee0_1000, 0x500), Ok(1));
    assert_eq!(vm.signal_msi(0xfee0_1000, 0x612), Ok(1));
    run_to_halt(&mut vcpu);
    assert_eq!((vcpu.mp_state(), seen.take()), (MpState::Halted, vec![1]));
}

#[test]
fn a_td_has_no_more_vcpus_than_the_host_has_processors() {
    let vm = initialised();
    for _ in 0..8 {
        vm.create_vcpu(0, halts).unwrap();
    }
    assert_eq!(vm.create_vcpu(0, halts).err(), Some(Errno::EINVAL));
}

#[test]
fn a_triple_fault_is_a_shutdown_and_the_module_does_not_enter_the_vcpu_again() {
    let mut vcpu = finalised(&initialised(), |cpu: Cpu| async move {
        cpu.triple_fault().await;
        Ok(())
    });
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SHUTDOWN);
    assert_eq!(vcpu.enter(), Ok(()));
    let error: InternalError = payload(&vcpu, ExitReason::INTERNAL_ERROR);
    assert_eq!((error.suberror, error.data[0]), (4, CompletionStatus::VCPU_STATE_INCORRECT.0));
}

#[test]
fn a_failed_vm_entry_is_reported_with_its_whole_reason() {
    for class in [0, CompletionStatus::NON_RECOVERABLE_TD.0, CompletionStatus::NON_RECOVERABLE_VCPU.0] {
        let (_, mut vcpu) = refused(class | 0x8000_0021);
        assert_eq!(vcpu.enter(), Ok(()));
        let fail: FailEntry = payload(&vcpu, ExitReason::FAIL_ENTRY);
        assert_eq!((fail.hardware_entry_failure_reason, fail.cpu), (0x8000_0021, 0), "{class:#x}");
    }
}

#[test]
fn what_cannot_be_recovered_or_is_not_known_is_an_internal_error_with_the_status() {
    let statuses = [
        CompletionStatus::NON_RECOVERABLE_TD.0,
        CompletionStatus::NON_RECOVERABLE_VCPU.with(77).0,
        CompletionStatus::NON_RECOVERABLE_TD_NON_ACCESSIBLE.with(6).0,
        CompletionStatus::NON_RECOVERABLE_TD_WRONG_APIC_MODE.0,
        CompletionStatus::TD_FATAL.0,
        CompletionStatus::OPERAND_INVALID.with(1).0,
        0x1234 << 32,
        // Exit reasons that KVM has no handler for.
        7,
        0xffff,
    ];
    for status in statuses {
        let (_, mut vcpu) = refused(status);
        assert_eq!(vcpu.enter(), Ok(()), "{status:#x}");
        let error: InternalError = payload(&vcpu, ExitReason::INTERNAL_ERROR);
        assert_eq!((error.suberror, error.ndata, error.data[0]), (4, 2, status), "{status:#x}");
    }
}

#[test]
fn a_td_that_the_module_lost_is_not_entered_again_by_any_vcpu() {
    let vm = initialised();
    let mut other = super::vcpu_with(&vm, 0, halts);
    let mut vcpu = finalised(&vm, halts);
    let lost = Fault::VpEnter(CompletionStatus::NON_RECOVERABLE_TD);
    vm.set_fault_plan(FaultPlan::new().with(Point::VpEnter, 0, lost));
    for (vcpu, status) in
        [(&mut vcpu, CompletionStatus::NON_RECOVERABLE_TD), (&mut other, CompletionStatus::TD_FATAL)]
    {
        assert_eq!(vcpu.enter(), Ok(()));
        let error: InternalError = payload(vcpu, ExitReason::INTERNAL_ERROR);
        assert_eq!(error.data[0], status.0);
    }
}

#[test]
fn a_busy_module_and_an_interrupt_of_the_host_are_nothing_to_userspace() {
    for status in [CompletionStatus::OPERAND_BUSY.0, CompletionStatus::OPERAND_BUSY.with(0xa9).0, 1, 6] {
        let (_, mut vcpu) = refused(status);
        run_to_halt(&mut vcpu);
    }
}

#[test]
fn what_only_broken_hardware_says_kills_the_vm() {
    // An EPT misconfiguration fails at once; an instruction that is not there says so first.
    let (vm, mut vcpu) = refused(49);
    assert_eq!(vcpu.enter(), Err(Errno::EIO));
    assert_eq!(vcpu.page().exit_reason, 0);
    let (_, mut broken) = refused(0x8000_ff00_0000_0006);
    assert_eq!(broken.enter(), Ok(()));
    assert_eq!(reason(&broken), ExitReason::INTERNAL_ERROR);
    for vcpu in [&mut vcpu, &mut broken] {
        let stale = vcpu.page().exit_reason;
        for _ in 0..3 {
            assert_eq!(vcpu.enter(), Err(Errno::EIO));
            assert_eq!(vcpu.enter_immediately(), Err(Errno::EIO));
            assert_eq!(vcpu.page().exit_reason, stale);
        }
        assert_eq!(vcpu.tdx_init_vcpu(0), Err(Errno::EIO));
        assert_eq!(vcpu.tdx_get_cpuid(), Err(Errno::EIO));
    }
    drop(vm);
}

#[test]
fn a_pending_answer_is_lost_with_the_vm() {
    let seen = Seen::new();
    let log = seen.clone();
    let vm = initialised();
    let mut vcpu = finalised(&vm, |cpu: Cpu| async move {
        log.push(cpu.tdvmcall(leaf::GET_TD_VM_CALL_INFO, [1, 0, 0, 0]).await?);
        Ok(())
    });
    assert_eq!(vcpu.enter(), Ok(()));
    vm.set_fault_plan(FaultPlan::new().with(Point::VpEnter, 0, Fault::VpEnter(CompletionStatus(49))));
    assert_eq!(vcpu.enter(), Err(Errno::EIO), "completed, and not entered");
    assert_eq!(vcpu.enter(), Err(Errno::EIO));
    assert!(seen.take().is_empty());
}
