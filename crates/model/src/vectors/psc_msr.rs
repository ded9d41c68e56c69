//! Page-state change by MSR.

use super::stage::{POISON, Setup, Stage};
use super::{Row, replay};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::run::ExitReason;

#[test]
fn linux_7_2_page_state_changes_by_msr_are_reproduced() {
    replay("psc-msr-7.2", 494, |row| check(row, Dialect::Linux7_2));
}

#[test]
fn linux_6_12_page_state_changes_by_msr_are_reproduced() {
    replay("psc-msr-6.12", 494, |row| check(row, Dialect::Linux6_12));
}

fn check(row: &Row, dialect: Dialect) {
    let mut stage = Stage::new(&Setup { dialect, snp: row.is("snp"), ghcb_version: 2, ..Setup::default() });
    stage.set_map_gpa_range_exit(row.is("cap"));
    assert_eq!(stage.vmgexit(row.hex("req")), row.int("r0"), "first result");
    if row.has("exit") {
        check_exit(&stage, row);
    }
    if row.has("ret") {
        assert_eq!(stage.vcpu.ghcb.msr, row.hex("msr_at_exit"), "MSR at the exit");
        stage.set_hypercall_ret(row.hex("ret"));
        assert_eq!(stage.run(), row.int("r1"), "second result");
        if row.has("msr1") {
            assert_eq!(stage.vcpu.ghcb.msr, row.hex("msr1"), "MSR after the failure");
            assert_eq!(stage.run(), row.int("r2"), "third result");
        }
    }
    assert_eq!(stage.vcpu.ghcb.msr, row.hex("msr"), "MSR at the end");
}

fn check_exit(stage: &Stage, row: &Row) {
    let exit = row.get("exit");
    match exit.int("reason") {
        3 => {
            assert_eq!(exit.int("nr"), 12);
            stage.assert_map_gpa_range(exit.hex("pre"), &exit.hexes("a"));
        }
        24 => {
            assert_eq!(stage.vcpu.page.reason(), ExitReason::SYSTEM_EVENT);
            let head = exit.get("ndata").as_u64() << 32 | exit.get("type").as_u64();
            assert_eq!(stage.exit_word(0), head, "type and ndata");
            assert_eq!(stage.exit_word(1), exit.hex("data0"), "data[0]");
            assert_eq!(stage.exit_word(2), exit.hex("data1"), "data[1]");
            assert_eq!(stage.exit_word(2), POISON);
        }
        other => panic!("exit {other}"),
    }
}
