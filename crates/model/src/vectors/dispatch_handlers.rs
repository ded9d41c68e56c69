//! Exit codes whose handler the vectors replaced with a stub that does nothing: the checks before it and the way back
//! are the kernel's, what the handler itself does is held against its rule here.

use super::Row;
use super::dispatch::Expected;
use super::stage::Stage;
use crate::guest::GuestFault;
use exeunt_abi::ghcb::exit_code::{self, ioio};
use exeunt_abi::ghcb::page;
use exeunt_abi::kvm::run::{ExitReason, Io};
use exeunt_abi::{Dialect, Errno};

/// `SW_EXITINFO2` that asks the guest to raise `#GP`.
const RAISE_GP: u64 = 0xffff_ffff_8000_030d;

/// Puts into the model what the stub of CPUID answers.
pub(super) fn prepare(stage: &mut Stage, row: &Row) {
    if row.hex("h") == exit_code::CPUID {
        let [function, index] =
            ["rax", "rcx"].map(|name| u32::try_from(row.hex(name) & 0xffff_ffff).unwrap());
        stage.set_cpuid(function, Some(index), [0xaaaa_0001, 0xbbbb_0002, 0xcccc_0003, 0xdddd_0004]);
    }
}

pub(super) fn check(stage: &mut Stage, row: &Row, result: i64, expected: &mut Expected) {
    assert_eq!((row.hex("h"), row.int("r")), (row.hex("code"), 1), "the stub");
    let [rax, _, rcx, rdx, _] = expected.regs;
    let index = rcx & 0xffff_ffff;
    let mut fault = None;
    match row.hex("h") {
        exit_code::RDTSC => {
            assert_eq!((result, stage.vcpu.page.reason()), (0, ExitReason::INTERNAL_ERROR));
            assert_eq!([0, 1, 2].map(|word| stage.exit_word(word)), [2 << 32 | 4, 0x6e, 0]);
            assert_eq!(stage.run(), 1);
        }
        exit_code::IOIO => check_port(stage, row, result, expected),
        code => {
            assert_eq!(result, 1, "result");
            match code {
                exit_code::RDTSCP => fault = Some(GuestFault::InvalidOpcode),
                exit_code::RDPMC if index < 4 && row.int("kcpl") == 0 => expected.set_rax_rdx(0, 0),
                exit_code::RDPMC => fault = Some(GuestFault::GeneralProtection),
                exit_code::MSR => {
                    assert!(
                        !(0xc000_0000..0xc002_0000).contains(&index) && index > 0x2000,
                        "a known register"
                    );
                    expected.info = [1, RAISE_GP];
                }
                exit_code::VMMCALL => expected.set_rax_rdx(hypercall(row, rax), rdx),
                _ => {}
            }
        }
    }
    assert_eq!(stage.fault(), fault, "exception");
}

/// `SW_EXITINFO1` and `SW_EXITINFO2` of a request to start or stop another processor, which the vectors replaced by a
/// result of the row's choice.
pub(super) fn ap_creation(stage: &Stage, row: &Row, dialect: Dialect) -> [u64; 2] {
    let [info_1, gpa, features] = ["in1", "in2", "rax"].map(|name| row.hex(name));
    let exists = info_1 >> 32 < stage.vm.lock().vcpus;
    let differs = if dialect.compares_all_sev_features() { features ^ 1 } else { features & 0x18 };
    let is_valid = match info_1 & 0xffff_ffff {
        0 | 1 => differs == 0 && gpa % 0x1000 == 0 && gpa % 0x20_0000 != 0 && gpa >> 36 == 0,
        2 => true,
        _ => false,
    };
    if exists && is_valid { [0, 0] } else { [2, page::malformed::INVALID_INPUT] }
}

/// RAX after a hypercall of a row, none of which is one that KVM has.
fn hypercall(row: &Row, nr: u64) -> u64 {
    if row.int("kcpl") != 0 {
        return 1u64.wrapping_neg();
    }
    assert!(nr == 0 || nr > 12, "hypercall {nr}");
    1000u64.wrapping_neg()
}

/// Port I/O. The bits of the size are a number to KVM.
fn check_port(stage: &mut Stage, row: &Row, result: i64, expected: &mut Expected) {
    let (info, count) = (row.hex("in1"), row.hex("in2"));
    let is_out = info & ioio::TYPE_IN == 0;
    let size = (info & ioio::SIZE_MASK) >> ioio::SIZE_SHIFT;
    let bytes = u128::from(count) * u128::from(size);
    if info & ioio::STRING == 0 {
        let [rax, _, _, rdx, _] = expected.regs;
        assert_eq!(result, 0, "result");
        check_exit(stage, row, 1);
        let mask = u64::MAX >> (64 - 8 * size);
        if is_out {
            let data = u64::from_le_bytes(stage.vcpu.port_data[..8].try_into().unwrap());
            assert_eq!(data & mask, rax & mask, "data");
        } else {
            stage.vcpu.port_data[..8].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
            let kept = if size < 4 { rax & !mask } else { 0 };
            expected.set_rax_rdx(kept | 0x1122_3344_5566_7788 & mask, rdx);
        }
        assert_eq!(stage.run(), 1);
    } else if count > 0x7fff_ffff || bytes > 0x7fff_ffff {
        assert_eq!(result, -i64::from(Errno::EINVAL.0), "a count that does not fit");
        assert_eq!(stage.run(), 1);
    } else if bytes != 0 && !scratch_is_usable(row, u64::try_from(bytes).unwrap()) {
        assert_eq!(result, 1, "result");
        expected.info = [2, page::malformed::INVALID_SCRATCH_AREA];
    } else if bytes != 0 {
        let (mut left, mut result) = (count, result);
        while left > 0 {
            let chunk = left.min(4096 / size);
            assert_eq!(result, 0, "result");
            check_exit(stage, row, chunk);
            left -= chunk;
            result = stage.run();
        }
        assert_eq!(result, 1);
    } else {
        assert_eq!(result, 1, "result");
    }
}

fn scratch_is_usable(row: &Row, bytes: u64) -> bool {
    let (ghcb, scratch) = (row.hex("ghcb"), row.hex("scr"));
    let is_valid = row.int("vm") >> 3 & 1 == 1 && scratch != 0;
    let Some(end) = scratch.checked_add(bytes).filter(|_| is_valid) else { return false };
    if scratch & !0xfff == ghcb {
        return scratch >= ghcb + page::SHARED_BUFFER && end <= ghcb + page::SHARED_BUFFER_END;
    }
    row.int("ver") == 1 && bytes <= 0x10000
}

fn check_exit(stage: &Stage, row: &Row, count: u64) {
    assert_eq!(stage.vcpu.page.reason(), ExitReason::IO);
    let io: Io = stage.vcpu.page.payload();
    let info = row.hex("in1");
    let size = (info & ioio::SIZE_MASK) >> ioio::SIZE_SHIFT;
    let got = (
        u64::from(io.direction),
        u64::from(io.size),
        u64::from(io.port),
        u64::from(io.count),
        io.data_offset,
    );
    assert_eq!(got, (1 - (info & ioio::TYPE_IN), size, info >> 16 & 0xffff, count, 0x1000));
}
