//! One `VMGEXIT` by page for each exit code: the checks, the dispatch, and the registers.

use super::guest_request::firmware;
use super::stage::{Setup, Stage, all_memory_but};
use super::{Row, Verdict, replay};
use exeunt_abi::ghcb::guest_message::MSG_TYPE;
use exeunt_abi::ghcb::page::{self, Field};
use exeunt_abi::ghcb::{exit_code, psc};
use exeunt_abi::kvm::run::{ExitReason, Mmio};
use exeunt_abi::{Dialect, Errno, Gpa};

/// The jump table before the request.
const JUMP_TABLE: u64 = 0xabc_d000;
/// The entry in a scratch area that can hold one.
const ENTRY: psc::Entry = psc::Entry::new(0x123, psc::operation::PRIVATE, false);

/// The fields that a row holds, in the order of its mask of valid bits.
const FIELDS: [(Field, &str); 12] = [
    (page::SW_EXIT_CODE, "code"),
    (page::SW_EXIT_INFO_1, "in1"),
    (page::SW_EXIT_INFO_2, "in2"),
    (page::SW_SCRATCH, "scr"),
    (page::RAX, "rax"),
    (page::RBX, "rbx"),
    (page::RCX, "rcx"),
    (page::RDX, "rdx"),
    (page::RSI, "rsi"),
    (page::CPL, "cpl"),
    (page::XCR0, "xcr0"),
    (page::XSS, "xss"),
];

#[test]
fn linux_7_2_requests_by_page_are_reproduced() {
    replay("vmgexit-dispatch-7.2", 1950, 1426, |row| check(row, Dialect::Linux7_2));
}

#[test]
fn linux_6_12_requests_by_page_are_reproduced() {
    replay("vmgexit-dispatch-6.12", 1950, 1426, |row| check(row, Dialect::Linux6_12));
}

fn set_up(row: &Row, dialect: Dialect) -> Stage {
    let ghcb = row.hex("ghcb");
    let mut holes = Vec::new();
    if row.is("map_fail") {
        holes.push(ghcb);
    }
    if row.is("rd_fail") {
        // Only guest requests read memory, and the first read fails.
        assert_eq!(row.int("rd_fail"), 1);
        holes.push(row.hex("in1"));
        holes.retain(|hole| row.is("map_fail") || hole & !0xfff != ghcb);
    }
    let mut stage = Stage::new(&Setup {
        dialect,
        snp: row.is("snp"),
        ghcb_version: row.get("ver").as_u64(),
        certs: row.is("certs"),
        memory: all_memory_but(&holes),
    });
    if row.is("snp") && row.is("reg") {
        stage.register(ghcb);
    }
    stage.set_map_gpa_range_exit(row.is("cap"));
    let fw = row.ints("fw");
    stage.vm.set_firmware(firmware(fw[0], fw[1]));
    stage.vm.lock().ap_jump_table = JUMP_TABLE;
    if !row.is("map_fail") {
        write_page(&stage, row, ghcb);
    }
    stage
}

fn write_page(stage: &Stage, row: &Row, ghcb: u64) {
    let request = row.hex("in1");
    let message_type = [u8::try_from(row.int("mt")).unwrap()];
    // A request at an address that no memory is at is refused before it is read.
    let _ = stage.vm.write_shared(Gpa(request.wrapping_add(MSG_TYPE)), &message_type);
    let valid = row.int("vm");
    let fields: Vec<_> = (0..)
        .zip(FIELDS)
        .map(|(bit, (field, name))| {
            let value = if name == "cpl" { row.get(name).as_u64() } else { row.hex(name) };
            (field, value, valid >> bit & 1 == 1)
        })
        .collect();
    stage.write_ghcb(ghcb, &fields);
    let usage = u32::try_from(row.int("usage")).unwrap();
    stage.write(ghcb + page::GHCB_USAGE, &usage.to_le_bytes());
    let scratch = row.hex("scr");
    if scratch >= ghcb + page::SHARED_BUFFER && scratch <= ghcb + page::SHARED_BUFFER_END - 16 {
        stage.write(scratch + psc::HEADER_BYTES, &ENTRY.0.to_le_bytes());
    }
}

fn check(row: &Row, dialect: Dialect) -> Verdict {
    let ghcb = row.hex("ghcb");
    let mut stage = set_up(row, dialect);
    stage.vcpu.events.nmi.masked = true;
    let result = stage.vmgexit(ghcb);
    if result == -i64::from(Errno::EOPNOTSUPP.0) {
        return check_not_modelled(&mut stage, row);
    }
    if row.has("h") {
        assert_eq!(row.hex("h"), exit_code::VMMCALL);
        return Verdict::Skipped("a hypercall, whose handler the vectors replace");
    }
    if row.has("mmio") {
        check_mmio(&mut stage, row);
    } else if row.has("hold") {
        assert_eq!((result, row.int("r")), (0, 1));
        assert_eq!(stage.vcpu.page.reason(), ExitReason::AP_RESET_HOLD);
        assert_eq!(stage.run(), 1);
    } else {
        assert_eq!(result, row.int("r"), "result");
    }
    if row.has("exit") {
        check_exit(&stage, row);
    }
    check_registers(&stage, row);
    assert_eq!(stage.vm.lock().ap_jump_table, row.hex("jt"), "jump table");
    let commands = if row.has("fwi") { row.get("fwi").as_u64() } else { 0 };
    assert_eq!(stage.vm.firmware_requests(), commands, "commands to the firmware");
    // The request that comes with it is served when the guest is entered.
    assert_eq!(stage.vcpu.events.nmi.masked, !row.has("req_event"), "NMIs");
    if !row.is("map_fail") {
        check_page(&stage, row, ghcb);
    }
    Verdict::Reproduced
}

/// The model stops where the request is handed to what it does not have, and goes on without it. What the stub of the
/// vectors did is missing then; the rest agrees.
fn check_not_modelled(stage: &mut Stage, row: &Row) -> Verdict {
    let ghcb = row.hex("ghcb");
    assert_eq!(stage.exit_info(ghcb), [0, 0], "SW_EXITINFO at the dispatch");
    assert_eq!((stage.run(), row.int("r")), (1, 1), "result");
    // The stub of CPUID fills the registers, the one of AP creation may refuse.
    let stub_is_quiet = row.hex("code") != exit_code::CPUID && row.get("fin").hex("i1") == 0;
    if stub_is_quiet {
        check_registers(stage, row);
        check_page(stage, row, ghcb);
    }
    if row.has("apcc") {
        Verdict::Skipped("AP creation")
    } else if row.has("h") {
        assert_eq!(row.hex("h"), row.hex("code"), "handler");
        Verdict::Skipped("an SVM handler, which the vectors replace")
    } else {
        let mmio = row.list("mmio");
        assert!(mmio[5].as_int() != 0, "the scratch area lies outside");
        Verdict::Skipped("a scratch area outside of the GHCB")
    }
}

/// The vectors replace what emulates the access; the model exits for each piece of it.
fn check_mmio(stage: &mut Stage, row: &Row) {
    let mmio = row.list("mmio");
    let (gpa, bytes) = (mmio[1].as_hex(), mmio[2].as_u64());
    for done in (0..bytes).step_by(8) {
        assert_eq!(stage.vcpu.page.reason(), ExitReason::MMIO);
        let wire: Mmio = stage.vcpu.page.payload();
        let len = u32::try_from((bytes - done).min(8)).unwrap();
        let got = (i64::from(wire.is_write), wire.phys_addr, wire.len);
        assert_eq!(got, (mmio[0].as_int(), gpa.wrapping_add(done), len));
        let last = done + 8 >= bytes;
        assert_eq!(stage.run(), i64::from(last));
    }
}

fn check_exit(stage: &Stage, row: &Row) {
    let exit = row.list("exit");
    match exit[0].as_int() {
        3 => {
            let args: Vec<u64> = exit[1..].iter().map(Row::as_hex).collect();
            assert_eq!(stage.vcpu.page.reason(), ExitReason::HYPERCALL);
            assert_eq!([1, 2, 3].map(|word| stage.exit_word(word)), *args, "arguments");
        }
        24 => {
            assert_eq!(stage.vcpu.page.reason(), ExitReason::SYSTEM_EVENT);
            let head = exit[2].as_u64() << 32 | exit[1].as_u64();
            assert_eq!([0, 1].map(|word| stage.exit_word(word)), [head, exit[3].as_hex()], "event");
        }
        43 => assert_eq!(stage.vcpu.page.reason(), ExitReason::SNP_REQ_CERTS),
        other => panic!("exit {other}"),
    }
}

fn check_registers(stage: &Stage, row: &Row) {
    let regs = &stage.vcpu.regs;
    assert_eq!([regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi], *row.hexes("regs"), "registers");
    assert_eq!(i64::from(regs.cpl), row.int("kcpl"), "CPL");
}

fn check_page(stage: &Stage, row: &Row, ghcb: u64) {
    let end = row.get("fin");
    assert_eq!(stage.exit_info(ghcb), [end.hex("i1"), end.hex("i2")], "SW_EXITINFO");
    for (field, name) in [(page::RAX, "rax"), (page::RBX, "rbx"), (page::RCX, "rcx"), (page::RDX, "rdx")] {
        assert_eq!(stage.ghcb_field(ghcb, field), end.hex(name), "{name} in the page");
    }
    let mut bitmap = [0; 16];
    stage.vm.read_shared(Gpa(ghcb + page::VALID_BITMAP), &mut bitmap).unwrap();
    let expected = u128::from_str_radix(end.get("bm").as_str(), 16).unwrap();
    assert_eq!(u128::from_le_bytes(bitmap), expected, "valid bitmap");
}
