//! `sw-exitinfo1` and `sw-exitinfo2`: what the hypervisor made of a page-based request.

use super::explanation::{Explanation, Field};
use super::{ghcb_msr, number};
use crate::Failure;
use exeunt_abi::ghcb::page::{event_injection, exit_info_1, malformed};
use exeunt_abi::ghcb::{exit_code, guest_message, psc};
use exeunt_abi::kvm::sev::firmware;
use exeunt_proto::ghcb::{Exception, GuestRequestResult, Malformed, Outcome, PscResult};

const SOURCE: &str = "AMD 56421 revision 2.04, section 4; Linux v7.2 arch/x86/coco/sev/vc-shared.c, \
                      verify_exception_info, and arch/x86/kvm/svm/sev.c";

/// `sw-exitinfo1 2`.
pub(super) fn first(text: &str) -> Result<Explanation, Failure> {
    let value = number::parse(text)?;
    let (meaning, advice) = match value & 0xffff_ffff {
        exit_info_1::NO_ACTION => (
            "NO_ACTION: the request was done, or SW_EXITINFO2 says otherwise",
            "Nothing. A page-state change and a guest request report their errors in SW_EXITINFO2, with 0 here.",
        ),
        exit_info_1::ISSUE_EXCEPTION => (
            "ISSUE_EXCEPTION: the guest should raise the exception of SW_EXITINFO2",
            "Nothing: KVM writes it when an access to a model-specific register is refused, by userspace too.",
        ),
        exit_info_1::MALFORMED_INPUT => (
            "MALFORMED_INPUT: SW_EXITINFO2 says what is wrong with the request",
            "Nothing: KVM answered by itself. A Linux guest takes it for a failure of the hypervisor.",
        ),
        _ => (
            "no answer that is known; as input it belongs to the exit code",
            "If this is a request, `exeunt explain exit-code` says what the word holds.",
        ),
    };
    let high =
        (value >> 32 != 0).then(|| "bits 63:32 are set; Linux guests look at the low half alone".to_string());
    Ok(Explanation::new("sw-exitinfo1", text, meaning)
        .with(Field::at(0x398, "sw_exit_info_1", format!("{value:#x}"), meaning))
        .reserved(high)
        .advice(advice)
        .source(SOURCE))
}

/// `sw-exitinfo2 0x0000010000000000`: each reading, since only the request and `SW_EXITINFO1` choose among them.
pub(super) fn second(text: &str) -> Result<Explanation, Failure> {
    let value = number::parse(text)?;
    let psc_result = PscResult::from_number(value);
    let request = GuestRequestResult::from_number(value);
    let malformed = Malformed(value);
    let exception = Exception(value);
    let title = match likeliest(value) {
        Some(Outcome::Psc(result)) => named_psc(result),
        Some(outcome) => outcome.to_string(),
        None => format!("SW_EXITINFO2 {value:#x}: its meaning depends on the request"),
    };
    let half = match (request.vmm, guest_message::vmm_error::name(value & !0xffff_ffff)) {
        (0, _) => "no error of the hypervisor".to_string(),
        (_, Some(name)) => format!("hypervisor: {name}"),
        (_, None) => "an error of the hypervisor that is not known".to_string(),
    };
    let code = firmware::name(request.firmware).unwrap_or("a code of the firmware that is not known");
    let word = |name: &str, meaning: String| Field::new(name, format!("{value:#x}"), meaning);
    Ok(Explanation::new("sw-exitinfo2", text, title)
        .with(word("with SW_EXITINFO1 = 2", malformed.to_string()))
        .with(word("with SW_EXITINFO1 = 1", exception_text(exception)))
        .with(word("after PSC (0x80000010)", named_psc(psc_result)))
        .with(Field::bits("after a guest request", value, 63, 32, half))
        .with(Field::bits("", value, 31, 0, format!("firmware: {code}")))
        .with(word("after HV_FEATURES", ghcb_msr::feature_names(value)))
        .advice(advice(value))
        .source(SOURCE))
}

/// A result with its name in the specification, for those who search for it.
fn named_psc(result: PscResult) -> String {
    match psc::result::name(result.number()) {
        Some(name) => format!("{result} ({name})"),
        None => result.to_string(),
    }
}

fn exception_text(exception: Exception) -> String {
    if exception.0 & event_injection::VALID == 0 {
        return "no exception: bit 31 is not set".into();
    }
    exception.to_string()
}

/// The reading that the number was made for, where there is one.
pub(super) fn likeliest(value: u64) -> Option<Outcome> {
    let is_psc =
        matches!(value, psc::result::INVALID_HDR | psc::result::INVALID_ENTRY | psc::result::GENERIC);
    let is_exception = value & event_injection::VALID != 0
        && value & event_injection::TYPE_MASK == event_injection::TYPE_EXCEPTION
        && matches!(value >> 32, 0 | 0xffff_ffff);
    let vmm_half = value & !0xffff_ffff;
    if is_psc {
        return Some(Outcome::Psc(PscResult::from_number(value)));
    }
    if vmm_half != 0 && guest_message::vmm_error::name(vmm_half).is_some() && !is_exception {
        return Some(Outcome::decode(exit_code::EXT_GUEST_REQUEST, 0, value));
    }
    if is_exception {
        return Some(Outcome::Exception(Exception(value)));
    }
    malformed::name(value).map(|_| Outcome::Malformed(Malformed(value)))
}

fn advice(value: u64) -> &'static str {
    match value {
        psc::result::GENERIC => {
            "After a page-state change this is what a refusal by userspace becomes, EINVAL and EAGAIN alike (TD-4), \
             and what KVM answers without KVM_CAP_EXIT_HYPERCALL. A Linux guest terminates: look for the conversion \
             that was refused."
        }
        psc::result::INVALID_HDR | psc::result::INVALID_ENTRY => {
            "The guest wrote a bad descriptor: `exeunt explain psc` checks one. Entries before it stay converted."
        }
        guest_message::vmm_error::INVALID_LEN => {
            "Userspace answered ENOSPC: RBX holds the pages needed, which must be exact (RC-2). A Linux guest asks \
             again with a larger buffer, of 4 pages at most."
        }
        guest_message::vmm_error::BUSY => {
            "Userspace answered EAGAIN. A Linux guest tries again for a minute (RC-6)."
        }
        guest_message::vmm_error::GENERIC => {
            "Userspace answered EIO: a Linux guest gives up its key, and attestation is over until it boots again. \
             Prefer an empty table, or EAGAIN."
        }
        _ => "Find out which request it answers: SW_EXITCODE and SW_EXITINFO1 choose among the readings.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_that_a_hypervisor_writes_is_recognised() {
        let title = |text: &str| second(text).unwrap().title;
        assert_eq!(title("0x0000010000000000"), "page-state change: failed (GENERIC)");
        assert_eq!(title("0x100000001"), "page-state change: the header is invalid (INVALID_HDR)");
        assert_eq!(title("0x100000000"), "guest request: hypervisor INVALID_LEN (0x1)");
        assert_eq!(title("0xffffffff00000000"), "guest request: hypervisor GENERIC (0xffffffff)");
        assert_eq!(title("4"), "malformed: a field that the exit needs is not valid (MISSING_INPUT)");
        // As KVM writes it, extended with its sign.
        assert_eq!(title("0xffffffff8000030d"), "raise #GP");
        assert!(title("0x16").contains("depends on the request"));
        let fields = second("0x16").unwrap().fields;
        assert!(fields.iter().any(|field| field.meaning.contains("INVALID_PARAM")));
    }

    #[test]
    fn the_high_half_of_the_first_word_is_called_out() {
        let explanation = first("0x100000002").unwrap();
        assert!(explanation.title.starts_with("MALFORMED_INPUT"));
        assert_eq!(explanation.reserved.len(), 1);
    }
}
