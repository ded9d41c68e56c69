//! L2 moves with its vCPU: `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`.

use crate::world::{Seen, kernel, reason, run_to_halt};
use exeunt_abi::kvm::events::{VALID_SMM, VcpuEvents};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::{Host, Intercepts, Kvm, NestedExit, Slot, Vcpu};
use exeunt_proto::host::{Events as _, Vcpu as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use zerocopy::{FromBytes as _, FromZeros as _};

const WHOLE: u32 = 128 + 4096;
const GUEST_MODE: u16 = 1;
const RUN_PENDING: u16 = 2;
const EVMCS: u16 = 4;
const GIF_SET: u16 = 0x100;
const CONTROL: Gpa = Gpa(0x3000);

/// A guest that enters L2 if it is told to, writes to a port, and notes what became of the act behind it.
fn guest(host: Host, intercepts: Option<Intercepts>) -> (Vcpu, Seen<Result<(), GuestFault>>) {
    let vm = Kvm::on(host, kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), 0x10_0000).unwrap()).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = move |cpu: Cpu| async move {
        if let Some(intercepts) = intercepts {
            cpu.enter_l2(CONTROL, intercepts).await?;
        }
        let port = cpu.port_out(0x80, 1, 0).await;
        log.push(port.and(cpu.write_cr4(0).await));
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::IO);
    (vcpu, seen)
}

/// The whole structure.
fn saved(vcpu: &Vcpu) -> Vec<u8> {
    let read = vcpu.nested_state(WHOLE);
    assert_eq!(read.result, Ok(()));
    let mut bytes = vec![0; 128];
    for (at, written) in read.writes {
        bytes.resize(bytes.len().max(at + written.len()), 0);
        bytes[at..at + written.len()].copy_from_slice(&written);
    }
    bytes
}

fn with(bytes: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

fn flags(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

#[test]
fn l2_is_restored_in_another_vm_with_what_l1_wants_to_see() {
    for (host, intercepts, code) in [
        (Host::AMD, Intercepts { shutdown: true, ..Intercepts::default() }, Some(0x7f)),
        (Host::AMD, Intercepts { exceptions: 1 << 13, ..Intercepts::default() }, None),
        (
            Host::INTEL,
            Intercepts { exceptions: 1 << 14, page_fault_mask: 1, ..Intercepts::default() },
            Some(2),
        ),
    ] {
        let (source, _) = guest(host, Some(intercepts));
        let bytes = saved(&source);
        assert_eq!(flags(&bytes) & GUEST_MODE, GUEST_MODE);
        let (mut target, seen) = guest(host, None);
        target.set_nested_state(&bytes).unwrap();
        assert_eq!(saved(&target), bytes, "what was set is read again");
        target.raise_triple_fault();
        assert_eq!(target.enter(), Ok(()));
        match code {
            Some(reason) => {
                let exit = NestedExit { reason, ..NestedExit::default() };
                assert_eq!(seen.take(), [Err(GuestFault::NestedExit(exit))]);
            }
            None => assert_eq!(reason(&target), ExitReason::SHUTDOWN),
        }
    }
}

#[test]
fn without_l2_there_is_a_header_and_no_block() {
    let (amd, _) = guest(Host::AMD, None);
    let bytes = saved(&amd);
    assert_eq!((bytes.len(), flags(&bytes)), (128, GIF_SET));
    assert_eq!((bytes[2], bytes[4]), (1, 128), "the format of SVM, and the size");
    let (intel, _) = guest(Host::INTEL, None);
    let bytes = saved(&intel);
    assert_eq!((bytes.len(), flags(&bytes), bytes[2]), (128, 0, 0));
    assert_eq!(bytes[8..24], [0xff; 16], "neither VMXON nor a VMCS");
}

#[test]
fn a_buffer_that_is_too_small_is_told_the_size_and_svm_writes_all_the_same() {
    for (host, writes_behind) in [(Host::AMD, true), (Host::INTEL, false)] {
        let (vcpu, _) = guest(host, Some(Intercepts::default()));
        for has in [0, 127, 128, WHOLE - 1] {
            let read = vcpu.nested_state(has);
            assert_eq!(read.result, Err(Errno::E2BIG));
            assert_eq!(read.writes.last().unwrap(), &(4, WHOLE.to_le_bytes().to_vec()));
            let behind =
                read.writes.iter().any(|(at, bytes)| at + bytes.len() > usize::try_from(has).unwrap().max(8));
            assert_eq!(behind, writes_behind && has >= 128, "{has}");
        }
    }
}

#[test]
fn every_vendor_refuses_what_its_checks_refuse() {
    let (source, _) = guest(Host::AMD, Some(Intercepts::default()));
    let good = saved(&source);
    let (mut target, _) = guest(Host::AMD, None);
    let flag = |value: u16| with(&good, 0, &value.to_le_bytes());
    for (bytes, what) in [
        (with(&good, 4, &127u32.to_le_bytes()), "a size below the header"),
        (flag(GUEST_MODE | 0x200), "an unknown flag"),
        (flag(RUN_PENDING), "a run without a guest"),
        (flag(GUEST_MODE | EVMCS), "a flag of VMX"),
        (with(&good, 2, &[0]), "the format of VMX"),
        (with(&good, 8, &[1]), "an unaligned VMCB"),
        (with(&good, 4, &(WHOLE - 1).to_le_bytes()), "no VMCB"),
        (with(&good, 128 + 0x10, &[0; 4]), "VMRUN is not intercepted"),
        (with(&good, 128 + 0x58, &[0; 4]), "ASID 0"),
        (with(&good, 128 + 0x558, &[0; 8]), "L1 without paging"),
        (with(&good, 128 + 0x4d0, &[0; 8]), "L1 without SVM"),
    ] {
        assert_eq!(target.set_nested_state(&bytes), Err(Errno::EINVAL), "{what}");
    }
    assert_eq!(target.set_nested_state(&good[..100]), Err(Errno::EFAULT));
    let mut in_smm = VcpuEvents::new_zeroed();
    (in_smm.flags, in_smm.smi_smm) = (VALID_SMM, 1);
    target.set_events(&in_smm).unwrap();
    assert_eq!(target.set_nested_state(&good), Err(Errno::EINVAL), "system management mode has no L2");

    let (source, _) = guest(Host::INTEL, Some(Intercepts::default()));
    let good = saved(&source);
    let (mut target, _) = guest(Host::INTEL, None);
    for (bytes, what) in [
        (with(&good, 2, &[1]), "the format of SVM"),
        (with(&good, 8, &[1]), "an unaligned VMXON region"),
        (with(&good, 8, &[0xff; 8]), "a guest without VMXON"),
        (with(&good, 16, &[1]), "an unaligned VMCS"),
        (with(&good, 24, &[1]), "flags of SMM outside of it"),
        (with(&good, 28, &[2]), "an unknown flag of VMX"),
        (with(&good, 4, &128u32.to_le_bytes()), "a guest without a VMCS"),
        (with(&good, 128, &[0]), "another revision"),
        (with(&good, 0, &(GUEST_MODE | EVMCS).to_le_bytes()), "an enlightened VMCS"),
    ] {
        assert_eq!(target.set_nested_state(&bytes), Err(Errno::EINVAL), "{what}");
    }
    let same = with(&with(&good, 8, &CONTROL.0.to_le_bytes()), 16, &CONTROL.0.to_le_bytes());
    assert_eq!(target.set_nested_state(&same), Err(Errno::EINVAL), "VMXON region and VMCS are one");
}

#[test]
fn a_state_without_l2_takes_it_away() {
    for host in [Host::AMD, Host::INTEL] {
        let (plain, _) = guest(host, None);
        let (mut vcpu, seen) = guest(host, Some(Intercepts::default()));
        vcpu.set_nested_state(&saved(&plain)).unwrap();
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [Ok(())], "the program hears of nothing");
        assert_eq!(vcpu.page().flags, 0);
    }
}

/// What a hostile L1 and its L2 do.
async fn hostile(cpu: Cpu, acts: Vec<u8>) -> Result<(), GuestFault> {
    for act in acts {
        let intercepts = Intercepts {
            exceptions: u32::from(act) << 6,
            shutdown: act & 1 != 0,
            page_fault_mask: u32::from(act & 2),
            page_fault_match: u32::from(act & 4),
            host_state_fails: act > 0xf0,
        };
        match act % 8 {
            0 | 1 => _ = cpu.enter_l2(Gpa(u64::from(act) << 12), intercepts).await,
            2 => _ = cpu.exit_l2().await,
            3 => _ = cpu.port_out(0x80, 1, 0).await,
            4 => cpu.triple_fault().await,
            5 => _ = cpu.wrmsr(0xc000_0080, 0).await,
            6 => cpu.hlt().await,
            _ => _ = cpu.write_cr4(u64::from(act)).await,
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_state_and_no_guest_of_guests_panics_or_hangs(
        is_intel in any::<bool>(),
        acts in vec(any::<u8>(), 0..40),
        moves in vec((0u8..5, any::<[u8; 64]>(), vec((0usize..4224, any::<u8>()), 0..8)), 0..40),
    ) {
        let host = if is_intel { Host::INTEL } else { Host::AMD };
        let vm = Kvm::on(host, kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
        vm.add_slot(Slot::shared(0, Gpa(0), 0x8_0000).unwrap()).unwrap();
        let mut vcpu = vm.create_vcpu(0, |cpu| hostile(cpu, acts)).unwrap();
        for (action, events, changes) in moves {
            match action {
                0 => _ = vcpu.set_events(&VcpuEvents::read_from_bytes(&events).unwrap()),
                1 => vcpu.raise_triple_fault(),
                2 => {
                    let mut state = saved(&vcpu);
                    for (at, byte) in changes {
                        if let Some(place) = state.get_mut(at) {
                            *place = byte;
                        }
                    }
                    if vcpu.set_nested_state(&state).is_ok() {
                        let read = vcpu.nested_state(WHOLE);
                        prop_assert_eq!(read.result, Ok(()));
                    }
                }
                3 => _ = vcpu.smi(),
                _ => _ = vcpu.enter_immediately(),
            }
            let entered = vcpu.enter();
            let is_active = flags(&saved(&vcpu)) & GUEST_MODE != 0;
            if entered != Err(Errno::EIO) {
                prop_assert_eq!(vcpu.page().flags & 4 != 0, is_active, "the flag and the state agree");
            }
        }
    }
}
