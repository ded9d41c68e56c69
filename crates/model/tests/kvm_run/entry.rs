//! The order of checks of `KVM_RUN`, and what ends it.

use crate::world::{DATA, Seen, kernel, launched, new_vm, reason, run_to_halt, snp};
use exeunt_abi::kvm::run::{ExitReason, FailEntry, SystemEvent, event_type};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::guest::Access;
use exeunt_model::{Kick, Kvm};
use exeunt_proto::host::Vcpu as _;
use std::sync::{Arc, OnceLock};

/// `SYSTEM_OFF` of PSCI.
const SYSTEM_OFF: u32 = 0x8400_0008;

#[test]
fn immediate_exit_with_nothing_pending_gives_eintr_and_leaves_exit_reason() {
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let mut vcpu = vm.create_vcpu(0, |cpu| async move { cpu.port_out(0x80, 1, 7).await }).unwrap();
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(reason(&vcpu), ExitReason::UNKNOWN);
    assert_eq!(vcpu.enter(), Ok(()));
    let page = vcpu.page().clone();
    for _ in 0..3 {
        assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
        assert_eq!(*vcpu.page(), page, "exit_reason and the union are stale");
    }
    run_to_halt(&mut vcpu);
}

#[test]
fn an_snp_vm_does_not_run_before_init2() {
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::Snp);
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    vcpu.page_mut().exit_reason = 39;
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    assert_eq!(reason(&vcpu), ExitReason::MEMORY_FAULT, "stale");
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR), "is checked first");
}

#[test]
fn an_snp_vm_that_was_not_launched_fails_its_entry() {
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::Snp);
    vm.sev_init2(2).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    for _ in 0..2 {
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::FAIL_ENTRY);
        let fail: FailEntry = vcpu.page().payload();
        assert_eq!(fail.hardware_entry_failure_reason, u64::MAX);
    }
    vm.launch().unwrap();
    run_to_halt(&mut vcpu);
}

#[test]
fn init2_is_for_protected_types_before_the_first_vcpu_and_once() {
    for (vm_type, second) in [(VmType::Snp, Errno::EPERM), (VmType::SevEs, Errno::EINVAL)] {
        let vm = new_vm(kernel(Dialect::Linux7_2), vm_type);
        assert_eq!(vm.sev_init2(3), Err(Errno::EINVAL), "version 3");
        assert_eq!(vm.sev_init2(1).is_ok(), vm_type == VmType::SevEs, "version 1");
        if vm_type == VmType::Snp {
            vm.sev_init2(0).unwrap();
        }
        assert_eq!(vm.sev_init2(0), Err(second));
        let vm = new_vm(kernel(Dialect::Linux7_2), vm_type);
        let _vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        assert_eq!(vm.sev_init2(0), Err(Errno::EINVAL), "after a vCPU");
    }
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::Default);
    assert_eq!(vm.sev_init2(0), Err(Errno::EINVAL));
}

#[test]
fn a_stopped_arm64_vcpu_runs_no_more_and_is_interrupted() {
    let kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::Arm64 };
    let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: exeunt_model::guest::Cpu| async move {
        log.push(cpu.psci(SYSTEM_OFF, [0; 3]).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
    let event: SystemEvent = vcpu.page().payload();
    assert_eq!((event.event_type, event.data[0]), (event_type::SHUTDOWN, 0));
    for _ in 0..3 {
        assert_eq!(vcpu.enter(), Err(Errno::EINTR));
        assert_eq!(reason(&vcpu), ExitReason::INTR);
    }
    assert!(seen.take().is_empty(), "the guest was entered");
}

#[test]
fn a_guest_that_spins_is_cut_off_by_the_time_slice() {
    let vm = snp();
    let program = |cpu: exeunt_model::guest::Cpu| async move {
        loop {
            cpu.vmgexit(0).await?;
        }
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    for _ in 0..2 {
        assert_eq!(vcpu.enter(), Err(Errno::EINTR));
        assert_eq!(reason(&vcpu), ExitReason::INTR);
    }
}

#[test]
fn a_kicked_vcpu_returns_at_its_next_act_and_loses_nothing() {
    let vm = snp();
    let handle: Arc<OnceLock<Kick>> = Arc::default();
    let kick = Arc::clone(&handle);
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: exeunt_model::guest::Cpu| async move {
        for number in 0..100u64 {
            cpu.write(DATA, &number.to_le_bytes(), Access::Shared).await?;
            log.push(cpu.read_u64(DATA, Access::Shared).await?);
            if let (30, Some(kick)) = (number, kick.get()) {
                kick.set(true);
            }
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert!(handle.set(vcpu.kick()).is_ok());
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    assert_eq!(reason(&vcpu), ExitReason::INTR);
    assert_eq!(seen.0.lock().unwrap().len(), 31);
    assert_eq!(vcpu.enter(), Err(Errno::EINTR), "as long as it is kicked");
    vcpu.kick().set(false);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), (0..100).collect::<Vec<_>>());
}
