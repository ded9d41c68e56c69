//! Guest requests and certificates.

use super::stage::{LAST_PAGE, Setup, Stage, all_memory_but};
use super::{Row, replay};
use crate::Firmware;
use crate::faults::{Fault, FaultPlan, Point};
use crate::state::PAGE;
use exeunt_abi::ghcb::guest_message::MSG_TYPE;
use exeunt_abi::ghcb::{exit_code, page};
use exeunt_abi::kvm::run::{ExitReason, SnpReqCerts};
use exeunt_abi::{Dialect, Errno, PAGE_SIZE};
use exeunt_proto::host::Vcpu as _;

/// A page that no row names.
const GHCB: u64 = 0x50_0000;

#[test]
fn linux_7_2_guest_requests_are_reproduced() {
    replay("certs-7.2", 598, |row| check(row, Dialect::Linux7_2));
}

#[test]
fn linux_6_12_guest_requests_are_reproduced() {
    replay("guest-req-6.12", 190, |row| check(row, Dialect::Linux6_12));
}

/// An address of the row. The vectors' memory has a last page and a VM has none, so the page before stands for it.
fn address(row: &Row, field: &str) -> u64 {
    match row.hex(field) {
        address @ LAST_PAGE.. => address - PAGE_SIZE,
        address => address,
    }
}

/// Pages that must be missing for the copies of this row to fail.
fn holes(row: &Row) -> Vec<u64> {
    let mut holes = Vec::new();
    if row.int("rd_fail") == 1 {
        holes.push(address(row, "req"));
    }
    if row.is("wr_fail") {
        holes.push(address(row, "resp"));
    }
    if row.is("clr_fail") {
        holes.push(address(row, "rax"));
    }
    holes
}

/// The second read fails and the first does not, which a missing page cannot bring about.
fn reads(row: &Row) -> FaultPlan {
    match row.int("rd_fail") {
        2 => FaultPlan::new().with(Point::GuestRequestRead, 1, Fault::Fails(Errno::EFAULT)),
        _ => FaultPlan::new(),
    }
}

pub(super) fn firmware(rc: i64, status: i64) -> Firmware {
    match (i32::try_from(rc).unwrap(), i32::try_from(status).unwrap()) {
        (rc, 0) if rc != 0 => Firmware::Fails(Errno(-rc)),
        (_, status) => Firmware::Completes { status: u32::from_ne_bytes(status.to_ne_bytes()) },
    }
}

fn check(row: &Row, dialect: Dialect) {
    let holes = holes(row);
    let memory = all_memory_but(&holes);
    let (snp, certs) = (row.is("snp"), row.is("certs_en"));
    let mut stage = Stage::new(&Setup { dialect, snp, certs, ghcb_version: 2, memory, ..Setup::default() });
    if snp {
        stage.register(GHCB);
    }
    stage.vm.set_fault_plan(reads(row));
    stage.vm.set_firmware(firmware(row.int("fw_rc"), row.int("fw_err")));
    // Bytes that a write would change; the message type goes on top.
    for gpa in ["rax", "resp"].map(|field| address(row, field) & !(PAGE_SIZE - 1)) {
        if !holes.contains(&gpa) {
            stage.write(gpa, &[0xee; PAGE]);
        }
    }
    if !holes.contains(&address(row, "req")) && address(row, "req") % PAGE_SIZE == 0 {
        stage.write(address(row, "req") + MSG_TYPE, &[u8::try_from(row.int("mt")).unwrap()]);
    }
    let code = if row.is("ext") { exit_code::EXT_GUEST_REQUEST } else { exit_code::GUEST_REQUEST };
    stage.write_ghcb(
        GHCB,
        &[
            (page::SW_EXIT_CODE, code, true),
            (page::SW_EXIT_INFO_1, address(row, "req"), true),
            (page::SW_EXIT_INFO_2, address(row, "resp"), true),
            (page::RAX, address(row, "rax"), row.is("raxv")),
            (page::RBX, row.hex("rbx"), row.is("rbxv")),
        ],
    );
    assert_eq!(stage.vmgexit(GHCB), row.int("r0"), "first result");
    if row.has("exit") {
        check_exit(&mut stage, row);
    }
    if row.has("rerun") {
        assert_eq!(stage.run(), row.int("rerun"), "result of the further entry");
    }
    check_end(&stage, row, &holes);
}

fn check_exit(stage: &mut Stage, row: &Row) {
    let exit = row.get("exit");
    assert_eq!((exit.int("reason"), stage.vcpu.page.reason()), (43, ExitReason::SNP_REQ_CERTS));
    let mut request: SnpReqCerts = stage.vcpu.page.payload();
    let expected =
        SnpReqCerts { gpa: address(&exit, "gpa"), npages: exit.hex("npages"), ret: exit.hex("pre") };
    assert_eq!(request, expected, "request");
    request.ret = row.hex("ret");
    if row.has("npages_wr") {
        request.npages = row.hex("npages_wr");
    }
    stage.vcpu.page_mut().set_payload(&request);
    assert_eq!(stage.run(), row.int("r1"), "second result");
}

fn check_end(stage: &Stage, row: &Row, holes: &[u64]) {
    let end = row.get("fin");
    assert_eq!(stage.exit_info(GHCB), [end.hex("i1"), end.hex("i2")], "SW_EXITINFO");
    assert_eq!(stage.ghcb_field(GHCB, page::RAX), address(&end, "rax"), "RAX");
    assert_eq!(stage.ghcb_field(GHCB, page::RBX), end.hex("rbx"), "RBX");
    assert_eq!(stage.vcpu.regs.rbx, end.hex("vrbx"), "KVM's RBX");
    assert_eq!(stage.vm.firmware_requests(), end.get("fw").as_u64(), "commands to the firmware");
    let response = address(row, "resp") & !(PAGE_SIZE - 1);
    let table = address(row, "rax") & !(PAGE_SIZE - 1);
    if !holes.contains(&response) && response != table {
        let written = stage.read_u64(response + PAGE_SIZE - 8) == 0;
        assert_eq!(written, end.is("respw"), "response page");
    }
    if !holes.contains(&table) && response != table {
        let words = [0, 8, 16, 24].map(|offset| stage.read_u64(table + offset));
        let kept = u64::from_le_bytes([0xee; 8]);
        let expected = if end.is("clr") { [0, 0, 0, kept] } else { [kept; 4] };
        assert_eq!(words, expected, "empty certificate table");
    }
    if end.is("clr") {
        let cleared = end.list("clra");
        assert_eq!((cleared[0].as_hex(), cleared[1].as_int()), (row.hex("rax"), 24));
    }
}
