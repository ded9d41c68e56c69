//! `cap`: capability numbers.

use super::explanation::{Explanation, Field};
use super::{input, number};
use crate::Failure;
use exeunt_abi::kvm::caps::Cap;

const SOURCE: &str =
    "Linux v7.2 include/uapi/linux/kvm.h, KVM_CAP_*, and Documentation/virt/kvm/api.rst, sections 6 to 8";

/// `cap 215`, `cap KVM_CAP_SYSTEM_EVENT_DATA`.
pub(super) fn explain(text: &str) -> Result<Explanation, Failure> {
    let cap = match from_name(text) {
        Some(cap) => cap,
        None if text.contains('_') => {
            return Err(format!("no capability of the boundary is called '{}'", input::shorten(text)));
        }
        None => Cap(number::parse_u32(text, "a capability")?),
    };
    let (meaning, advice) = about(cap);
    let name = name(cap).unwrap_or_else(|| "a capability".into());
    Ok(Explanation::new("cap", text, format!("{name} ({}): {meaning}", cap.0))
        .with(Field::new("capability", cap.0.to_string(), name))
        .advice(advice)
        .source(SOURCE))
}

/// The name in the header.
pub(super) fn name(cap: Cap) -> Option<String> {
    Some(format!("KVM_CAP_{}", cap.name()?.to_ascii_uppercase().replace('-', "_")))
}

/// A capability by the name in the header, or by its short name.
pub(super) fn from_name(text: &str) -> Option<Cap> {
    let lower = text.to_ascii_lowercase();
    Cap::from_name(&lower.strip_prefix("kvm_cap_").unwrap_or(&lower).replace('_', "-"))
}

/// Whether a capability is about the confidential boundary. Others have a name only.
pub(super) fn is_of_boundary(cap: Cap) -> bool {
    events(cap).or_else(|| memory(cap)).is_some()
}

fn about(cap: Cap) -> (&'static str, &'static str) {
    events(cap).or_else(|| memory(cap)).unwrap_or((
        "not part of the confidential boundary",
        "See the kernel's api.rst. Numbers are the running kernel's, not a posting's (AB-1).",
    ))
}

const ASK_FIRST: &str = "Ask with KVM_CHECK_EXTENSION before the field or the call is used (AB-3).";

fn events(cap: Cap) -> Option<(&'static str, &'static str)> {
    Some(match cap {
        Cap::IMMEDIATE_EXIT => (
            "kvm_run.immediate_exit is honoured",
            "Needed to hand an answer over without running the guest, as a snapshot does (HC-14) and a lock on \
             certificates (RC-5).",
        ),
        Cap::EXCEPTION_PAYLOAD => (
            "the vCPU events carry pending exceptions with their payload",
            "Enable it on both sides of a migration, or on neither; the PAYLOAD flag without it is EINVAL (TF-5).",
        ),
        Cap::X86_USER_SPACE_MSR => ("chosen accesses to model-specific registers exit", ASK_FIRST),
        Cap::X86_MSR_FILTER => ("KVM_X86_SET_MSR_FILTER is there", ASK_FIRST),
        Cap::EXIT_HYPERCALL => (
            "chosen hypercalls exit; the argument is a mask of their numbers",
            "Enable 1 << 12 (KVM_HC_MAP_GPA_RANGE) and no other bit, whatever is offered (HC-1). Without it an SNP \
             guest's page-state changes fail with GENERIC.",
        ),
        Cap::EXIT_ON_EMULATION_FAILURE => {
            ("every failure of the emulator exits, in user code of the guest too", ASK_FIRST)
        }
        Cap::SYSTEM_EVENT_DATA => (
            "system_event.ndata and data are valid. Linux 5.18",
            "Without it the bytes of ndata are garbage: read only the word at 0x28, and only on arm64 and riscv64 \
             (SE-3). It is asked for, not enabled.",
        ),
        Cap::ARM_SYSTEM_SUSPEND => (
            "PSCI SYSTEM_SUSPEND exits to userspace. Linux 5.19, arm64",
            "Enable it only if the VMM can suspend: it then gets SYSTEM_EVENT SUSPEND (5).",
        ),
        Cap::X86_TRIPLE_FAULT_EVENT => (
            "the vCPU events carry a pending triple fault. Linux 6.0",
            "Enable it before saving or restoring events: without it a pending triple fault is lost on the way (TF-1, \
             TF-2), and the flag is EINVAL (TF-5).",
        ),
        Cap::X86_NOTIFY_VMEXIT => (
            "notify VM exits can be enabled. Linux 6.0, Intel",
            "The argument has flags in bits 31:0 and the window in bits 63:32; before the first vCPU.",
        ),
        _ => return None,
    })
}

fn memory(cap: Cap) -> Option<(&'static str, &'static str)> {
    Some(match cap {
        Cap::VM_COPY_ENC_CONTEXT_FROM => ("a VM can share the keys of another SEV VM", ASK_FIRST),
        Cap::VM_MOVE_ENC_CONTEXT_FROM => ("a VM can take over the keys of another SEV VM", ASK_FIRST),
        Cap::SYS_ATTRIBUTES => (
            "KVM_GET_DEVICE_ATTR works on /dev/kvm",
            "Group 1 has what SEV supports: attribute 2 says whether certificate requests can be enabled (RC-8).",
        ),
        Cap::USER_MEMORY2 => ("KVM_SET_USER_MEMORY_REGION2 is there. Linux 6.8", ASK_FIRST),
        Cap::MEMORY_FAULT_INFO => (
            "KVM_EXIT_MEMORY_FAULT fills memory_fault. Linux 6.8",
            "Still look at result and exit_reason together: EFAULT alone is not enough (MF-1).",
        ),
        Cap::MEMORY_ATTRIBUTES => (
            "KVM_SET_MEMORY_ATTRIBUTES; the value is the mask of attributes. Linux 6.8",
            "Ask the VM, not /dev/kvm: only VM types with private memory have PRIVATE (8).",
        ),
        Cap::GUEST_MEMFD => ("KVM_CREATE_GUEST_MEMFD is there. Linux 6.8", "Ask the VM, not /dev/kvm."),
        Cap::VM_TYPES => (
            "the mask of types that KVM_CREATE_VM takes. Linux 6.8",
            "Bit 2 SEV, 3 SEV-ES, 4 SNP, 5 TDX, 1 the software one for tests.",
        ),
        Cap::PRE_FAULT_MEMORY => (
            "KVM_PRE_FAULT_MEMORY is there. Linux 6.11",
            "EOPNOTSUPP before the launch of a confidential guest is finished.",
        ),
        Cap::X86_APIC_BUS_CYCLES_NS => (
            "the tick of the APIC's bus can be chosen",
            "A proposal of 2024 called this number KVM_CAP_EXIT_COCO (v1): on a kernel that shipped it does not mean \
             certificates (AB-1).",
        ),
        Cap::ARM_WRITABLE_IMP_ID_REGS => (
            "the guest's implementation registers can be written, arm64",
            "A proposal of 2024 called this number KVM_CAP_EXIT_COCO (v2): on a kernel that shipped it does not mean \
             certificates (AB-1).",
        ),
        Cap::GUEST_MEMFD_FLAGS => ("the flags that KVM_CREATE_GUEST_MEMFD takes. Linux 6.18", ASK_FIRST),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_capability_and_those_of_the_boundary_have_texts() {
        let mut texts = 0;
        for number in 0..300 {
            let cap = Cap(number);
            texts += u32::from(is_of_boundary(cap));
            assert!(!is_of_boundary(cap) || cap.name().is_some(), "{cap}");
            if let Some(name) = name(cap) {
                assert_eq!(from_name(&name), Some(cap));
            }
        }
        assert_eq!(texts, 22);
        assert!(explain("KVM_CAP_IRQCHIP").unwrap().title.ends_with("not part of the confidential boundary"));
        assert!(explain("215").unwrap().title.starts_with("KVM_CAP_SYSTEM_EVENT_DATA (215)"));
        assert!(explain("KVM_CAP_NO_SUCH").unwrap_err().contains("no capability"));
    }
}
