//! What a VMM that was written for one kernel makes of the bytes of another: the table of `docs/dialects.md`, derived.
//!
//! `EXEUNT_BLESS=1 cargo test -p exeunt-check --test consumers` writes the table anew.

use exeunt_abi::kvm::run::{RunPage, SystemEvent as Wire, UNION_BYTES};
use exeunt_abi::{Arch, ConversionForm, Dialect, Kernel};
use exeunt_proto::exit::{
    self, Entered, EventType, Exit, Hypercall, MemoryFault, SnpReqCerts, SystemEvent, Words,
};
use exeunt_proto::termination::SevTermination;
use std::fmt::Write;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dialects.md");

/// A termination request: Linux's set, `PVALIDATE` failed.
const SEV_TERM: u64 = 0x2_1100;

/// A VMM that reads the page.
struct Consumer {
    name: &'static str,
    read: fn(Entered, &RunPage) -> String,
}

/// VMMs that match the whole type and know the types of their time, and ours.
const CONSUMERS: [Consumer; 6] = [
    Consumer { name: "strict match (QEMU of 2022)", read: |_, page| strict(page) },
    Consumer { name: "strict match and flags (crosvm of 2022)", read: |_, page| strict_with_flags(page) },
    Consumer { name: "unknown is a reboot (kvmtool)", read: |_, page| reboot(page) },
    Consumer { name: "exeunt as linux-5.17", read: |entered, page| ours(Dialect::Linux5_17, entered, page) },
    Consumer { name: "exeunt as linux-7.2", read: |entered, page| ours(Dialect::Linux7_2, entered, page) },
    Consumer {
        name: "exeunt as sev-term-v4.1",
        read: |entered, page| ours(Dialect::SevTermV4_1, entered, page),
    },
];

fn strict(page: &RunPage) -> String {
    match page.payload::<Wire>().event_type {
        1 => "shutdown".into(),
        2 => "reset".into(),
        3 => "crash".into(),
        number => format!("**unknown type {number:#x}: an error**"),
    }
}

fn strict_with_flags(page: &RunPage) -> String {
    let [flags, ..] = page.payload::<Wire>().data;
    match strict(page) {
        known if !known.starts_with("**") => format!("{known}, flags {flags:#x}"),
        unknown => unknown,
    }
}

fn reboot(page: &RunPage) -> String {
    match strict(page) {
        known if !known.starts_with("**") => known,
        _ => "**a reboot**".into(),
    }
}

fn ours(dialect: Dialect, entered: Entered, page: &RunPage) -> String {
    match exit::decode(entered, page, Kernel { dialect, arch: Arch::X86 }) {
        Ok(Exit::SystemEvent(SystemEvent { event: EventType::SevTerm, data })) => match data.first() {
            Some(msr) if msr == SEV_TERM => "SEV_TERM with its reason".into(),
            Some(msr) => format!("**SEV_TERM, {}**", SevTermination::from_msr(msr)),
            None => "**SEV_TERM without data**".into(),
        },
        Ok(Exit::SystemEvent(SystemEvent { event: EventType::Unknown(number), .. })) => {
            format!("**unknown type {number:#x}: reported, the VM stops**")
        }
        Ok(Exit::SystemEvent(event)) => event.event.to_string(),
        Ok(Exit::Hypercall(call)) => format!("MAP_GPA_RANGE {:#x}", call.args[0]),
        Ok(Exit::Vmgexit { .. }) => "VMGEXIT, undecoded".into(),
        Ok(Exit::MemoryFault(fault)) => format!("memory fault at {}", fault.gpa),
        Ok(Exit::SnpReqCerts(request)) => format!("certificates, room for {} pages", request.pages),
        Ok(Exit::Tdx(tdx)) => format!("**a call of a TD, number {:#x}: entered again**", tdx.call.nr()),
        Ok(Exit::Other(other)) => format!("**{}: reported, the VM stops**", other.reason),
        Ok(other) => format!("**{other:?}**"),
        Err(error) => format!("**{error}**"),
    }
}

/// A page full of other bytes, with this exit as this kernel writes it.
fn written(exit: &Exit, dialect: Dialect) -> (Entered, RunPage) {
    let kernel = Kernel { dialect, arch: Arch::X86 };
    let mut page = RunPage::zeroed();
    page.exit = [0; UNION_BYTES];
    (exit::encode(exit, kernel, &mut page), page)
}

fn header(out: &mut String, first: &str, columns: &[&str]) {
    writeln!(out, "| {first} | {} |", columns.join(" | ")).unwrap();
    writeln!(out, "|---|{}", "---|".repeat(columns.len())).unwrap();
}

/// One event of mail 000 and 001, from every kernel that has it, to every consumer.
fn event_table(out: &mut String, event: EventType, data: &[u64], producers: &[Dialect]) {
    let names: Vec<_> = CONSUMERS.iter().map(|consumer| consumer.name).collect();
    header(out, &format!("{event} written by"), &names);
    for producer in producers {
        let words = Words::from_slice(data);
        let exit = Exit::SystemEvent(SystemEvent { event, data: words });
        let (entered, page) = written(&exit, *producer);
        let cells: Vec<_> = CONSUMERS.iter().map(|consumer| (consumer.read)(entered, &page)).collect();
        writeln!(out, "| {producer} | {} |", cells.join(" | ")).unwrap();
    }
    out.push('\n');
}

/// One exit that moved, from each kernel that has it, to our half as each of them.
fn exit_table(out: &mut String, what: &str, exit: impl Fn(Dialect) -> Exit, dialects: &[Dialect]) {
    let names: Vec<_> = dialects.iter().map(|dialect| format!("exeunt as {dialect}")).collect();
    header(out, &format!("{what} written by"), &names.iter().map(String::as_str).collect::<Vec<_>>());
    for producer in dialects {
        let (entered, page) = written(&exit(*producer), *producer);
        let cells: Vec<_> = dialects.iter().map(|dialect| ours(*dialect, entered, &page)).collect();
        writeln!(out, "| {producer} ({}) | {} |", page.reason(), cells.join(" | ")).unwrap();
    }
    out.push('\n');
}

fn document() -> String {
    let mut out = String::from(
        "# Dialects: who misreads whom\n\n\
         What a VMM makes of an exit that a kernel of another dialect wrote. A test derives these tables from `exit::encode` and\n\
         `exit::decode`; bold is a misreading, or an end that tells why. The VMMs of 2022 are modelled by what the mails say of\n\
         them: a `switch` over the whole of `type`.\n\n",
    );
    out.push_str("## A termination, and what or'ing bit 31 into its type does\n\n");
    let with_term = [Dialect::SevTermV4_1, Dialect::SevTermAlternative, Dialect::Linux6_1, Dialect::Linux7_2];
    event_table(&mut out, EventType::SevTerm, &[SEV_TERM], &with_term);
    out.push_str("## An event of before\n\n");
    let releases = [Dialect::Linux5_17, Dialect::SevTermV4_1, Dialect::SevTermAlternative, Dialect::Linux7_2];
    event_table(&mut out, EventType::Reset, &[], &releases);
    out.push_str("## Exits that moved\n\n");
    let fault = MemoryFault {
        gpa: exeunt_abi::Gpa(0x5000),
        size: 0x1000,
        private: true,
        unknown_flags: 0,
        poisoned: false,
    };
    exit_table(
        &mut out,
        "A memory fault",
        |_| Exit::MemoryFault(fault),
        &[Dialect::VmgexitV10, Dialect::Linux6_12, Dialect::Linux7_2],
    );
    let certs = SnpReqCerts { gpa: exeunt_abi::Gpa(0x8000), pages: 4 };
    exit_table(
        &mut out,
        "A request for certificates",
        |_| Exit::SnpReqCerts(certs),
        &[Dialect::CocoV1, Dialect::Linux7_2],
    );
    let conversion = |dialect: Dialect| match dialect.conversion_form() {
        ConversionForm::Vmgexit => Exit::Vmgexit { ghcb_msr: 0x10_0000_0000_5014 },
        ConversionForm::MapGpaRange => {
            Exit::Hypercall(Hypercall { nr: 12, args: [0x5000, 1, 0x10, 0, 0, 0], flags: 0 })
        }
    };
    exit_table(
        &mut out,
        "A page-state change",
        conversion,
        &[Dialect::VmgexitV10, Dialect::Linux6_12, Dialect::Linux7_2],
    );
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[test]
fn the_tables_in_the_documentation_are_what_the_code_does() {
    let document = document();
    if std::env::var_os("EXEUNT_BLESS").is_some() {
        std::fs::write(DOCUMENT, &document).unwrap();
    }
    let stored = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(
        stored == document,
        "docs/dialects.md is not what this test derives; EXEUNT_BLESS=1 writes it anew"
    );
}

#[test]
fn strict_matches_break_on_bit_31_as_the_mail_says() {
    for producer in [Dialect::SevTermV4_1, Dialect::SevTermAlternative] {
        let event = SystemEvent { event: EventType::SevTerm, data: Words::from_slice(&[SEV_TERM]) };
        let (_, page) = written(&Exit::SystemEvent(event), producer);
        assert_eq!(strict(&page), "**unknown type 0x80000004: an error**");
        assert_eq!(reboot(&page), "**a reboot**");
    }
}
