//! `events`: `struct kvm_vcpu_events` of x86.

use super::dump::Dump;
use super::explanation::{Explanation, Field};
use super::input::Input;
use crate::Failure;
use exeunt_abi::kvm::events as bits;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_proto::events::{triple_fault, unknown_flags};
use zerocopy::FromBytes;

const SOURCE: &str = "Linux v7.2 arch/x86/include/uapi/asm/kvm.h, struct kvm_vcpu_events, and arch/x86/kvm/x86.c, \
                      kvm_vcpu_ioctl_x86_get_vcpu_events and kvm_vcpu_ioctl_x86_set_vcpu_events";
const FLAGS: [(u32, &str); 6] = [
    (bits::VALID_NMI_PENDING, "NMI_PENDING"),
    (bits::VALID_SIPI_VECTOR, "SIPI_VECTOR"),
    (bits::VALID_SHADOW, "SHADOW"),
    (bits::VALID_SMM, "SMM"),
    (bits::VALID_PAYLOAD, "PAYLOAD"),
    (bits::VALID_TRIPLE_FAULT, "TRIPLE_FAULT"),
];

/// `events FILE|HEX`.
pub(super) fn explain(input: &Input) -> Result<Explanation, Failure> {
    let Input { name, bytes, .. } = input;
    let wrong = format!("{name}: {} bytes are not the 64 of a kvm_vcpu_events of x86", bytes.len());
    let events = VcpuEvents::read_from_bytes(bytes).map_err(|_| wrong)?;
    let dump = Dump(bytes);
    let (title, advice) = match triple_fault(&events) {
        Some(true) => (
            "a triple fault is pending",
            "Carry the byte and the flag to the target and set them there; a target without capability 218 refuses \
             the state (TF-2). The next KVM_RUN ends in KVM_EXIT_SHUTDOWN.",
        ),
        Some(false) => (
            "no triple fault is pending",
            "Nothing. If these events are set, the flag with 0 takes a pending triple fault back (TF-4).",
        ),
        None => (
            "the events do not say whether a triple fault is pending",
            "Enable capability 218 before saving: a pending triple fault would be lost (TF-1).",
        ),
    };
    let mut explanation = Explanation::new("events", name, title)
        .with_all(fields(dump, &events))
        .reserved(dump.not_zero(15, 1, "nmi.pad"))
        .reserved(dump.not_zero(29, 26, "reserved"))
        .advice(advice)
        .source(SOURCE);
    explanation.reserved.extend(called_out(&events));
    Ok(explanation)
}

fn called_out(events: &VcpuEvents) -> Vec<String> {
    let mut out = Vec::new();
    if unknown_flags(events) != 0 {
        out.push(format!(
            "flags {:#x} are unknown: KVM_SET_VCPU_EVENTS answers EINVAL (TF-5)",
            unknown_flags(events)
        ));
    }
    let has_exception = events.exception_injected != 0 || events.exception_pending != 0;
    if has_exception && (events.exception_nr > 31 || events.exception_nr == 2) {
        out.push(format!("exception.nr is {}: KVM_SET_VCPU_EVENTS answers EINVAL", events.exception_nr));
    }
    if events.triple_fault_pending != 0 && events.flags & bits::VALID_TRIPLE_FAULT == 0 {
        out.push("triple_fault.pending is set without its flag, so KVM does not look at it".into());
    }
    out
}

fn fields(dump: Dump<'_>, events: &VcpuEvents) -> Vec<Field> {
    let set = FLAGS.iter().filter(|(bit, _)| events.flags & bit != 0).map(|(_, name)| *name);
    let names = if events.flags == 0 { "none".to_string() } else { set.collect::<Vec<_>>().join(", ") };
    let valid = |bit: u32| if events.flags & bit == 0 { "; its flag is not set" } else { "" };
    let byte = |at, name: &str, meaning: &str| dump.byte(at, name, meaning);
    let flagged =
        |at, name: &str, meaning: &str, bit| dump.byte(at, name, format!("{meaning}{}", valid(bit)));
    vec![
        byte(0, "exception.injected", "1: injected and not yet delivered"),
        byte(1, "exception.nr", "the vector"),
        byte(2, "exception.has_error_code", "1: pushes the error code"),
        flagged(3, "exception.pending", "1: not yet injected", bits::VALID_PAYLOAD),
        dump.hex32(4, "exception.error_code", "the error code"),
        byte(8, "interrupt.injected", "1: injected and not yet delivered"),
        byte(9, "interrupt.nr", "the vector"),
        byte(10, "interrupt.soft", "1: a software interrupt, which KVM never reports"),
        flagged(11, "interrupt.shadow", "bit 0 MOV SS, bit 1 STI", bits::VALID_SHADOW),
        byte(12, "nmi.injected", "1: injected and not yet delivered"),
        flagged(13, "nmi.pending", "NMIs that wait", bits::VALID_NMI_PENDING),
        byte(14, "nmi.masked", "1: NMIs are blocked"),
        dump.hex32(16, "sipi_vector", format!("written only{}", valid(bits::VALID_SIPI_VECTOR))),
        dump.hex32(20, "flags", names),
        flagged(24, "smi.smm", "1: in system management mode", bits::VALID_SMM),
        byte(25, "smi.pending", "1: an SMI waits"),
        byte(26, "smi.smm_inside_nmi", "1: SMM was entered from an NMI handler"),
        byte(27, "smi.latched_init", "1: an INIT waits"),
        flagged(28, "triple_fault.pending", "1: requested and not yet serviced", bits::VALID_TRIPLE_FAULT),
        flagged(55, "exception_has_payload", "1: the payload is valid", bits::VALID_PAYLOAD),
        dump.hex64(56, "exception_payload", format!("DR6 or CR2 bits{}", valid(bits::VALID_PAYLOAD))),
    ]
}

/// Whether 64 bytes look like events.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    VcpuEvents::read_from_bytes(bytes)
        .is_ok_and(|events| unknown_flags(&events) == 0 && events.reserved == [0; 26] && events.nmi_pad == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(parts: &[(usize, u8)]) -> Input {
        let mut bytes = vec![0; 64];
        for (at, value) in parts {
            bytes[*at] = *value;
        }
        Input { name: "events".into(), bytes, is_text: false }
    }

    #[test]
    fn a_triple_fault_is_pending_absent_or_unknown() {
        let title = |parts: &[(usize, u8)]| explain(&events(parts)).unwrap().title;
        assert_eq!(title(&[(20, 0x2d), (28, 1)]), "a triple fault is pending");
        assert_eq!(title(&[(20, 0x2d)]), "no triple fault is pending");
        assert!(title(&[(20, 0x0d), (28, 1)]).contains("do not say"));
    }

    #[test]
    fn what_kvm_refuses_or_ignores_is_called_out() {
        let reserved = |parts: &[(usize, u8)]| explain(&events(parts)).unwrap().reserved;
        assert_eq!(reserved(&[(20, 0x2d)]), Vec::<String>::new());
        assert_eq!(reserved(&[(20, 0x40), (0, 1), (1, 2), (28, 1), (15, 1), (40, 1)]).len(), 5);
        assert!(explain(&Input { bytes: vec![0; 63], ..events(&[]) }).unwrap_err().contains("63 bytes"));
    }
}
