//! One `VMGEXIT` by page for each exit code: the checks, the dispatch, and the registers.

use super::guest_request::firmware;
use super::stage::{LAST_PAGE, Setup, Stage, all_memory_but};
use super::{Row, dispatch_handlers, replay};
use exeunt_abi::ghcb::guest_message::MSG_TYPE;
use exeunt_abi::ghcb::page::{self, Field};
use exeunt_abi::ghcb::psc;
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
    replay("vmgexit-dispatch-7.2", 1950, |row| check(row, Dialect::Linux7_2));
}

#[test]
fn linux_6_12_requests_by_page_are_reproduced() {
    replay("vmgexit-dispatch-6.12", 1950, |row| check(row, Dialect::Linux6_12));
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
        is_second: row.has("apcc") && row.hex("in1") >> 32 == 0,
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
    // What the guest may enable beside x87 state.
    stage.set_cpuid(0xd, Some(0), [0x7, 0, 0, 0]);
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

fn check(row: &Row, dialect: Dialect) {
    let ghcb = row.hex("ghcb");
    let mut stage = set_up(row, dialect);
    let mut expected = Expected::of(row);
    if row.has("apcc") {
        // The stage's vCPU and another one: it is the other that a request means, if it means one of the two.
        stage.vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    }
    if row.has("h") {
        dispatch_handlers::prepare(&mut stage, row);
    }
    stage.vcpu.events.nmi.masked = true;
    let result = stage.vmgexit(ghcb);
    if row.has("h") {
        dispatch_handlers::check(&mut stage, row, result, &mut expected);
    } else if row.has("apcc") {
        assert_eq!(result, 1, "result");
        expected.info = dispatch_handlers::ap_creation(&stage, row, dialect);
    } else if row.has("mmio") {
        check_mmio(&mut stage, row, result);
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
    let regs = &stage.vcpu.regs;
    assert_eq!([regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi], expected.regs, "registers");
    assert_eq!(i64::from(regs.cpl), row.int("kcpl"), "CPL");
    // XCR0 is offered to the vCPU, which takes what its CPUID allows; of XSS it allows nothing.
    let xcr0 = if row.has("xcr") { row.hex("xcr") } else { 1 };
    let xcr0 = if [1, 3, 7].contains(&xcr0) { xcr0 } else { 1 };
    assert_eq!((stage.vcpu.xcr0, stage.vcpu.xss), (xcr0, 0), "extended state");
    assert_eq!(stage.vm.lock().ap_jump_table, row.hex("jt"), "jump table");
    let commands = if row.has("fwi") { row.get("fwi").as_u64() } else { 0 };
    assert_eq!(stage.vm.firmware_requests(), commands, "commands to the firmware");
    // The request that comes with it is served when the guest is entered.
    assert_eq!(stage.vcpu.events.nmi.masked, !row.has("req_event"), "NMIs");
    if !row.is("map_fail") {
        check_page(&stage, row, ghcb, &expected);
    }
}

/// What a row expects of the registers and the page. Where the vectors replaced a handler, the handler's own work is
/// put into it.
pub(super) struct Expected {
    /// KVM's RAX, RBX, RCX, RDX, RSI.
    pub(super) regs: [u64; 5],
    /// `SW_EXITINFO1` and `SW_EXITINFO2`.
    pub(super) info: [u64; 2],
    /// RAX, RBX, RCX, RDX in the page.
    pub(super) page: [u64; 4],
}

impl Expected {
    fn of(row: &Row) -> Self {
        let end = row.get("fin");
        let in_page = |name| if row.is("map_fail") { 0 } else { end.hex(name) };
        Self {
            regs: row.hexes("regs").try_into().unwrap(),
            info: ["i1", "i2"].map(in_page),
            page: ["rax", "rbx", "rcx", "rdx"].map(in_page),
        }
    }

    /// The handler left these in RAX and RDX.
    pub(super) fn set_rax_rdx(&mut self, rax: u64, rdx: u64) {
        (self.regs[0], self.page[0]) = (rax, rax);
        (self.regs[3], self.page[3]) = (rdx, rdx);
    }
}

/// The vectors replace what emulates the access; the model exits for each piece of it.
fn check_mmio(stage: &mut Stage, row: &Row, result: i64) {
    let mmio = row.list("mmio");
    let (gpa, bytes) = (mmio[1].as_hex(), mmio[2].as_u64());
    if mmio[5].as_int() != 0 && row.hex("scr") >= LAST_PAGE {
        // The vectors' memory has a last page, which no slot can hold.
        assert_eq!(result, -i64::from(Errno::EFAULT.0));
        assert_eq!(stage.run(), 1);
        return;
    }
    // A copy of the scratch area, and whether it is written back.
    let copy = stage.vcpu.ghcb.scratch_copy();
    let expected = (mmio[5].as_int() != 0).then(|| (mmio[3].as_u64(), mmio[4].as_int() != 0));
    assert_eq!(copy, expected, "scratch area");
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

fn check_page(stage: &Stage, row: &Row, ghcb: u64, expected: &Expected) {
    assert_eq!(stage.exit_info(ghcb), expected.info, "SW_EXITINFO");
    let fields = [page::RAX, page::RBX, page::RCX, page::RDX];
    assert_eq!(fields.map(|field| stage.ghcb_field(ghcb, field)), expected.page, "registers in the page");
    let end = row.get("fin");
    let mut bitmap = [0; 16];
    stage.vm.read_shared(Gpa(ghcb + page::VALID_BITMAP), &mut bitmap).unwrap();
    let expected = u128::from_str_radix(end.get("bm").as_str(), 16).unwrap();
    assert_eq!(u128::from_le_bytes(bitmap), expected, "valid bitmap");
}
