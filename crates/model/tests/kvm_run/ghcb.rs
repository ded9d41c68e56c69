//! Requests through the GHCB, and the ways to get them wrong.

use crate::world::{GHCB, Seen, launched, reason, registered, run_to_halt, snp};
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::ghcb::{exit_code, msr};
use exeunt_abi::kvm::run::Mmio;
use exeunt_abi::kvm::run::{ExitReason, SystemEvent, event_type};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::Vcpu as _;

/// Runs a guest that makes these requests by page until it halts, and returns `SW_EXITINFO1` and `SW_EXITINFO2` of
/// each.
fn refusals(vm: &Vm, register: bool, codes: &'static [u64]) -> Vec<[u64; 2]> {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = if register { registered(&cpu).await? } else { Ghcb::at(GHCB) };
        for code in codes {
            let answer = ghcb.request(&cpu, *code, [0, 0], &[]).await?;
            log.push([answer.info_1, answer.info_2]);
        }
        Ok(())
    };
    run_to_halt(&mut vm.create_vcpu(0, program).unwrap());
    seen.take()
}

fn sev_term(vcpu: &Vcpu) -> u64 {
    assert_eq!(reason(vcpu), ExitReason::SYSTEM_EVENT);
    let event: SystemEvent = vcpu.page().payload();
    assert_eq!((event.event_type, event.ndata), (event_type::SEV_TERM, 1));
    event.data[0]
}

#[test]
fn a_ghcb_that_is_not_registered_is_refused() {
    let got = refusals(&snp(), false, &[exit_code::HV_FEATURES, exit_code::PSC, 0x1234]);
    assert_eq!(got, [[2, malformed::NOT_REGISTERED]; 3]);
}

#[test]
fn a_ghcb_that_is_not_registered_fails_linux_6_12() {
    let vm = launched(Dialect::Linux6_12, VmType::Snp);
    let program = |cpu: Cpu| async move {
        Ghcb::at(GHCB).request(&cpu, exit_code::HV_FEATURES, [0, 0], &[]).await?;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    run_to_halt(&mut vcpu);
}

#[test]
fn a_ghcb_of_another_usage_is_refused_whatever_it_asks() {
    let vm = snp();
    vm.write_shared(Gpa(GHCB.0 + page::GHCB_USAGE), &[1]).unwrap();
    let got = refusals(&vm, true, &[exit_code::HV_FEATURES, 0x1234]);
    assert_eq!(got, [[2, malformed::INVALID_USAGE]; 2]);
}

#[test]
fn what_only_snp_guests_may_ask_is_refused_to_sev_es_guests() {
    const SNP_ONLY: [u64; 4] =
        [exit_code::PSC, exit_code::GUEST_REQUEST, exit_code::EXT_GUEST_REQUEST, exit_code::AP_CREATION];
    let vm = launched(Dialect::Linux7_2, VmType::SevEs);
    assert_eq!(refusals(&vm, false, &SNP_ONLY), [[2, malformed::INVALID_EVENT]; 4]);
    let vm = launched(Dialect::Linux6_12, VmType::SevEs);
    assert_eq!(refusals(&vm, false, &SNP_ONLY), [[2, malformed::MISSING_INPUT]; 4]);
}

#[test]
fn an_unknown_exit_code_is_refused() {
    const UNKNOWN: [u64; 5] = [0, 0x1234, 0x8000_0014, 0x8000_001a, u64::MAX];
    for (dialect, vm_type) in [
        (Dialect::Linux7_2, VmType::Snp),
        (Dialect::Linux7_2, VmType::SevEs),
        (Dialect::Linux6_12, VmType::Snp),
    ] {
        let got = refusals(&launched(dialect, vm_type), vm_type == VmType::Snp, &UNKNOWN);
        assert_eq!(got, [[2, malformed::INVALID_EVENT]; 5], "{dialect} {vm_type:?}");
    }
}

#[test]
fn a_termination_by_page_names_the_page_and_the_guest_runs_on() {
    let vm = snp();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let answer = registered(&cpu).await?.request(&cpu, exit_code::TERM_REQUEST, [1, 2], &[]).await?;
        log.push([answer.info_1, answer.info_2]);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(sev_term(&vcpu), GHCB.0);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [[0, 0]]);
}

#[test]
fn a_termination_by_msr_hands_the_msr_over_and_the_guest_finds_it_unchanged() {
    let vm = snp();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        log.push(cpu.vmgexit(MsrRequest::terminate(1, 4)).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(sev_term(&vcpu), 0x04_1100);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [0x04_1100]);
}

#[test]
fn an_snp_request_by_msr_terminates_a_guest_that_is_not_snp() {
    let vm = launched(Dialect::Linux7_2, VmType::SevEs);
    for request in [msr::PREFERRED_GPA_REQUEST, msr::REGISTER_GPA_REQUEST, msr::PSC_REQUEST] {
        let program = |cpu: Cpu| async move { cpu.vmgexit(GHCB.0 | request).await.map(|_| ()) };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(sev_term(&vcpu), GHCB.0 | request);
    }
}

#[test]
fn an_error_from_inside_the_run_loop_leaves_exit_reason_0() {
    let vm = snp();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        cpu.hlt().await;
        ghcb.request(&cpu, exit_code::UNSUPPORTED_EVENT, [0, 0], &[]).await?;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    run_to_halt(&mut vcpu);
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    assert_eq!(reason(&vcpu), ExitReason::UNKNOWN);
    run_to_halt(&mut vcpu);
}

#[test]
fn linux_5_17_fails_on_a_termination() {
    let vm = launched(Dialect::Linux5_17, VmType::SevEs);
    let program = |cpu: Cpu| async move { cpu.vmgexit(MsrRequest::terminate(0, 0)).await.map(|_| ()) };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    assert_eq!(reason(&vcpu), ExitReason::UNKNOWN);
    run_to_halt(&mut vcpu);
}

#[test]
fn mmio_by_page_goes_through_the_scratch_area() {
    let vm = snp();
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        let scratch = ghcb.shared_buffer();
        let field = [(page::SW_SCRATCH, scratch.0)];
        cpu.write(scratch, &0x1122_3344_5566_7788u64.to_le_bytes(), Access::Shared).await?;
        ghcb.request(&cpu, exit_code::MMIO_WRITE, [0xfee0_0000, 4], &field).await?;
        ghcb.request(&cpu, exit_code::MMIO_READ, [0xfee0_0010, 2], &field).await?;
        log.push(cpu.read_u64(scratch, Access::Shared).await?);
        let answer = ghcb.request(&cpu, exit_code::MMIO_READ, [0xfee0_0010, 9], &field).await?;
        log.push(answer.info_2);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    let mmio: Mmio = vcpu.page().payload();
    let expected = (0xfee0_0000, 4, 1, [0x88, 0x77, 0x66, 0x55]);
    assert_eq!((mmio.phys_addr, mmio.len, mmio.is_write, mmio.data[..4].try_into().unwrap()), expected);
    assert_eq!(vcpu.enter(), Ok(()));
    let mut mmio: Mmio = vcpu.page().payload();
    assert_eq!((mmio.phys_addr, mmio.len, mmio.is_write), (0xfee0_0010, 2, 0));
    mmio.data = [0xab; 8];
    vcpu.page_mut().set_payload(&mmio);
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take(), [0x1122_3344_5566_abab, malformed::INVALID_INPUT]);
}
