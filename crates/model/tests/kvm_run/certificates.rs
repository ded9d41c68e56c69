//! Guest requests: certificates from userspace, status from the firmware.

use crate::world::{GHCB, MEMORY_BYTES, Seen, kernel, new_vm, reason, registered, run_to_halt};
use exeunt_abi::ghcb::guest_message::{MSG_REPORT_REQ, MSG_TYPE, vmm_error};
use exeunt_abi::ghcb::{exit_code, page};
use exeunt_abi::kvm::run::{ExitReason, SnpReqCerts};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::Cpu;
use exeunt_model::guest::snp::Answer;
use exeunt_model::{Firmware, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

const REQUEST: Gpa = Gpa(0x30_0000);
const RESPONSE: Gpa = Gpa(0x30_1000);
const TABLE: Gpa = Gpa(0x30_2000);

/// A guest that asks for a report with room for `pages` pages of certificates.
fn asks(pages: u64, firmware: Firmware) -> (Vm, Vcpu, Seen<Answer>) {
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::Snp);
    vm.sev_init2(2).unwrap();
    vm.snp_enable_req_certs().unwrap();
    vm.launch().unwrap();
    vm.set_firmware(firmware);
    vm.write_shared(Gpa(REQUEST.0 + MSG_TYPE), &[MSG_REPORT_REQ]).unwrap();
    vm.write_shared(RESPONSE, &[0xee; 4096]).unwrap();
    let seen = Seen::new();
    let log = seen.clone();
    let program = move |cpu: Cpu| async move {
        let fields = [(page::RAX, TABLE.0), (page::RBX, pages)];
        let ghcb = registered(&cpu).await?;
        log.push(ghcb.request(&cpu, exit_code::EXT_GUEST_REQUEST, [REQUEST.0, RESPONSE.0], &fields).await?);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::SNP_REQ_CERTS);
    let request: SnpReqCerts = vcpu.page().payload();
    assert_eq!(request, SnpReqCerts { gpa: TABLE.0, npages: pages, ret: 0 });
    (vm, vcpu, seen)
}

fn answer(vcpu: &mut Vcpu, npages: u64, ret: u64) {
    vcpu.page_mut().set_payload(&SnpReqCerts { gpa: TABLE.0, npages, ret });
}

fn word(vm: &Vm, gpa: Gpa) -> u64 {
    let mut bytes = [0; 8];
    vm.read_shared(gpa, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

fn response_is_written(vm: &Vm) -> bool {
    let mut byte = [0];
    vm.read_shared(RESPONSE, &mut byte).unwrap();
    byte != [0xee]
}

#[test]
fn no_room_for_certificates_exits_all_the_same() {
    let (vm, mut vcpu, seen) = asks(0, Firmware::Completes { status: 0 });
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].info_2, 0);
    assert!(response_is_written(&vm));
}

#[test]
fn too_small_a_buffer_shows_in_exitinfo2_at_once_and_in_rbx_at_the_entry() {
    let (vm, mut vcpu, seen) = asks(1, Firmware::Completes { status: 0 });
    answer(&mut vcpu, 9, 28);
    assert_eq!(vcpu.enter_immediately(), Err(Errno::EINTR));
    assert_eq!(word(&vm, page::SW_EXIT_INFO_2.at(GHCB)), vmm_error::INVALID_LEN);
    assert_eq!(word(&vm, page::RBX.at(GHCB)), 1, "as the guest wrote it");
    run_to_halt(&mut vcpu);
    let got = seen.take()[0];
    assert_eq!((got.info_1, got.info_2, got.rbx), (0, vmm_error::INVALID_LEN, 9));
    assert!(!response_is_written(&vm));
    assert_eq!(vm.firmware_requests(), 0);
}

#[test]
fn the_other_refusals_leave_rbx_alone() {
    for (ret, info_2) in [(11, vmm_error::BUSY), (5, vmm_error::GENERIC)] {
        let (vm, mut vcpu, seen) = asks(1, Firmware::Completes { status: 0 });
        answer(&mut vcpu, 9, ret);
        run_to_halt(&mut vcpu);
        let got = seen.take()[0];
        assert_eq!((got.info_1, got.info_2, got.rbx), (0, info_2, 1));
        assert!(!response_is_written(&vm));
    }
}

#[test]
fn a_bad_answer_fails_once_and_reads_as_success_without_a_response() {
    for ret in [7, 22, 28u64.wrapping_neg(), 1 << 32, u64::MAX] {
        let (vm, mut vcpu, seen) = asks(1, Firmware::Completes { status: 0 });
        answer(&mut vcpu, 9, ret);
        assert_eq!(vcpu.enter(), Err(Errno::EINVAL), "ret {ret:#x}");
        assert_eq!(reason(&vcpu), ExitReason::SNP_REQ_CERTS, "stale");
        run_to_halt(&mut vcpu);
        let got = seen.take()[0];
        assert_eq!((got.info_1, got.info_2, got.rbx), (0, 0, 1));
        assert!(!response_is_written(&vm));
    }
}

#[test]
fn the_status_of_the_firmware_is_the_low_half_of_exitinfo2() {
    let (vm, mut vcpu, seen) = asks(1, Firmware::Completes { status: 0x16 });
    run_to_halt(&mut vcpu);
    let got = seen.take()[0];
    assert_eq!((got.info_1, got.info_2), (0, 0x16));
    assert!(response_is_written(&vm), "the response page is copied whatever the status is");
}

#[test]
fn a_dead_firmware_fails_kvm_run_although_the_answer_was_right() {
    let (vm, mut vcpu, seen) = asks(1, Firmware::Fails(Errno::ETIMEDOUT));
    assert_eq!(vcpu.enter_immediately(), Err(Errno::ETIMEDOUT));
    run_to_halt(&mut vcpu);
    assert_eq!(seen.take()[0].info_2, 0);
    assert!(!response_is_written(&vm));
}

#[test]
fn certificates_are_enabled_on_snp_after_init2_and_before_the_first_vcpu() {
    for (vm_type, dialect) in [(VmType::SevEs, Dialect::Linux7_2), (VmType::Snp, Dialect::Linux6_12)] {
        let vm = new_vm(kernel(dialect), vm_type);
        vm.sev_init2(0).unwrap();
        assert_eq!(vm.snp_enable_req_certs(), Err(Errno::EINVAL));
    }
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::Snp);
    assert_eq!(vm.snp_enable_req_certs(), Err(Errno::EINVAL), "before INIT2");
    vm.sev_init2(0).unwrap();
    let _vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(vm.snp_enable_req_certs(), Err(Errno::EINVAL), "after a vCPU");
}

#[test]
fn a_request_page_without_memory_fails_with_eio() {
    let vm = new_vm(kernel(Dialect::Linux7_2), VmType::Snp);
    vm.sev_init2(2).unwrap();
    vm.launch().unwrap();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        ghcb.request(&cpu, exit_code::GUEST_REQUEST, [MEMORY_BYTES, RESPONSE.0], &[]).await?;
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Err(Errno::EIO));
    run_to_halt(&mut vcpu);
}
