//! PSCI of arm64 and the crash and reset of Hyper-V: the events, byte for byte, and what KVM answers itself.

use crate::world::{Seen, calling, kernel, launched, reason};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::mp_state;
use exeunt_abi::kvm::run::{ExitReason, event_type};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::psci::{function as f, function_v0_1, return_code as code, version};
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_model::guest::Cpu;
use exeunt_model::{Kvm, MpState, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

const RELEASES_WITH_RESET2: [Dialect; 3] = [Dialect::Linux6_1, Dialect::Linux6_12, Dialect::Linux7_2];

fn arm64(dialect: Dialect) -> Vm {
    Kvm::new(Kernel { dialect, arch: Arch::Arm64 }).create_vm(VmType::Default).unwrap()
}

const fn register(code: i64) -> u64 {
    u64::from_ne_bytes(code.to_ne_bytes())
}

/// The union after one call in a new VM, over bytes that userspace left; `None` if the call did not exit.
fn union_after(dialect: Dialect, function: u32, args: [u64; 3]) -> Option<Vec<u8>> {
    let vm = arm64(dialect);
    if vm.check_extension(Cap::ARM_SYSTEM_SUSPEND) != 0 {
        vm.enable_cap(Cap::ARM_SYSTEM_SUSPEND, 1).unwrap();
    }
    let (mut vcpu, seen) = calling(&vm, vec![(function, args)]);
    vcpu.page_mut().exit = [0xaa; 256];
    exits(&mut vcpu);
    if reason(&vcpu) != ExitReason::SYSTEM_EVENT {
        let [x0] = seen.take()[..] else { panic!("no answer") };
        assert_eq!(x0, register(code::NOT_SUPPORTED), "{dialect} {function:#x}");
        return None;
    }
    Some(vcpu.page().exit.to_vec())
}

/// What a kernel since 5.18 leaves in the union.
fn shipped(event: u32, data: Option<u64>) -> Vec<u8> {
    let mut bytes = vec![0xaa; 256];
    bytes[..136].fill(0);
    bytes[..4].copy_from_slice(&event.to_le_bytes());
    if let Some(word) = data {
        bytes[4] = 1;
        bytes[8..16].copy_from_slice(&word.to_le_bytes());
    }
    bytes
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
fn each_release_writes_the_bytes_that_running_kernels_were_seen_to_write() {
    for dialect in RELEASES_WITH_RESET2 {
        let off2 = dialect.has_psci_off2().then(|| shipped(event_type::SHUTDOWN, Some(1)));
        let expected = [
            (f::SYSTEM_OFF, Some(shipped(event_type::SHUTDOWN, Some(0)))),
            (f::SYSTEM_RESET, Some(shipped(event_type::RESET, Some(0)))),
            (f::SYSTEM_RESET2, Some(shipped(event_type::RESET, Some(1)))),
            (f::SYSTEM_RESET2_64, Some(shipped(event_type::RESET, Some(1)))),
            (f::SYSTEM_OFF2, off2.clone()),
            (f::SYSTEM_OFF2_64, off2),
            (f::SYSTEM_SUSPEND, Some(shipped(event_type::SUSPEND, None))),
            (f::SYSTEM_SUSPEND_64, Some(shipped(event_type::SUSPEND, None))),
        ];
        for (function, bytes) in expected {
            assert_eq!(union_after(dialect, function, [0; 3]), bytes, "{dialect} {function:#x}");
        }
    }
}

#[test]
fn linux_5_10_writes_16_bytes_and_knows_neither_reset2_nor_off2_nor_suspend() {
    for (function, event) in [(f::SYSTEM_OFF, 1), (f::SYSTEM_RESET, 2)] {
        let bytes = union_after(Dialect::Linux5_10, function, [0; 3]).unwrap();
        assert_eq!(bytes[..4], [event, 0, 0, 0]);
        assert_eq!(bytes[4..16], [0; 12]);
        assert_eq!(bytes[16..], [0xaa; 240]);
    }
    for function in [f::SYSTEM_RESET2, f::SYSTEM_RESET2_64, f::SYSTEM_OFF2_64, f::SYSTEM_SUSPEND_64] {
        assert_eq!(union_after(Dialect::Linux5_10, function, [0; 3]), None);
    }
    assert_eq!(arm64(Dialect::Linux5_10).enable_cap(Cap::ARM_SYSTEM_SUSPEND, 1), Err(Errno::EINVAL));
}

#[test]
fn the_kind_of_a_reset_is_judged_by_its_low_32_bits() {
    for function in [f::SYSTEM_RESET2, f::SYSTEM_RESET2_64] {
        for (kind, taken) in [
            (0, true),
            (1, false),
            (0x7fff_ffff, false),
            (0x8000_0000, true),
            (0xffff_ffff, true),
            (1 << 32, true),
            (1 << 32 | 5, false),
            (1 << 63 | 0x8000_0001, true),
        ] {
            let vm = arm64(Dialect::Linux7_2);
            let (mut vcpu, seen) = calling(&vm, vec![(function, [kind, 0xc0_0c1e, 0])]);
            exits(&mut vcpu);
            assert_eq!(reason(&vcpu) == ExitReason::SYSTEM_EVENT, taken, "{function:#x} {kind:#x}");
            if taken {
                let narrow = if function == f::SYSTEM_RESET2 { kind & 0xffff_ffff } else { kind };
                let x = [register(code::INTERNAL_FAILURE), narrow, 0xc0_0c1e, 0];
                assert_eq!(vcpu.argument_registers(), x, "kind and cookie are where the guest put them");
            } else {
                assert_eq!(seen.take(), [register(code::INVALID_PARAMETERS)]);
            }
        }
    }
}

#[test]
fn off2_takes_the_kinds_0_and_1_without_a_cookie() {
    for kind in [0, 1, 2, 1 << 32, 1 << 32 | 1] {
        for cookie in [0, 1, 1 << 32] {
            for function in [f::SYSTEM_OFF2, f::SYSTEM_OFF2_64] {
                let vm = arm64(Dialect::Linux7_2);
                let (mut vcpu, seen) = calling(&vm, vec![(function, [kind, cookie, 0])]);
                exits(&mut vcpu);
                let no_cookie = cookie == 0 || cookie == 1 << 32 && function == f::SYSTEM_OFF2;
                let taken = kind & 0xffff_ffff < 2 && no_cookie;
                assert_eq!(reason(&vcpu) == ExitReason::SYSTEM_EVENT, taken, "{kind:#x} {cookie:#x}");
                assert_eq!(seen.take().is_empty(), taken);
            }
        }
    }
}

#[test]
fn every_vcpu_stops_and_one_that_is_started_again_finds_an_internal_failure() {
    for function in [f::SYSTEM_OFF, f::SYSTEM_RESET] {
        let vm = arm64(Dialect::Linux7_2);
        let (mut first, seen) = calling(&vm, vec![(function, [7, 8, 9])]);
        let (mut second, others) = calling(&vm, vec![(f::VERSION, [0; 3])]);
        assert_eq!(first.enter(), Ok(()));
        assert_eq!(first.argument_registers(), [register(code::INTERNAL_FAILURE), 0, 0, 0]);
        for vcpu in [&mut first, &mut second] {
            assert_eq!(vcpu.mp_state(), MpState::Stopped);
            assert!(vcpu.is_blocked());
            assert_eq!(vcpu.enter(), Err(Errno::EINTR));
            assert_eq!(reason(vcpu), ExitReason::INTR);
        }
        assert!(others.take().is_empty(), "the other vCPU was entered");
        first.set_mp_state(mp_state::RUNNABLE).unwrap();
        assert!(!exits(&mut first));
        assert_eq!(seen.take(), [register(code::INTERNAL_FAILURE)]);
    }
}

#[test]
fn a_suspend_leaves_the_registers_to_the_vmm_which_answers_in_x0() {
    let vm = arm64(Dialect::Linux7_2);
    let (mut vcpu, seen) = calling(&vm, vec![(f::SYSTEM_SUSPEND_64, [0x8_0000, 42, 3])]);
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [register(code::NOT_SUPPORTED)], "the capability is off");

    vm.enable_cap(Cap::ARM_SYSTEM_SUSPEND, 1).unwrap();
    let (mut vcpu, seen) = calling(&vm, vec![(f::SYSTEM_SUSPEND_64, [0x8_0000, 42, 3])]);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
    assert_eq!(vcpu.mp_state(), MpState::Runnable, "KVM leaves it running");
    assert_eq!(vcpu.argument_registers(), [u64::from(f::SYSTEM_SUSPEND_64), 0x8_0000, 42, 3]);
    vcpu.set_first_argument_register(register(code::DENIED));
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [register(code::DENIED)]);
}

#[test]
fn a_suspended_vcpu_wakes_up_with_an_event_until_its_vmm_makes_it_run() {
    let vm = arm64(Dialect::Linux7_2);
    let (mut vcpu, seen) = calling(&vm, vec![(f::VERSION, [0; 3])]);
    vcpu.set_mp_state(mp_state::SUSPENDED).unwrap();
    assert!(vcpu.is_blocked());
    assert_eq!(vcpu.enter(), Err(Errno::EINTR), "it sleeps");
    vcpu.set_interrupt_line(true);
    for _ in 0..2 {
        vcpu.page_mut().exit = [0xaa; 256];
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
        assert_eq!(vcpu.page().exit.to_vec(), shipped(event_type::WAKEUP, None));
        assert_eq!(vcpu.mp_state(), MpState::Suspended, "the state is sticky");
    }
    assert!(seen.take().is_empty());
    vcpu.set_mp_state(mp_state::RUNNABLE).unwrap();
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [u64::from(version::V1_3)]);
}

#[test]
fn each_architecture_takes_its_own_states_only() {
    let in_each = |arch| {
        let kernel = Kernel { dialect: Dialect::Linux7_2, arch };
        let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
        let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        (0..12).filter(|state| vcpu.set_mp_state(*state).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(in_each(Arch::X86), [0], "the local APIC is not in the kernel");
    assert_eq!(in_each(Arch::Arm64), [0, 5, 10]);
    assert_eq!(in_each(Arch::Riscv64), [0, 5]);
    let vm = arm64(Dialect::Linux5_10);
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(vcpu.set_mp_state(mp_state::SUSPENDED), Err(Errno::EINVAL));
}

#[test]
fn a_core_switches_another_on_and_sees_whether_it_is() {
    let vm = arm64(Dialect::Linux7_2);
    let on = |target: u64| (f::CPU_ON_64, [target, 0x4000, 77]);
    let info = |target: u64, level: u64| (f::AFFINITY_INFO_64, [target, level, 0]);
    let calls =
        vec![info(1, 0), on(1), on(1), info(1, 0), info(0, 1), info(9, 0), info(0, 4), on(9), on(1 << 24)];
    let (mut first, seen) = calling(&vm, calls);
    let (mut second, others) = calling(&vm, vec![(f::VERSION, [0; 3])]);
    second.arm_init(0b101).unwrap();
    assert_eq!(second.mp_state(), MpState::Stopped);
    assert!(!exits(&mut first));
    let expected = [1, code::SUCCESS, code::ALREADY_ON, 0, 0, -2, -2, -2, -2].map(register);
    assert_eq!(seen.take(), expected);
    assert_eq!(second.mp_state(), MpState::Runnable);
    assert!(!exits(&mut second));
    assert_eq!(others.take(), [u64::from(version::V1_3)]);
}

#[test]
fn a_core_that_switched_itself_off_starts_with_the_context_of_the_one_that_switches_it_on() {
    let vm = arm64(Dialect::Linux7_2);
    let (mut first, seen) = calling(&vm, vec![(f::CPU_OFF, [0; 3])]);
    let (mut second, _) = calling(&vm, vec![(f::CPU_ON_64, [0, 0x4000, 77])]);
    assert_eq!(first.enter(), Err(Errno::EINTR));
    assert_eq!(first.mp_state(), MpState::Stopped);
    assert!(!exits(&mut second));
    assert!(!exits(&mut first));
    assert_eq!(seen.take(), [77]);
}

#[test]
fn each_version_answers_its_own_functions() {
    let ask = |function: u32| (f::FEATURES, [u64::from(function), 0, 0]);
    let versions = [version::V0_2, version::V1_0, version::V1_1, version::V1_2, version::V1_3];
    for wanted in versions {
        let vm = arm64(Dialect::Linux7_2);
        vm.enable_cap(Cap::ARM_SYSTEM_SUSPEND, 1).unwrap();
        let asked =
            [f::CPU_ON_64, f::SYSTEM_SUSPEND, f::SYSTEM_RESET2_64, f::SYSTEM_OFF2, 0x8400_0005, 0x8000_0000];
        let mut calls = vec![(f::VERSION, [0; 3]), (f::MIGRATE_INFO_TYPE, [0; 3])];
        calls.extend(asked.map(ask));
        let (mut vcpu, seen) = calling(&vm, calls);
        vcpu.set_psci_version(wanted).unwrap();
        assert_eq!(vcpu.psci_version(), wanted);
        assert!(!exits(&mut vcpu));
        let since = |first: u32, answer: i64| if wanted >= first { answer } else { -1 };
        let features = [
            since(version::V1_0, 0),
            since(version::V1_0, 0),
            since(version::V1_1, 0),
            since(version::V1_3, 1),
            -1,
            since(version::V1_0, 0),
        ];
        let mut expected = vec![u64::from(wanted), 2];
        expected.extend(features.map(register));
        assert_eq!(seen.take(), expected, "{wanted:#x}");
    }
}

#[test]
fn an_older_version_has_no_newer_event() {
    for (function, since) in [
        (f::SYSTEM_SUSPEND_64, version::V1_0),
        (f::SYSTEM_RESET2_64, version::V1_1),
        (f::SYSTEM_OFF2, version::V1_3),
    ] {
        for wanted in [version::V0_2, version::V1_0, version::V1_1, version::V1_2, version::V1_3] {
            let vm = arm64(Dialect::Linux7_2);
            vm.enable_cap(Cap::ARM_SYSTEM_SUSPEND, 1).unwrap();
            let (mut vcpu, seen) = calling(&vm, vec![(function, [0; 3])]);
            vcpu.set_psci_version(wanted).unwrap();
            exits(&mut vcpu);
            assert_eq!(
                reason(&vcpu) == ExitReason::SYSTEM_EVENT,
                wanted >= since,
                "{function:#x} {wanted:#x}"
            );
            assert_eq!(seen.take().is_empty(), wanted >= since);
        }
    }
}

#[test]
fn a_vmm_chooses_among_the_versions_of_its_kernel_and_its_vcpu() {
    let choices = |dialect: Dialect, features: u32| {
        let mut vcpu = arm64(dialect).create_vcpu(0, |_| async { Ok(()) }).unwrap();
        vcpu.arm_init(features).unwrap();
        let all = version::ALL.iter().map(|(number, _)| *number).chain([0, 3, 0x0001_0004]);
        all.filter(|number| vcpu.set_psci_version(*number).is_ok()).collect::<Vec<_>>()
    };
    let [v0_1, v0_2, v1_0, v1_1] = [version::V0_1, version::V0_2, version::V1_0, version::V1_1];
    assert_eq!(choices(Dialect::Linux5_10, 4), [v0_2, v1_0]);
    assert_eq!(choices(Dialect::Linux6_12, 4), [v0_2, v1_0, v1_1]);
    assert_eq!(choices(Dialect::Linux7_2, 4), [v0_2, v1_0, v1_1, version::V1_2, version::V1_3]);
    assert_eq!(choices(Dialect::Linux7_2, 0), [v0_1]);
    let newest = Dialect::RELEASES.map(Dialect::psci_latest);
    assert_eq!(newest, [v1_0, v1_0, v1_1, v1_1, version::V1_3]);
}

#[test]
fn version_0_1_has_kvms_own_numbers_and_no_events() {
    let vm = arm64(Dialect::Linux7_2);
    let calls = vec![
        (f::VERSION, [0; 3]),
        (f::SYSTEM_OFF, [0; 3]),
        (function_v0_1::CPU_ON, [0, 0, 0]),
        (function_v0_1::MIGRATE, [0; 3]),
    ];
    let (mut vcpu, seen) = calling(&vm, calls);
    vcpu.arm_init(0).unwrap();
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [-1, -1, code::INVALID_PARAMETERS, -1].map(register));
}

#[test]
fn a_32_bit_guest_has_no_64_bit_calls() {
    let vm = arm64(Dialect::Linux7_2);
    let features = |function: u32| (f::FEATURES, [u64::from(function), 0, 0]);
    let calls = vec![(f::SYSTEM_RESET2_64, [0; 3]), features(f::CPU_ON_64), features(f::CPU_ON)];
    let (mut vcpu, seen) = calling(&vm, calls);
    vcpu.arm_init(0b110).unwrap();
    assert!(!exits(&mut vcpu));
    assert_eq!(seen.take(), [-1, -1, 0].map(register));
    assert_eq!(vcpu.arm_init(1 << 3), Err(Errno::ENOENT));
}

#[test]
fn hyperv_events_count_no_words_and_leave_stale_ones() {
    const CRASH_P0: u32 = 0x4000_0100;
    const CRASH_CTL: u32 = 0x4000_0105;
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let program = |cpu: Cpu| async move {
        for index in 0..5 {
            cpu.hyperv_write(CRASH_P0 + index, u64::from(index) + 0xc0).await?;
        }
        cpu.hyperv_write(CRASH_CTL, 1).await?;
        cpu.hyperv_write(0x4000_0003, 2).await?;
        cpu.hyperv_write(CRASH_CTL, 1 << 63).await?;
        cpu.hyperv_reset().await?;
        assert!(cpu.hyperv_write(0x4000_0106, 0).await.is_err());
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    for event in [event_type::CRASH, event_type::RESET] {
        vcpu.page_mut().exit = [0xaa; 256];
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(reason(&vcpu), ExitReason::SYSTEM_EVENT);
        let union = &vcpu.page().exit;
        assert_eq!(union[..4], event.to_le_bytes());
        assert_eq!(union[4..8], [0; 4], "no words");
        assert_eq!(union[8..], [0xaa; 248], "stale");
        assert_eq!(vcpu.mp_state(), MpState::Runnable);
    }
    assert_eq!(vm.hyperv_crash_parameters(), [0xc0, 0xc1, 0xc2, 0xc3, 0xc4]);
    crate::world::run_to_halt(&mut vcpu);
}

#[test]
fn psci_and_sbi_are_invalid_opcodes_elsewhere() {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    let program = |cpu: Cpu| async move {
        assert!(cpu.psci(f::SYSTEM_OFF, [0; 3]).await.is_err());
        assert!(cpu.sbi_call(8, 0, [0; 6]).await.is_err());
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.arm_init(0), Err(Errno::EINVAL));
    assert_eq!(vcpu.set_psci_version(version::V1_0), Err(Errno::ENOENT));
    assert_eq!(vcpu.set_sbi_extension(8, true), Err(Errno::ENOENT));
    crate::world::run_to_halt(&mut vcpu);
}

#[test]
fn a_wait_for_an_interrupt_is_no_exit_on_arm64_and_riscv64() {
    for arch in [Arch::Arm64, Arch::Riscv64] {
        let kernel = Kernel { dialect: Dialect::Linux7_2, arch };
        let vm = Kvm::new(kernel).create_vm(VmType::Default).unwrap();
        let seen = Seen::new();
        let log = seen.clone();
        let program = |cpu: Cpu| async move {
            cpu.hlt().await;
            log.push(1);
            cpu.hlt().await;
            log.push(2);
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert!(!exits(&mut vcpu));
        assert!(seen.take().is_empty(), "it waits");
        assert!(!exits(&mut vcpu));
        assert_eq!(seen.take(), [1], "the signal ended the wait");
        vcpu.set_interrupt_line(true);
        assert!(!exits(&mut vcpu), "the end of the turn");
        assert_eq!(seen.take(), [2]);
    }
}
