//! `event`: `system_event.type`.

use super::explanation::{Explanation, Field};
use super::number;
use crate::Failure;
use exeunt_abi::kvm::run::event_type;
use exeunt_abi::kvm::run::sev_term_v4_1::{self, SEV_TERM_WITH_DATA};
use exeunt_abi::{Dialect, SystemEventForm};

pub(super) const SOURCE: &str = "Linux v7.2 include/uapi/linux/kvm.h, KVM_SYSTEM_EVENT_*, and \
                                 Documentation/virt/kvm/api.rst, KVM_EXIT_SYSTEM_EVENT";

/// `event 6`, `event KVM_SYSTEM_EVENT_SEV_TERM`.
pub(super) fn explain(text: &str, dialect: Dialect) -> Result<Explanation, Failure> {
    let upper = text.to_ascii_uppercase();
    let number = match event_type::from_name(upper.strip_prefix("KVM_SYSTEM_EVENT_").unwrap_or(&upper)) {
        Some(number) => number,
        None => number::parse_u32(text, "system_event.type")?,
    };
    let About { name, meaning, data, advice } = about(number, dialect);
    Ok(Explanation::new("event", text, format!("{name} ({number:#x}): {meaning}"))
        .with(Field::at(0x20, "type", format!("{number:#x}"), name))
        .with(Field::at(0x28, "data", "", data))
        .with_all(elsewhere(number, dialect).map(|other| Field::new("elsewhere", "", other)))
        .reserved(bit_31(number, dialect))
        .advice(advice)
        .source(SOURCE))
}

/// What is known of a type.
pub(super) struct About {
    pub(super) name: String,
    pub(super) meaning: &'static str,
    pub(super) data: &'static str,
    pub(super) advice: &'static str,
}

/// Dialects in which bit 31 says something else than the type, and `SEV_TERM` is 4.
pub(super) fn is_of_2022(dialect: Dialect) -> bool {
    matches!(dialect.system_event_form(), SystemEventForm::Queued | SystemEventForm::Alternative)
}

/// The type that a number stands for in a dialect, or `None` where a proposal took the number for something else.
fn shipped_number(number: u32, dialect: Dialect) -> Option<u32> {
    match number {
        _ if !is_of_2022(dialect) => Some(number),
        SEV_TERM_WITH_DATA => Some(event_type::SEV_TERM),
        sev_term_v4_1::SEV_TERM => None,
        number => Some(number),
    }
}

/// Calls out bit 31 where it has no meaning.
pub(super) fn bit_31(number: u32, dialect: Dialect) -> Option<String> {
    let is_set = number & sev_term_v4_1::NDATA_VALID != 0;
    let is_theirs = is_of_2022(dialect) && number == SEV_TERM_WITH_DATA;
    (is_set && !is_theirs).then(|| {
        "bit 31 is part of the type (SE-1). Only two proposals of 2022 that never shipped gave it a meaning of its own, \
         and to SEV_TERM (0x80000004) alone: ndata is valid (--dialect sev-term-v4.1, sev-term-alternative)"
            .to_string()
    })
}

fn elsewhere(number: u32, dialect: Dialect) -> Option<&'static str> {
    let is_theirs = matches!(number, SEV_TERM_WITH_DATA | sev_term_v4_1::SEV_TERM);
    (is_theirs && !is_of_2022(dialect))
        .then_some("SEV_TERM in the proposals of 2022, with bit 31; it shipped as 6")
}

/// What a type means in a dialect.
pub(super) fn about(number: u32, dialect: Dialect) -> About {
    let shipped = shipped_number(number, dialect).filter(|number| event_type::name(*number).is_some());
    let name = shipped.and_then(event_type::name).unwrap_or("an unknown type");
    let (meaning, data, advice) = texts(shipped.unwrap_or(u32::MAX));
    About { name: name.to_string(), meaning, data, advice }
}

fn texts(number: u32) -> (&'static str, &'static str, &'static str) {
    match number {
        event_type::SHUTDOWN => (
            "the guest asked to be shut down",
            "arm64: data[0] bit 0 = SYSTEM_OFF2 (6.13); riscv64: the reason of the SRST call; x86: none",
            "Stop the VM, or ignore the event and run the vCPU again: both are allowed (SE-8). Flags are in data[0] \
             (SE-7).",
        ),
        event_type::RESET => (
            "the guest asked to be reset",
            "arm64: data[0] bit 0 = SYSTEM_RESET2 (5.18), kind and cookie in x1 and x2; riscv64: the reason; x86: none",
            "Reset the VM, or ignore the event (SE-8). A confidential guest cannot be reset in place: its memory and \
             registers are encrypted, so a new VM is made.",
        ),
        event_type::CRASH => (
            "the guest crashed",
            "none; a Windows guest has put the reason into its crash registers",
            "Report it and stop or reset the VM; ignoring it is allowed (SE-8).",
        ),
        event_type::WAKEUP => (
            "a suspended arm64 vCPU has a reason to wake up",
            "none",
            "Set the vCPU's mp_state to runnable, or the exit comes again.",
        ),
        event_type::SUSPEND => (
            "an arm64 guest asked to be suspended",
            "none; entry point and context are in x1 and x2",
            "Suspend the VM, or put an error of PSCI into x0 and enter again. KVM_CAP_ARM_SYSTEM_SUSPEND (216) asks \
             for this exit.",
        ),
        event_type::SEV_TERM => (
            "an SEV-ES or SNP guest asked to be terminated",
            "data[0] is the GHCB MSR: `exeunt explain sev-term` takes it apart; ndata is 1 and data[1..] is stale",
            "Report reason set and code, and stop the VM with a status that is no success (SE-4, SE-5): no reboot, \
             or a guest that cannot start is started for ever.",
        ),
        event_type::TDX_FATAL => (
            "a TD reported a fatal error",
            "16 words: registers in the order of their encoding, the error in data[12], text in eight others",
            "Report error and text, escaped, since the TD chose every byte of it (SE-6), and stop the VM.",
        ),
        _ => (
            "no event of Linux 7.2",
            "ndata words, whose meaning is not known",
            "Report the number with data[..ndata], at most 16 words, and stop the VM: no panic, no reboot, no status \
             that looks like success (SE-4).",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_31_is_part_of_the_type_but_for_the_proposals() {
        let shipped = explain("0x80000006", Dialect::Linux7_2).unwrap();
        assert!(shipped.title.starts_with("an unknown type (0x80000006)"), "{}", shipped.title);
        assert!(shipped.reserved[0].contains("SE-1"));
        let proposed = explain("0x80000004", Dialect::SevTermV4_1).unwrap();
        assert!(proposed.title.starts_with("SEV_TERM (0x80000004)"), "{}", proposed.title);
        assert!(proposed.reserved.is_empty());
        // Neither the number without the bit nor the bit with another number is one of theirs.
        for number in ["4", "0x80000001"] {
            let title = explain(number, Dialect::SevTermV4_1).unwrap().title;
            assert!(title.starts_with("an unknown type"), "{title}");
        }
    }

    #[test]
    fn a_4_is_a_wakeup_and_once_was_something_else() {
        let explanation = explain("KVM_SYSTEM_EVENT_WAKEUP", Dialect::Linux7_2).unwrap();
        assert!(explanation.title.starts_with("WAKEUP (0x4)"));
        assert!(explanation.fields.iter().any(|field| field.meaning.contains("it shipped as 6")));
    }
}
