//! The rest of the MSR protocol.

use super::stage::{Setup, Stage};
use super::{Row, replay};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::run::ExitReason;

#[test]
fn linux_7_2_answers_by_msr_are_reproduced() {
    replay("msr-protocol-7.2", 600, |row| check(row, Dialect::Linux7_2));
}

#[test]
fn linux_6_12_answers_by_msr_are_reproduced() {
    replay("msr-protocol-6.12", 600, |row| check(row, Dialect::Linux6_12));
}

fn check(row: &Row, dialect: Dialect) {
    let ghcb_version = row.get("ver").as_u64();
    // There is no memory, so an address of a GHCB cannot be mapped.
    let mut stage = Stage::new(&Setup { dialect, snp: row.is("snp"), ghcb_version, ..Setup::default() });
    stage.set_map_gpa_range_exit(row.is("cap"));
    assert_eq!(row.int("cbit"), 51, "the model's C-bit");
    if row.has("fn") {
        let leaf: Vec<u32> = row.hexes("cpuid").iter().map(|word| u32::try_from(*word).unwrap()).collect();
        assert_eq!((row.int("handler"), row.hex("sub")), (1, 0));
        stage.set_cpuid(u32::try_from(row.hex("fn")).unwrap(), None, leaf.try_into().unwrap());
    }
    assert_eq!(stage.vmgexit(row.hex("req")), row.int("r"), "result");
    assert_eq!(stage.vcpu.ghcb.msr, row.hex("msr"), "MSR");
    assert_eq!(stage.vcpu.ghcb.registered, row.hex("reg_gpa"), "registered GHCB");
    if row.has("exit") {
        let exit = row.get("exit");
        assert_eq!((exit.int("reason"), stage.vcpu.page.reason()), (24, ExitReason::SYSTEM_EVENT));
        let head = exit.get("ndata").as_u64() << 32 | exit.get("type").as_u64();
        assert_eq!([0, 1].map(|word| stage.exit_word(word)), [head, exit.hex("data0")], "event");
    } else if row.has("held") {
        // With the local APIC in userspace the helper of the vectors is an exit.
        assert_eq!(stage.vcpu.page.reason(), ExitReason::AP_RESET_HOLD);
    }
}
