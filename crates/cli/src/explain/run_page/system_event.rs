//! `kvm_run.system_event`, in each form that it had.

use super::super::dump::Dump;
use super::super::event;
use super::super::explanation::{Explanation, Field};
use exeunt_abi::kvm::run::{PSCI_OFF2, PSCI_RESET2, sev_term_v4_1};
use exeunt_abi::{Arch, Kernel, SystemEventForm};
use exeunt_proto::exit::{EventType, SystemEvent};
use exeunt_proto::ghci::FatalError;
use exeunt_proto::termination::SevTermination;

/// The registers of a TD's fatal error, in the order of their encoding.
const REGISTERS: [&str; 16] = [
    "vp_enter status",
    "RCX",
    "RDX",
    "RBX",
    "unused",
    "unused",
    "RSI",
    "RDI",
    "R8",
    "R9",
    "R10",
    "R11",
    "R12: the error",
    "R13: an address, if bit 63 of the error is set",
    "R14",
    "R15",
];

/// Adds the fields and says what happened.
pub(super) fn describe(to: &mut Explanation, dump: Dump<'_>, event: &SystemEvent, kernel: Kernel) -> String {
    let number = dump.u32(0x20);
    let about = event::about(number, kernel.dialect);
    to.source = event::SOURCE.into();
    to.advice = about.advice.into();
    to.fields.push(Field::at(
        0x20,
        "type",
        format!("{number:#x}"),
        format!("{}: {}", about.name, about.meaning),
    ));
    to.reserved.extend(event::bit_31(number, kernel.dialect));
    let form = kernel.dialect.system_event_form();
    to.fields.push(ndata(dump, form, number));
    let first = if form == SystemEventForm::Queued { 0x30 } else { 0x28 };
    if form == SystemEventForm::Queued {
        to.fields.push(dump.hex64(0x28, "flags", "the architecture's flags"));
    }
    for (index, word) in event.data.as_slice().iter().enumerate() {
        let meaning = meaning(event.event, index, *word, kernel.arch);
        to.fields.push(Field::at(first + 8 * index, format!("data[{index}]"), format!("{word:#x}"), meaning));
    }
    if event.data.count > 16 {
        to.reserved
            .push(format!("ndata is {}: there are 16 words, and no more are read (SE-2)", event.data.count));
    }
    let detail = match event.event {
        EventType::SevTerm => event.data.first().map(|word| SevTermination::from_msr(word).to_string()),
        EventType::TdxFatal => FatalError::from_words(&event.data).map(|error| error.to_string()),
        _ => None,
    };
    match detail {
        Some(detail) => format!("{}, {detail}", about.name),
        None => format!("{} ({number:#x}): {}", about.name, about.meaning),
    }
}

fn ndata(dump: Dump<'_>, form: SystemEventForm, number: u32) -> Field {
    let is_counted = match form {
        SystemEventForm::Shipped => true,
        SystemEventForm::Flags => false,
        SystemEventForm::Queued | SystemEventForm::Alternative => number & sev_term_v4_1::NDATA_VALID != 0,
    };
    let meaning = match (is_counted, form) {
        (true, SystemEventForm::Shipped) => "valid words of data; true only with capability 215 (SE-3)",
        (true, _) => "valid words of data, as bit 31 of the type says",
        (false, _) => "garbage: padding on this kernel (SE-3)",
    };
    Field::at(0x24, "ndata", dump.u32(0x24).to_string(), meaning)
}

fn meaning(event: EventType, index: usize, word: u64, arch: Arch) -> String {
    match (event, index) {
        (EventType::SevTerm, 0) => format!("the GHCB MSR: {}", SevTermination::from_msr(word)),
        (EventType::TdxFatal, _) => (*REGISTERS.get(index).unwrap_or(&"")).to_string(),
        (EventType::Reset, 0) if arch == Arch::Arm64 && word & PSCI_RESET2 != 0 => {
            "flags: PSCI_RESET2, with kind and cookie in x1 and x2".into()
        }
        (EventType::Shutdown, 0) if arch == Arch::Arm64 && word & PSCI_OFF2 != 0 => "flags: PSCI_OFF2".into(),
        (EventType::Reset | EventType::Shutdown, 0) => "flags".into(),
        _ => String::new(),
    }
}
