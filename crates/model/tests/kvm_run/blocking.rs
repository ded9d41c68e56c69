//! vCPUs with nothing to do, on threads of their own.

use crate::world::{calling, reason};
use exeunt_abi::kvm::events::{VALID_SMM, VcpuEvents};
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::psci::function as f;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::guest::Cpu;
use exeunt_model::{Kvm, MpState, Vm};
use exeunt_proto::host::{Events as _, Vcpu as _};
use std::thread;
use zerocopy::FromZeros as _;

fn arm64() -> Vm {
    let kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::Arm64 };
    let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
    vm.set_blocking(true);
    vm
}

/// Waits until a vCPU sleeps: the only way there is to know that it does.
fn until_asleep(kick: &exeunt_model::Kick) {
    while !kick.is_asleep() {
        thread::yield_now();
    }
}

#[test]
fn after_a_shutdown_kvm_run_sleeps_until_a_kick() {
    let vm = arm64();
    let (mut vcpu, seen) = calling(&vm, vec![(f::SYSTEM_OFF, [0; 3])]);
    assert_eq!(vcpu.enter(), Ok(()));
    let kick = vcpu.kick();
    let runs = thread::spawn(move || (vcpu.enter(), vcpu));
    until_asleep(&kick);
    kick.set(true);
    let (entered, vcpu) = runs.join().unwrap();
    assert_eq!(entered, Err(Errno::EINTR));
    assert_eq!(reason(&vcpu), ExitReason::INTR);
    assert!(!kick.is_asleep());
    assert!(seen.take().is_empty());
}

#[test]
fn a_core_that_sleeps_is_woken_by_the_one_that_switches_it_on() {
    let vm = arm64();
    let (mut first, _) = calling(&vm, vec![(f::CPU_ON_64, [1, 0, 5])]);
    let (mut second, seen) = calling(&vm, vec![(f::MIGRATE_INFO_TYPE, [0; 3])]);
    second.arm_init(0b101).unwrap();
    let kick = second.kick();
    let runs = thread::spawn(move || second.enter());
    until_asleep(&kick);
    // Both programs end in a wait, which is to end at once.
    vm.set_blocking(false);
    assert_eq!(first.enter(), Err(Errno::EINTR));
    assert_eq!(runs.join().unwrap(), Err(Errno::EINTR));
    assert_eq!(seen.take(), [2]);
}

#[test]
fn a_vcpu_that_runs_is_stopped_by_the_shutdown_of_another() {
    let vm = arm64();
    let (mut first, _) = calling(&vm, vec![(f::SYSTEM_OFF, [0; 3])]);
    let spins = |cpu: Cpu| async move {
        loop {
            cpu.psci(f::VERSION, [0; 3]).await?;
        }
    };
    let mut second = vm.create_vcpu(0, spins).unwrap();
    let kick = second.kick();
    let runs = thread::spawn(move || {
        // The end of a time slice is no reason to leave.
        while !second.is_blocked() {
            let _ = second.enter();
        }
        (second.enter(), second.mp_state())
    });
    assert_eq!(first.enter(), Ok(()));
    until_asleep(&kick);
    kick.set(true);
    assert_eq!(runs.join().unwrap(), (Err(Errno::EINTR), MpState::Stopped));
}

#[test]
fn a_suspended_core_sleeps_until_an_interrupt_and_tells_its_vmm() {
    let vm = arm64();
    let (mut vcpu, _) = calling(&vm, Vec::new());
    let (other, _) = calling(&vm, Vec::new());
    vcpu.set_mp_state(mp_state::SUSPENDED).unwrap();
    vcpu.set_interrupt_line(true);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
    vcpu.set_interrupt_line(false);
    let kick = vcpu.kick();
    let runs = thread::spawn(move || vcpu.enter());
    until_asleep(&kick);
    kick.set(true);
    assert_eq!(runs.join().unwrap(), Err(Errno::EINTR));
    assert!(!other.is_blocked());
}

#[test]
fn cpu_suspend_waits_for_an_interrupt_and_a_signal_ends_it_too() {
    let vm = arm64();
    vm.set_blocking(false);
    let (mut vcpu, seen) = calling(&vm, vec![(f::CPU_SUSPEND_64, [1, 2, 3]), (f::CPU_SUSPEND, [0; 3])]);
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    assert_eq!(reason(&vcpu), ExitReason::INTR);
    vcpu.set_interrupt_line(true);
    assert_eq!(vcpu.enter(), Err(Errno::EINTR), "the program ends, and its turn with it");
    assert_eq!(seen.take(), [0, 0]);
    assert!(!vcpu.is_blocked());
    vcpu.set_interrupt_line(false);
    assert!(vcpu.is_blocked());
}

#[test]
fn a_vcpu_that_runs_is_not_blocked() {
    let vm = arm64();
    vm.set_blocking(false);
    let (mut vcpu, _) = calling(&vm, vec![(f::VERSION, [0; 3])]);
    assert!(!vcpu.is_blocked());
    assert_eq!(vcpu.enter(), Err(Errno::EINTR));
    assert!(vcpu.is_blocked(), "its program ended in a wait");
    vcpu.set_mp_state(mp_state::STOPPED).unwrap();
    assert!(vcpu.is_blocked());
}

#[test]
fn a_masked_kick_ends_no_run_under_way_and_keeps_the_next_from_the_guest() {
    let vm = arm64();
    let (mut vcpu, seen) = calling(&vm, vec![(f::SYSTEM_OFF, [0; 3])]);
    let (mut other, _) = calling(&vm, vec![(f::CPU_ON_64, [0, 0, 5])]);
    vcpu.set_signal_mask(Some(1 << 9));
    assert_eq!(vcpu.enter(), Ok(()));
    other.set_mp_state(mp_state::RUNNABLE).unwrap();
    let kick = vcpu.kick();
    let runs = thread::spawn(move || (vcpu.enter(), vcpu));
    until_asleep(&kick);
    kick.set(true);
    assert!(kick.is_asleep(), "the signal is blocked");
    vm.set_blocking(false);
    assert_eq!(other.enter(), Err(Errno::EINTR), "the other core switches this one on");
    let (entered, mut vcpu) = runs.join().unwrap();
    assert_eq!((entered, reason(&vcpu)), (Err(Errno::EINTR), ExitReason::INTR), "and waits again");
    assert_eq!(seen.take(), [5]);
    vcpu.page_mut().exit_reason = 39;
    assert_eq!(vcpu.enter(), Err(Errno::EINTR), "immediate_exit is set still");
    assert_eq!(reason(&vcpu), ExitReason::MEMORY_FAULT, "and leaves the reason");
    vcpu.set_signal_mask(None);
}

#[test]
fn an_uninitialized_processor_sleeps_and_is_to_be_called_again() {
    let vm = Kvm::default().create_vm(VmType::Default).unwrap();
    vm.create_irqchip().unwrap();
    vm.set_blocking(true);
    let _first = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(vcpu.mp_state(), MpState::Uninitialized);
    vcpu.page_mut().exit_reason = 39;
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(reason(&vcpu), ExitReason::MEMORY_FAULT, "stale");
    let kick = vcpu.kick();
    let runs = thread::spawn(move || (vcpu.enter(), vcpu));
    until_asleep(&kick);
    kick.set(true);
    let (entered, vcpu) = runs.join().unwrap();
    assert_eq!((entered, reason(&vcpu)), (Err(Errno::EINTR), ExitReason::INTR));
}

#[test]
fn a_vcpu_that_waits_for_a_startup_interrupt_in_system_management_mode_is_refused() {
    for (dialect, at_set) in [(Dialect::Linux6_12, true), (Dialect::Linux7_2, false)] {
        let kernel = Kernel { dialect, arch: Arch::X86 };
        let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
        vm.create_irqchip().unwrap();
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        let mut in_smm = VcpuEvents::new_zeroed();
        (in_smm.flags, in_smm.smi_smm) = (VALID_SMM, 1);
        vcpu.set_events(&in_smm).unwrap();
        assert_eq!(vcpu.set_mp_state(mp_state::INIT_RECEIVED).is_err(), at_set, "{dialect}");
        if !at_set {
            assert_eq!(vcpu.enter(), Err(Errno::EINVAL), "KVM_RUN refuses it");
        }
        let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
        vm.create_irqchip().unwrap();
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        vcpu.set_mp_state(mp_state::INIT_RECEIVED).unwrap();
        assert_eq!(vcpu.set_events(&in_smm).is_err(), at_set, "{dialect}");
    }
}
