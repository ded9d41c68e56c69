//! The MSR protocol, request by request.

use crate::world::{DATA, GHCB, Seen, kernel, launched, new_vm, reason, run_to_halt, snp};
use exeunt_abi::Dialect;
use exeunt_abi::ghcb::{msr, psc};
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::run::{ExitReason, SystemEvent};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::msr_index::AMD64_SEV_ES_GHCB;
use exeunt_model::guest::Cpu;
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::Vcpu as _;

/// A guest that makes these requests by MSR and tells what it finds in the MSR afterwards.
fn asking(vm: &Vm, requests: Vec<u64>) -> (Vcpu, Seen<u64>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        for request in requests {
            log.push(cpu.vmgexit(request).await?);
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

fn answers(vm: &Vm, requests: &[u64]) -> Vec<u64> {
    let (mut vcpu, seen) = asking(vm, requests.to_vec());
    run_to_halt(&mut vcpu);
    seen.take()
}

/// Version 2 to 1, C-bit 51.
const SEV_INFO: u64 = 2 << 48 | 1 << 32 | 51 << 24 | 1;

#[test]
fn the_version_is_that_of_the_vm_from_1_on_with_the_position_of_the_c_bit() {
    assert_eq!(answers(&snp(), &[msr::SEV_INFO_REQUEST, 0xffff_f000 | 2]), [SEV_INFO; 2]);
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::SevEs);
    vm.sev_init2(1).unwrap();
    vm.launch().unwrap();
    assert_eq!(answers(&vm, &[msr::SEV_INFO_REQUEST]), [1 << 48 | SEV_INFO & 0xffff_ffff_ffff]);
}

#[test]
fn a_reset_presets_the_version_and_a_plain_guest_has_no_such_register() {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.rdmsr(AMD64_SEV_ES_GHCB).await?);
        cpu.wrmsr(AMD64_SEV_ES_GHCB, 0x1234).await?;
        log.push(cpu.rdmsr(AMD64_SEV_ES_GHCB).await?);
        Ok(())
    };
    run_to_halt(&mut snp().create_vcpu(0, program).unwrap());
    assert_eq!(seen.take(), [SEV_INFO, 0x1234]);
    let vm = launched(Dialect::Linux7_2, VmType::Default);
    let program = |cpu: Cpu| async move { cpu.rdmsr(AMD64_SEV_ES_GHCB).await.map(|_| ()) };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!((vcpu.enter(), reason(&vcpu)), (Ok(()), ExitReason::SHUTDOWN), "#GP without a handler");
}

#[test]
fn cpuid_gives_one_register_of_sub_leaf_0_and_keeps_bits_31_to_12() {
    let vm = snp();
    let request = |register: u64| 0x8000_0001 << 32 | register << 30 | 0x2bcd_e000 | msr::CPUID_REQUEST;
    let (mut vcpu, seen) = asking(&vm, (0..4).map(request).chain([5 << 32 | 4]).collect());
    let [eax, ebx, ecx, edx] = [0x11, 0x22, 0x33, 0x44];
    vcpu.set_cpuid2(&[CpuidEntry2 { function: 0x8000_0001, eax, ebx, ecx, edx, ..CpuidEntry2::default() }])
        .unwrap();
    run_to_halt(&mut vcpu);
    let expected = [0x11, 0x22, 0x33, 0x44].into_iter().zip(0..);
    let expected = expected.map(|(value, register)| value << 32 | register << 30 | 0x2bcd_e000 | 5);
    assert_eq!(seen.take(), expected.chain([5]).collect::<Vec<u64>>());
}

#[test]
fn no_address_is_preferred_and_any_is_registered_as_often_as_the_guest_likes() {
    let far = 0x000f_ffff_ffff_f000;
    let requests = [
        msr::PREFERRED_GPA_REQUEST,
        GHCB.0 | msr::REGISTER_GPA_REQUEST,
        DATA.0 | msr::REGISTER_GPA_REQUEST,
        far | msr::REGISTER_GPA_REQUEST,
    ];
    let expected = [!0xfff | 0x011, GHCB.0 | 0x013, DATA.0 | 0x013, far | 0x013];
    assert_eq!(answers(&snp(), &requests), expected);
}

#[test]
fn the_features_have_no_gate_and_what_kvm_does_not_know_stays_in_the_register() {
    for vm_type in [VmType::Snp, VmType::SevEs] {
        let vm = launched(Dialect::Linux7_2, vm_type);
        assert_eq!(answers(&vm, &[msr::HV_FEATURES_REQUEST]), [3 << 12 | 0x081]);
        // Running another privilege level, a response, and numbers of nothing.
        let silent = [2 << 32 | msr::RUN_VMPL_REQUEST, 0x1234_5001, 0xabc_d003, 0x7ff, 0xfff];
        assert_eq!(answers(&vm, &silent), silent);
    }
}

#[test]
fn an_address_of_0_or_without_memory_resumes_the_guest_and_writes_nothing() {
    assert_eq!(answers(&snp(), &[0, 1 << 40]), [0, 1 << 40]);
}

#[test]
fn a_page_by_msr_takes_two_operations_and_needs_the_capability() {
    let vm = snp();
    let others =
        (0..16).filter(|operation| !matches!(*operation, psc::operation::PRIVATE | psc::operation::SHARED));
    let requests: Vec<u64> = others.map(|operation| MsrRequest::psc(DATA.gfn(), operation)).collect();
    assert_eq!(answers(&vm, &requests), [1 << 63 | 0x015; 14]);
    vm.enable_cap(exeunt_abi::kvm::caps::Cap::EXIT_HYPERCALL, 0).unwrap();
    assert_eq!(answers(&vm, &[MsrRequest::psc(DATA.gfn(), 1)]), [1 << 63 | 0x015]);
}

#[test]
fn a_termination_carries_every_set_and_code_and_leaves_the_request_in_the_register() {
    let vm = launched(Dialect::Linux7_2, VmType::SevEs);
    for (set, code) in [(0, 0), (0, 2), (1, 0), (1, 12), (15, 255)] {
        let request = MsrRequest::terminate(set, code);
        let (mut vcpu, seen) = asking(&vm, vec![request]);
        assert_eq!((vcpu.enter(), reason(&vcpu)), (Ok(()), ExitReason::SYSTEM_EVENT));
        let event: SystemEvent = vcpu.page().payload();
        assert_eq!((event.event_type, event.ndata, event.data[0]), (6, 1, request));
        run_to_halt(&mut vcpu);
        assert_eq!(seen.take(), [request]);
    }
}

#[test]
fn a_hold_by_msr_without_a_local_apic_in_the_kernel_ends_without_a_result() {
    let vm = launched(Dialect::Linux7_2, VmType::SevEs);
    let (mut vcpu, seen) = asking(&vm, vec![0xffff_f000 | msr::AP_RESET_HOLD_REQUEST]);
    assert_eq!((vcpu.enter(), reason(&vcpu)), (Ok(()), ExitReason::AP_RESET_HOLD));
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [msr::AP_RESET_HOLD_RESPONSE]);
}
