//! `exit`: numbers of `kvm_run.exit_reason`.

use super::explanation::{Explanation, Field};
use super::number;
use crate::Failure;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::run::coco_v1::COCO;
use exeunt_abi::kvm::run::vmgexit_v10::VMGEXIT;
use exeunt_abi::{CertsForm, ConversionForm, Dialect};

pub(super) const SOURCE: &str = "Linux v7.2 include/uapi/linux/kvm.h, KVM_EXIT_*, and \
                                 Documentation/virt/kvm/api.rst, section 5 \"The kvm_run structure\"";

/// What is known of an exit.
pub(super) struct About {
    pub(super) meaning: &'static str,
    /// The member of the union, with the offsets in `kvm_run`.
    pub(super) payload: &'static str,
    pub(super) since: &'static str,
    pub(super) advice: &'static str,
}

/// `exit 43`, `exit KVM_EXIT_SHUTDOWN`.
pub(super) fn explain(text: &str, dialect: Dialect) -> Result<Explanation, Failure> {
    Ok(explanation(text, parse(text)?, dialect))
}

/// An exit reason by name or number.
///
/// # Errors
///
/// One line: neither.
pub(super) fn parse(text: &str) -> Result<ExitReason, Failure> {
    let upper = text.to_ascii_uppercase();
    match ExitReason::from_name(upper.strip_prefix("KVM_EXIT_").unwrap_or(&upper)) {
        Some(reason) => Ok(reason),
        None => number::parse_u32(text, "an exit reason").map(ExitReason),
    }
}

fn explanation(text: &str, reason: ExitReason, dialect: Dialect) -> Explanation {
    let About { meaning, payload, since, advice } = about(reason, dialect);
    let name = name(reason, dialect);
    Explanation::new("exit", text, format!("{name}: {meaning}"))
        .with(Field::at(8, "exit_reason", reason.0.to_string(), name))
        .with(Field::at(0x20, "payload", "", payload))
        .with(Field::new("since", "", since))
        .with_all(other_meaning(reason, dialect).map(|other| Field::new("elsewhere", "", other)))
        .advice(advice)
        .source(SOURCE)
}

/// The name that the number has in a dialect.
pub(super) fn name(reason: ExitReason, dialect: Dialect) -> String {
    match proposal(reason, dialect) {
        Some(name) => format!("{name} ({})", reason.0),
        None => reason.to_string(),
    }
}

fn proposal(reason: ExitReason, dialect: Dialect) -> Option<&'static str> {
    let is_v10 = dialect.conversion_form() == ConversionForm::Vmgexit;
    match reason {
        VMGEXIT if is_v10 => Some("KVM_EXIT_VMGEXIT"),
        COCO if dialect.certs_form() == CertsForm::Coco => Some("KVM_EXIT_COCO"),
        ExitReason(number) if is_v10 && number == dialect.memory_fault_number() => {
            Some("KVM_EXIT_MEMORY_FAULT")
        }
        _ => None,
    }
}

/// What the number was in proposals that never shipped.
fn other_meaning(reason: ExitReason, dialect: Dialect) -> Option<&'static str> {
    if proposal(reason, dialect).is_some() {
        return Some("this is the proposal's number; no kernel that shipped means this by it");
    }
    Some(match reason.0 {
        38 => "KVM_EXIT_MEMORY_FAULT in the tree of the SNP patches v10 (--dialect vmgexit-v10)",
        40 => "KVM_EXIT_COCO in a proposal of 2024 (--dialect coco-v1); a TD's call on kernels that shipped",
        42 => "KVM_EXIT_SNP_REQ_CERTS in a topic branch before it was merged as 43",
        50 => "KVM_EXIT_VMGEXIT of the SNP patches v10, never merged (--dialect vmgexit-v10)",
        _ => return None,
    })
}

/// What the number means in a dialect.
pub(super) fn about(reason: ExitReason, dialect: Dialect) -> About {
    match proposal(reason, dialect) {
        Some("KVM_EXIT_VMGEXIT") => VMGEXIT_V10,
        Some("KVM_EXIT_COCO") => COCO_V1,
        Some(_) => MEMORY_FAULT,
        None => released(reason),
    }
}

fn released(reason: ExitReason) -> About {
    match reason {
        ExitReason::HYPERCALL => HYPERCALL,
        ExitReason::SHUTDOWN => SHUTDOWN,
        ExitReason::SYSTEM_EVENT => SYSTEM_EVENT,
        ExitReason::MEMORY_FAULT => MEMORY_FAULT,
        ExitReason::SNP_REQ_CERTS => SNP_REQ_CERTS,
        ExitReason::TDX => TDX,
        ExitReason::NOTIFY => NOTIFY,
        ExitReason::AP_RESET_HOLD => AP_RESET_HOLD,
        ExitReason::INTERNAL_ERROR => INTERNAL_ERROR,
        ExitReason::FAIL_ENTRY => FAIL_ENTRY,
        ExitReason::INTR | ExitReason::UNKNOWN => STALE,
        ExitReason::IO => IO,
        ExitReason::MMIO => MMIO,
        ExitReason::HLT => HLT,
        ExitReason::X86_RDMSR | ExitReason::X86_WRMSR => MSR,
        ExitReason::RISCV_SBI => RISCV_SBI,
        reason if reason.name().is_some() => ORDINARY,
        _ => UNKNOWN,
    }
}

const HYPERCALL: About = About {
    meaning: "the guest made a hypercall that userspace answers; on x86 that is KVM_HC_MAP_GPA_RANGE (12) alone, \
              which makes pages shared or private",
    payload: "hypercall: nr u64 at 0x20, args[6] u64 from 0x28, ret u64 at 0x58, flags u64 at 0x60",
    since: "Linux 5.14 on x86, with KVM_CAP_EXIT_HYPERCALL (201) enabled",
    advice: "Check address, count and attributes, and bound the range by the guest's memory (HC-5, HC-6, HC-7). \
             Change the attributes, then discard the old backing (HC-8). Always write ret: 0, EINVAL (22) or EAGAIN \
             (11), positive (HC-2, HC-3). Refuse any other number (HC-12).",
};
const SHUTDOWN: About = About {
    meaning: "a triple fault, or what KVM makes of one",
    payload: "none: the union holds what an earlier exit left there",
    since: "the first release; for SEV-ES guests Linux 6.7, which returned EINVAL before",
    advice: "End or reset the whole VM, whichever vCPU it was (RN-4). Do not read the union. On SVM the vCPU of a \
             plain guest has been reset, so its registers do not show the fault.",
};
const SYSTEM_EVENT: About = About {
    meaning: "the guest asked for a shutdown, reset, suspend or termination, or crashed",
    payload: "system_event: type u32 at 0x20, ndata u32 at 0x24, data[16] u64 from 0x28; flags is data[0]",
    since: "Linux 3.16; ndata and data since 5.18, with KVM_CAP_SYSTEM_EVENT_DATA (215)",
    advice: "Match all 32 bits of the type (SE-1), read no more than data[..ndata] and 16 (SE-2), and without \
             capability 215 do not read ndata (SE-3). Report an unknown type and stop the VM (SE-4).",
};
const MEMORY_FAULT: About = About {
    meaning: "an access that KVM could not resolve: private where the page is shared, shared where it is private, or \
              poisoned",
    payload: "memory_fault: flags u64 at 0x20 (bit 3 = private), gpa u64 at 0x28, size u64 at 0x30",
    since: "Linux 6.8, KVM_CAP_MEMORY_FAULT_INFO (232)",
    advice: "Valid only if KVM_RUN returned -1 with EFAULT or EHWPOISON (MF-1). Never convert for EHWPOISON (MF-4), \
             refuse unknown flags (MF-2) and faults outside of every slot (MF-5), and bound repeats without progress \
             (MF-3). Converting at all is a policy (MF-7).",
};
const SNP_REQ_CERTS: About = About {
    meaning: "an SNP guest asks for the certificates that go with its attestation report",
    payload: "snp_req_certs: gpa u64 at 0x20, npages u64 at 0x28, ret u64 at 0x30",
    since: "Linux 7.0, after KVM_SEV_SNP_ENABLE_REQ_CERTS",
    advice: "Check that the buffer is shared memory of the guest (RC-1, RC-4). Write the table and ret 0, or, if the \
             buffer is too small, npages = the pages needed and ret ENOSPC (28) (RC-2). EAGAIN (11) and EIO (5) are \
             the other answers, all positive (RC-3); EIO makes a Linux guest give up its key for good.",
};
const TDX: About = About {
    meaning: "a TD made a TDG.VP.VMCALL that userspace answers",
    payload: "tdx: flags u64 at 0x20, nr u64 at 0x28, ret u64 at 0x30, the arguments from 0x38",
    since: "Linux 6.16, on TDX VMs only",
    advice: "A call that is not known is answered by entering again: KVM has put a safe answer into ret (TD-1). \
             GetQuote: check alignment, bounds and that the buffer is shared (TD-2).",
};
const NOTIFY: About = About {
    meaning: "no event window opened in the guest for longer than KVM_CAP_X86_NOTIFY_VMEXIT allows",
    payload: "notify: flags u32 at 0x20 (bit 0 = the context is invalid)",
    since: "Linux 6.0, Intel only",
    advice: "With bit 0 the vCPU must not be entered as it is: end the VM, or raise a triple fault through \
             KVM_SET_VCPU_EVENTS. Without it, enter again.",
};
const AP_RESET_HOLD: About = About {
    meaning: "an SEV-ES guest holds this processor in reset until a startup interrupt comes",
    payload: "none: the union holds what an earlier exit left there",
    since: "Linux 5.11, and only without a local APIC in the kernel",
    advice: "Hold the vCPU until the guest sends it INIT and SIPI, then enter again. Carry mp_state 9 as it is.",
};
const INTERNAL_ERROR: About = About {
    meaning: "KVM cannot go on with this vCPU",
    payload: "internal: suberror u32 at 0x20, ndata u32 at 0x24, data[16] u64 from 0x28",
    since: "the first releases; the instruction in emulation_failure since 5.15",
    advice: "Report suberror and data[..ndata] and stop the VM (RN-1). An SEV-ES guest can cause suberror 4 at will, \
             by an RDTSC request.",
};
const FAIL_ENTRY: About = About {
    meaning: "the hardware, or KVM on its behalf, refused to enter the guest",
    payload: "fail_entry: hardware_entry_failure_reason u64 at 0x20, cpu u32 at 0x28",
    since: "the first releases",
    advice: "Report the reason and stop the VM. All ones is an invalid VMCB or, for an SNP guest, a vCPU without a \
             valid VMSA: an AP creation with a bad page ends here.",
};
const STALE: About = About {
    meaning: "no exit to answer: KVM_RUN was interrupted, or failed before it wrote a reason",
    payload: "none",
    since: "the first releases",
    advice: "Look at the result of KVM_RUN: EINTR and EAGAIN are retried, and exit_reason is stale then (RN-2). 0 \
             with EFAULT is a fault without details.",
};
const IO: About = About {
    meaning: "port I/O",
    payload: "io: direction u8 at 0x20, size u8 at 0x21, port u16 at 0x22, count u32 at 0x24, data_offset u64 at 0x28",
    since: "the first releases",
    advice: "Bound count * size and data_offset by the port page before touching it; read each field once (RN-3).",
};
const MMIO: About = About {
    meaning: "an access to memory that no slot backs",
    payload: "mmio: phys_addr u64 at 0x20, data[8] at 0x28, len u32 at 0x30, is_write u8 at 0x34",
    since: "the first releases",
    advice: "Take len bytes, at most 8; for a read fill data before entering again. Read each field once (RN-3).",
};
const HLT: About = About {
    meaning: "the guest halted, with a local APIC in userspace",
    payload: "none",
    since: "the first releases",
    advice: "Wait for an interrupt, then enter again.",
};
const MSR: About = About {
    meaning: "the guest accesses a model-specific register that userspace emulates",
    payload: "msr: error u8 at 0x20, reason u32 at 0x28, index u32 at 0x2c, data u64 at 0x30",
    since: "Linux 5.10, with KVM_CAP_X86_USER_SPACE_MSR (188)",
    advice: "Fill data for a read, and error = 0; error = 1 raises #GP in the guest.",
};
const RISCV_SBI: About = About {
    meaning: "a call of the supervisor binary interface that userspace answers",
    payload: "riscv_sbi: extension_id u64 at 0x20, function_id u64 at 0x28, args[6] from 0x30, ret[2] from 0x60",
    since: "Linux 5.17, riscv64",
    advice: "Answer in ret[0] (the error) and ret[1]; KVM presets \"not supported\". System suspend comes this way.",
};
const ORDINARY: About = About {
    meaning: "not part of the confidential boundary",
    payload: "not laid out here; see the kernel's api.rst",
    since: "see the kernel's api.rst",
    advice: "A VMM that did not enable the exit reports it with its bytes and stops the VM (RN-1).",
};
const UNKNOWN: About = About {
    meaning: "no exit of Linux 7.2",
    payload: "unknown",
    since: "a newer kernel, or a patched one",
    advice: "Report the number and the 256 bytes of the union, and stop the VM: no panic, no retry, no lookup in a \
             table without bounds (RN-1). Numbers are the running kernel's, not a posting's (AB-1).",
};
const VMGEXIT_V10: About = About {
    meaning: "a VMGEXIT that userspace decodes by itself",
    payload: "vmgexit: ghcb_msr u64 at 0x20, ret u64 at 0x28",
    since: "proposal \"KVM: SEV: Add KVM_EXIT_VMGEXIT\", v10 (2023), never merged",
    advice: "Tell the forms apart by bits 11:0 of ghcb_msr, copy the descriptor once before checking it, and always \
             write ret: this kernel does not preset it.",
};
const COCO_V1: About = About {
    meaning: "a confidential guest asks for certificates",
    payload: "coco: nr u8 at 0x20 (0), gfn u64 at 0x28, npages u32 at 0x30, ret u32 at 0x34",
    since: "proposal \"KVM: Introduce KVM_EXIT_COCO exit type\", v1 (2024), never merged",
    advice: "gfn is a frame number, not an address. ret: 0, 1 with npages = the pages needed, or 0x80000000.",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_header_has_its_name_and_a_text() {
        for number in 0..44 {
            let explanation = explain(&number.to_string(), Dialect::Linux7_2).unwrap();
            assert!(explanation.title.starts_with("KVM_EXIT_"), "{number}");
            assert!(!explanation.advice.is_empty());
        }
        let by_name = explain("kvm_exit_snp_req_certs", Dialect::Linux7_2).unwrap();
        assert!(by_name.title.starts_with("KVM_EXIT_SNP_REQ_CERTS (43)"), "{}", by_name.title);
    }

    #[test]
    fn numbers_that_proposals_used_say_so_in_both_directions() {
        let title = |number: &str, dialect| explain(number, dialect).unwrap().title;
        assert!(title("40", Dialect::Linux7_2).starts_with("KVM_EXIT_TDX (40)"));
        assert!(title("40", Dialect::CocoV1).starts_with("KVM_EXIT_COCO (40)"));
        assert!(title("38", Dialect::VmgexitV10).starts_with("KVM_EXIT_MEMORY_FAULT (38)"));
        assert!(title("50", Dialect::VmgexitV10).starts_with("KVM_EXIT_VMGEXIT (50)"));
        assert!(title("50", Dialect::Linux7_2).starts_with("exit reason 50: no exit of Linux 7.2"));
        let both = explain("40", Dialect::Linux7_2).unwrap();
        assert!(both.fields.iter().any(|field| field.meaning.contains("KVM_EXIT_COCO")));
    }
}
