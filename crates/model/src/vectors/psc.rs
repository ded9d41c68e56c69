//! Page-state change by GHCB page.

use super::stage::{Setup, Stage};
use super::{Row, replay};
use crate::Compiler;
use exeunt_abi::Dialect;
use exeunt_abi::PAGE_SIZE;
use exeunt_abi::ghcb::{exit_code, page};

#[test]
fn linux_7_2_page_state_changes_are_reproduced() {
    replay("psc-7.2", 2250, |row| check(row, Dialect::Linux7_2, Compiler::Gcc));
}

#[test]
fn linux_6_12_page_state_changes_are_reproduced() {
    replay("psc-6.12", 2250, |row| check(row, Dialect::Linux6_12, Compiler::Gcc));
}

#[test]
fn page_state_changes_of_kernels_that_clang_built_are_reproduced() {
    replay("psc-7.2-nowrap", 72, |row| check(row, Dialect::Linux7_2, Compiler::Clang));
    replay("psc-6.12-nowrap", 72, |row| check(row, Dialect::Linux6_12, Compiler::Clang));
}

/// The descriptor as the test expects it.
struct Descriptor {
    at: u64,
    entries: Vec<u64>,
}

impl Descriptor {
    fn entry_at(&self, index: usize) -> u64 {
        self.at + 8 + 8 * index as u64
    }

    fn write_entry(&mut self, stage: &Stage, index: usize, entry: u64) {
        self.entries[index] = entry;
        stage.write(self.entry_at(index), &entry.to_le_bytes());
    }

    fn write_header(&self, stage: &Stage, header: [u64; 2]) {
        let [cur, end] = header.map(|word| u16::try_from(word).unwrap().to_le_bytes());
        stage.write(self.at, &[cur, end].concat());
    }
}

fn check(row: &Row, dialect: Dialect, compiler: Compiler) {
    let ghcb = row.hex("ghcb");
    let memory = vec![(ghcb, PAGE_SIZE)];
    let mut stage = Stage::new(&Setup { dialect, snp: true, ghcb_version: 2, memory, ..Setup::default() });
    stage.vm.set_compiler(compiler);
    stage.register(ghcb);
    stage.set_map_gpa_range_exit(row.is("cap"));
    let max = usize::try_from(row.int("max")).unwrap();
    let mut descriptor = Descriptor { at: row.hex("scratch"), entries: vec![0; max] };
    // Only a header that fits is there to be written.
    let usable = row.is("sv") && descriptor.at >= ghcb + 0x800 && descriptor.at <= ghcb + 0xfe8;
    if usable {
        descriptor.write_header(&stage, [row.get("cur").as_u64(), row.get("end").as_u64()]);
        let reserved = u32::try_from(row.int("rsvd")).unwrap();
        stage.write(descriptor.at + 4, &reserved.to_le_bytes());
        for (index, entry) in row.hexes("e").into_iter().enumerate() {
            descriptor.write_entry(&stage, index, entry);
        }
    }
    for (number, step) in row.list("steps").iter().enumerate() {
        do_step(&mut stage, &mut descriptor, row, step, ghcb).unwrap_or_else(|what| {
            panic!("step {number}: {what}");
        });
        check_progress(&stage, step, dialect);
    }
    check_end(&stage, &descriptor, row, usable);
}

fn do_step(
    stage: &mut Stage,
    descriptor: &mut Descriptor,
    row: &Row,
    step: &Row,
    ghcb: u64,
) -> Result<(), String> {
    for change in step.list("mod") {
        let [index, entry] = [0, 1].map(|part| Row(change.0[part].clone()));
        descriptor.write_entry(stage, usize::try_from(index.as_int()).unwrap(), entry.as_hex());
    }
    if step.has("hdr") {
        let header = step.list("hdr");
        descriptor.write_header(stage, [header[0].as_u64(), header[1].as_u64()]);
    }
    if step.has("cap") {
        stage.set_map_gpa_range_exit(step.is("cap"));
    }
    let result = match step.get("do").as_str() {
        "vmgexit" => {
            stage.write_ghcb(
                ghcb,
                &[
                    (page::SW_EXIT_CODE, exit_code::PSC, true),
                    (page::SW_EXIT_INFO_1, 0, true),
                    (page::SW_EXIT_INFO_2, 0, true),
                    (page::SW_SCRATCH, descriptor.at, row.is("sv")),
                ],
            );
            stage.vmgexit(ghcb)
        }
        "run" => {
            stage.set_hypercall_ret(step.hex("ret"));
            stage.run()
        }
        "rerun" => stage.run(),
        other => return Err(format!("unknown step {other}")),
    };
    if result != step.int("r") {
        return Err(format!("result {result} instead of {}", step.int("r")));
    }
    if result == 0 {
        stage.assert_map_gpa_range(step.hex("pre"), &step.hexes("a"));
    } else if result > 0 {
        assert_eq!(stage.exit_info(ghcb), [step.hex("i1"), step.hex("i2")], "SW_EXITINFO");
    }
    Ok(())
}

/// The request under way, as far as the kernel of this dialect holds it.
fn check_progress(stage: &Stage, step: &Row, dialect: Dialect) {
    let psc = stage.vcpu.psc;
    let got = match dialect {
        Dialect::Linux7_2 => vec![psc.cur, psc.end, psc.batch, u64::from(psc.is_2m)],
        _ => vec![psc.cur, psc.batch, u64::from(psc.is_2m)],
    };
    let expected: Vec<u64> = step.list("psc").iter().map(Row::as_u64).collect();
    assert_eq!(got, expected, "request under way");
}

fn check_end(stage: &Stage, descriptor: &Descriptor, row: &Row, usable: bool) {
    let end = row.get("fin");
    assert_eq!(stage.vcpu.warnings(), end.get("warn").as_u64(), "warnings");
    if !usable {
        return;
    }
    let header = stage.read_u64(descriptor.at);
    let header = [header & 0xffff, header >> 16 & 0xffff, header >> 32];
    assert_eq!(header, ["cur", "end", "rsvd"].map(|field| end.get(field).as_u64()), "header");
    let mut expected = descriptor.entries.clone();
    for change in end.list("chg") {
        let [index, entry] = [0, 1].map(|part| Row(change.0[part].clone()));
        expected[usize::try_from(index.as_int()).unwrap()] = entry.as_hex();
    }
    for (index, entry) in expected.iter().enumerate() {
        assert_eq!(stage.read_u64(descriptor.entry_at(index)), *entry, "entry {index}");
    }
}
