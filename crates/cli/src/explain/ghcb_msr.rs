//! `ghcb-msr`: the GHCB MSR before or after a `VMGEXIT`. `sev-term`: the same number in `data[0]` of a termination.

use super::explanation::{Explanation, Field, mask, unknown_bits};
use super::number;
use crate::Failure;
use exeunt_abi::ghcb::{features, msr, psc};
use exeunt_proto::ghcb::{MsrRequest, MsrResponse};
use exeunt_proto::termination::SevTermination;

const SOURCE: &str = "AMD 56421 revision 2.04, section 2.3.1; Linux v7.2 arch/x86/kvm/svm/sev.c, \
                      sev_handle_vmgexit_msr_protocol";
const TERM_SOURCE: &str = "Linux v7.2 arch/x86/kvm/svm/sev.c, sev_handle_vmgexit_msr_protocol, and \
                           arch/x86/include/asm/sev-common.h, GHCB_TERM_*; AMD 56421 revision 2.04, section 2.3.1";
const TERM_ADVICE: &str = "Report set, code and meaning (SE-5), and stop the VM with a status that is no success and \
                           without a reboot (SE-4). KVM allows to enter again; a Linux guest then halts for ever.";

/// `sev-term 0x21100`.
pub(super) fn termination(text: &str) -> Result<Explanation, Failure> {
    let value = number::parse(text)?;
    let reason = SevTermination::from_msr(value);
    let mut explanation = Explanation::new("sev-term", text, reason.to_string()).source(TERM_SOURCE);
    explanation = match reason {
        SevTermination::Reason { .. } => explanation
            .with_all(termination_fields(value))
            .reserved(unknown_bits(value, mask(23, 0)))
            .advice(TERM_ADVICE),
        SevTermination::ByPage { .. } => explanation
            .with(Field::bits("info", value, 11, 0, "0: the request came by a GHCB page"))
            .with(Field::bits("gfn", value, 63, 12, "frame of the GHCB page"))
            .advice(
                "The reason was in SW_EXITINFO1 of that page, and KVM has zeroed it: look for \"SEV-ES guest requested \
                 termination\" in the host's kernel log. Stop the VM as for any termination (SE-4, SE-5).",
            ),
        SevTermination::NeedsSnp { .. } => explanation
            .with(Field::bits("info", value, 11, 0, msr::name(value & msr::INFO_MASK).unwrap_or_default()))
            .with(Field::bits("rest", value, 63, 12, "as the request has it: see `exeunt explain ghcb-msr`"))
            .advice(
                "The guest did not ask for its end: it made a request that only SNP guests may make. It takes itself \
                 for an SNP guest, or the VM was created with the wrong type. Stop the VM (SE-5).",
            ),
        SevTermination::Unknown { .. } => explanation
            .with(Field::bits("info", value, 11, 0, "no form that Linux 7.2 writes"))
            .with(Field::bits("rest", value, 63, 12, "unknown"))
            .advice("Report the number as it is and stop the VM (SE-4)."),
    };
    Ok(explanation)
}

fn termination_fields(value: u64) -> [Field; 3] {
    let reason = SevTermination::from_msr(value);
    let set = match value >> 12 & 0xf {
        0 => "the GHCB specification's reasons",
        1 => "Linux's reasons",
        _ => "no set that is known here",
    };
    [
        Field::bits("info", value, 11, 0, "TERMINATE_REQUEST"),
        Field::bits("reason set", value, 15, 12, set),
        Field::bits("reason code", value, 23, 16, reason.meaning().unwrap_or("no meaning in this set")),
    ]
}

/// `ghcb-msr 0x...`.
pub(super) fn explain(text: &str) -> Result<Explanation, Failure> {
    let value = number::parse(text)?;
    let info = value & msr::INFO_MASK;
    let name = match (info, msr::name(info)) {
        (0, _) => "page request".to_string(),
        (_, Some(name)) => name.to_string(),
        (_, None) => format!("no request or response ({info:#x})"),
    };
    Ok(Explanation::new("ghcb-msr", text, format!("{name}: {}", meaning(value)))
        .with(Field::bits("info", value, 11, 0, name))
        .with_all(fields(value))
        .reserved(unknown_bits(value, known_bits(info)))
        .advice(advice(info))
        .source(SOURCE))
}

fn meaning(value: u64) -> String {
    match MsrRequest::decode(value) {
        MsrRequest::Page(gpa) => format!("the request is in the GHCB page at {gpa}"),
        MsrRequest::SevInfo => "which versions of the protocol, and where the C-bit is".into(),
        MsrRequest::Cpuid { function, register } => {
            format!("{} of CPUID leaf {function:#x}", register_name(register))
        }
        MsrRequest::ApResetHold => "hold this vCPU in reset".into(),
        MsrRequest::PreferredGpa => "where the hypervisor wants the GHCB".into(),
        MsrRequest::RegisterGpa(gfn) => format!("register the GHCB at {}", gfn.gpa()),
        MsrRequest::Psc { operation, gfn } => {
            let what =
                psc::operation::name(operation).map_or_else(|| operation.to_string(), str::to_lowercase);
            format!("make the page at {} {what}", gfn.gpa())
        }
        MsrRequest::RunVmpl { vmpl } => format!("run privilege level {vmpl}"),
        MsrRequest::HvFeatures => "what the hypervisor supports".into(),
        MsrRequest::Terminate => SevTermination::from_msr(value).to_string(),
        _ => MsrResponse::decode(value).to_string(),
    }
}

fn register_name(register: u8) -> &'static str {
    ["EAX", "EBX", "ECX", "EDX"].get(usize::from(register)).unwrap_or(&"?")
}

fn fields(value: u64) -> Vec<Field> {
    let bits = |name: &str, high, low, meaning: &str| Field::bits(name, value, high, low, meaning);
    let register = register_name((value >> 30 & 3) as u8);
    match value & msr::INFO_MASK {
        0 | msr::REGISTER_GPA_REQUEST => vec![bits("gfn", 63, 12, "frame of the GHCB page")],
        msr::SEV_INFO_RESPONSE => vec![
            bits("c_bit", 31, 24, "the bit of an address that makes a page private"),
            bits("min_version", 47, 32, "lowest version of the protocol"),
            bits("max_version", 63, 48, "highest version of the protocol"),
        ],
        msr::CPUID_REQUEST => {
            vec![
                bits("register", 31, 30, register),
                bits("function", 63, 32, "the leaf; the subleaf is always 0"),
            ]
        }
        msr::CPUID_RESPONSE => vec![bits("register", 31, 30, register), bits("value", 63, 32, "its value")],
        msr::AP_RESET_HOLD_RESPONSE => vec![bits("result", 63, 12, "not 0 once a startup interrupt came")],
        msr::PREFERRED_GPA_RESPONSE => {
            vec![bits("gfn", 63, 12, "a frame, or all ones for none, as KVM answers")]
        }
        msr::REGISTER_GPA_RESPONSE => {
            vec![bits("gfn", 63, 12, "the frame of the request, or all ones for a refusal")]
        }
        msr::PSC_REQUEST => {
            let name = psc::operation::name((value >> 52 & 0xf) as u8);
            let operation = name.unwrap_or("neither PRIVATE (1) nor SHARED (2): KVM answers with an error");
            vec![bits("gfn", 51, 12, "frame of the page"), bits("operation", 55, 52, operation)]
        }
        msr::PSC_RESPONSE | msr::RUN_VMPL_RESPONSE => vec![bits("error", 63, 32, "0 for success")],
        msr::RUN_VMPL_REQUEST => vec![bits("vmpl", 39, 32, "the privilege level")],
        msr::HV_FEATURES_RESPONSE => vec![bits("features", 63, 12, &feature_names(value >> 12))],
        msr::TERMINATE_REQUEST => termination_fields(value).into_iter().skip(1).collect(),
        _ => vec![bits("rest", 63, 12, "unknown")],
    }
}

/// The names of feature bits, with those that have none in hex.
pub(super) fn feature_names(bits: u64) -> String {
    let set = || features::ALL.iter().filter(|(bit, _)| bits & bit != 0);
    let left = set().fold(bits, |left, (bit, _)| left & !bit);
    let unknown = (left != 0).then(|| format!("unknown bits {left:#x}"));
    let all: Vec<String> = set().map(|(_, name)| (*name).to_string()).chain(unknown).collect();
    if all.is_empty() { "no feature".into() } else { all.join(", ") }
}

fn known_bits(info: u64) -> u64 {
    let rest = match info {
        msr::SEV_INFO_REQUEST
        | msr::AP_RESET_HOLD_REQUEST
        | msr::PREFERRED_GPA_REQUEST
        | msr::HV_FEATURES_REQUEST => 0,
        msr::SEV_INFO_RESPONSE => mask(63, 24),
        msr::CPUID_REQUEST | msr::CPUID_RESPONSE => mask(63, 30),
        msr::PSC_REQUEST => mask(55, 12),
        msr::PSC_RESPONSE | msr::RUN_VMPL_RESPONSE => mask(63, 32),
        msr::RUN_VMPL_REQUEST => mask(39, 32),
        msr::TERMINATE_REQUEST => mask(23, 12),
        _ => mask(63, 12),
    };
    rest | msr::INFO_MASK
}

fn advice(info: u64) -> &'static str {
    match info {
        msr::PSC_REQUEST => {
            "KVM makes a KVM_HC_MAP_GPA_RANGE exit of it, with one page: answer as for any conversion (HC-2, HC-3). \
             From a guest that is not SNP it ends in SEV_TERM (SE-5). Seen after KVM_RUN returned EINVAL, the answer \
             was illegal and the guest will find its request unanswered (HC-15)."
        }
        msr::PSC_RESPONSE => {
            "KVM writes this from `ret`: EINVAL and EAGAIN both become error 0x80000000, which Linux guests \
             terminate on (TD-4)."
        }
        msr::TERMINATE_REQUEST => TERM_ADVICE,
        0 => "The page says what is asked for: `exeunt explain ghcb` takes a copy of it apart.",
        msr::PREFERRED_GPA_REQUEST | msr::REGISTER_GPA_REQUEST => {
            "KVM answers by itself. From a guest that is not SNP it ends in SEV_TERM with this number (SE-5)."
        }
        msr::RUN_VMPL_REQUEST => "KVM has no answer and enters the guest with the MSR as it is.",
        _ if msr::name(info).is_some() => "Nothing: KVM answers by itself, and no exit reaches the VMM.",
        _ => {
            "Nothing: KVM enters the guest with the MSR as it is. The specification wants an error or a termination."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_is_read_in_each_of_its_forms() {
        let title = |text: &str| termination(text).unwrap().title;
        assert!(title("0x21100").contains("PVALIDATE failed"));
        assert!(title("0x7f000000").contains("by the GHCB at 0x7f000000"));
        assert!(title("0x12345012").contains("not SNP"));
        assert!(title("0x7ff").contains("unknown form"));
        let set = termination("0x1000021100").unwrap();
        assert_eq!(set.reserved, ["bit 36 (0x1000000000) without a meaning here, should be 0"]);
    }

    #[test]
    fn every_named_number_has_fields_that_cover_its_known_bits() {
        for (number, name) in msr::ALL {
            let explanation = explain(&format!("{:#x}", u64::MAX << 12 | number)).unwrap();
            assert!(explanation.title.starts_with(name), "{}", explanation.title);
            assert_eq!(explanation.reserved.is_empty(), known_bits(*number) == u64::MAX, "{name}");
            let without = explain(&format!("{number:#x}")).unwrap();
            assert!(without.reserved.is_empty(), "{name}");
        }
        assert!(explain("0x3081").unwrap().fields[1].meaning.contains("SNP, SNP_AP_CREATION"));
    }
}
