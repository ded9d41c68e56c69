//! `exit-code`: `SW_EXITCODE` of a page-based request ("NAE event").

use super::explanation::{Explanation, Field};
use super::number;
use crate::Failure;
use exeunt_abi::ghcb::exit_code as code;

const SOURCE: &str = "AMD 56421 revision 2.04, table 7; Linux v7.2 arch/x86/kvm/svm/sev.c, sev_es_validate_vmgexit \
                      and sev_handle_vmgexit";

/// `exit-code 0x80000010`.
pub(super) fn explain(text: &str) -> Result<Explanation, Failure> {
    let upper = text.to_ascii_uppercase();
    let number = match code::from_name(upper.strip_prefix("SVM_VMGEXIT_").unwrap_or(&upper)) {
        Some(number) => number,
        None => number::parse(text)?,
    };
    let name = code::name(number).unwrap_or("no code that is known here");
    let About { meaning, info_1, info_2, needs, advice } = about(number);
    let who = if code::is_snp_only(number) {
        "SNP guests; others get INVALID_EVENT"
    } else {
        "SEV-ES and SNP guests"
    };
    Ok(Explanation::new("exit-code", text, format!("{name} ({number:#x}): {meaning}"))
        .with(Field::at(0x390, "sw_exit_code", format!("{number:#x}"), name))
        .with(Field::at(0x398, "sw_exit_info_1", "", info_1))
        .with(Field::at(0x3a0, "sw_exit_info_2", "", info_2))
        .with(Field::at(0x3f0, "valid_bitmap", "", format!("the three words above, and {needs}")))
        .with(Field::new("from", "", who))
        .advice(advice)
        .source(SOURCE))
}

/// What is known of a code.
pub(super) struct About {
    pub(super) meaning: &'static str,
    pub(super) info_1: &'static str,
    pub(super) info_2: &'static str,
    /// Registers that have to be valid too.
    pub(super) needs: &'static str,
    pub(super) advice: &'static str,
}

const NONE: &str = "nothing";
const BY_KVM: &str = "Nothing: KVM answers by itself, and no exit reaches the VMM.";
const REFUSED: &str = "Nothing: KVM answers MALFORMED_INPUT with INVALID_EVENT, and no exit reaches the VMM.";
const PAGES: (&str, &str) = ("address of the request page", "address of the response page, another one");

/// What a code means, and what KVM makes of it.
pub(super) fn about(number: u64) -> About {
    match number {
        code::PSC | code::GUEST_REQUEST | code::EXT_GUEST_REQUEST | code::AP_CREATION => snp(number),
        code::MMIO_READ..=code::AP_JUMP_TABLE | code::HV_FEATURES..=code::UNSUPPORTED_EVENT => {
            software(number)
        }
        0x8000_0000.. => row(unsupported(number), NONE, NONE, NONE, REFUSED),
        _ => instruction(number),
    }
}

const fn row(
    meaning: &'static str,
    info_1: &'static str,
    info_2: &'static str,
    needs: &'static str,
    advice: &'static str,
) -> About {
    About { meaning, info_1, info_2, needs, advice }
}

fn unsupported(number: u64) -> &'static str {
    match number {
        code::HV_DOORBELL_PAGE | code::HV_IPI | code::HV_TIMER => {
            "part of restricted injection, which KVM lacks"
        }
        code::APIC_ID_LIST => "the APIC ids of all vCPUs, which KVM does not hand out",
        code::SNP_RUN_VMPL => "run another privilege level, which KVM does not support",
        code::SAVIC => "the backing page of a secure AVIC, which KVM does not support",
        _ => "KVM does not know the code",
    }
}

fn snp(number: u64) -> About {
    match number {
        code::PSC => row(
            "change the state of pages, by the descriptor in the scratch area",
            "0 before and after",
            "0 before; the result after: `exeunt explain sw-exitinfo2`",
            "sw_scratch",
            "KVM makes one KVM_HC_MAP_GPA_RANGE exit of each run of entries that are alike: answer each (HC-2, HC-3). \
             A refusal ends the request with GENERIC; entries before it stay converted. Exits chain, so drain them \
             before a snapshot (HC-14).",
        ),
        code::GUEST_REQUEST => row(
            "hand a message to the firmware",
            PAGES.0,
            PAGES.1,
            NONE,
            "Nothing: KVM asks the firmware. SW_EXITINFO2 holds the firmware's code afterwards.",
        ),
        code::EXT_GUEST_REQUEST => row(
            "hand a message to the firmware, and get certificates with the answer",
            PAGES.0,
            PAGES.1,
            "for a report request rax (address of the table) and rbx (its 4 KiB pages)",
            "With KVM_SEV_SNP_ENABLE_REQ_CERTS this becomes KVM_EXIT_SNP_REQ_CERTS (43), even with 0 pages: answer by \
             RC-1 to RC-4. Without it KVM writes an empty table.",
        ),
        _ => row(
            "create or destroy an application processor",
            "bits 31:0 CREATE_ON_INIT (0), CREATE (1) or DESTROY (2); bits 63:32 the APIC id",
            "address of the VMSA",
            "rax, the SEV features, unless it is destroyed",
            "Nothing to answer, but mp_state of the other vCPU changes. With a bad VMSA that vCPU's next KVM_RUN ends \
             in KVM_EXIT_FAIL_ENTRY.",
        ),
    }
}

fn software(number: u64) -> About {
    const MMIO: &str = "KVM makes KVM_EXIT_MMIO of it, at most 8 bytes each.";
    match number {
        code::MMIO_READ => row("memory-mapped read", "the address", "the bytes", "sw_scratch", MMIO),
        code::MMIO_WRITE => row("memory-mapped write", "the address", "the bytes", "sw_scratch", MMIO),
        code::NMI_COMPLETE => row("the NMI handler is done", NONE, NONE, NONE, BY_KVM),
        code::AP_HLT_LOOP => row(
            "hold this vCPU in reset",
            NONE,
            "not 0 after a startup interrupt",
            NONE,
            "With the local APIC in the kernel nothing, and mp_state is 9 meanwhile; otherwise \
             KVM_EXIT_AP_RESET_HOLD (32).",
        ),
        code::AP_JUMP_TABLE => row(
            "store or fetch the jump table of the processors",
            "0 store, 1 fetch",
            "its address",
            NONE,
            BY_KVM,
        ),
        code::HV_FEATURES => row(
            "what the hypervisor supports",
            NONE,
            "after: the features. KVM says SNP and SNP_AP_CREATION (0x3) to every guest",
            NONE,
            BY_KVM,
        ),
        code::TERM_REQUEST => row(
            "terminate the guest",
            "reason set in bits 3:0, code in bits 11:4",
            NONE,
            NONE,
            "It comes as SYSTEM_EVENT SEV_TERM with the address of the GHCB in data[0]; KVM has zeroed the reason, \
             which is in the host's kernel log only. Report it and stop the VM (SE-4, SE-5).",
        ),
        _ => row(
            "the guest met a #VC that it does not know",
            "the exit code that it met",
            NONE,
            NONE,
            "KVM fails KVM_RUN with EINVAL: stop the VM. The host's kernel log has the code.",
        ),
    }
}

fn instruction(number: u64) -> About {
    const AS_SVM: &str = "as the SVM exit has it";
    const HANDLED: &str = "KVM handles it as for a plain guest; the usual exit follows where there is one.";
    match number {
        code::READ_DR7 => row("MOV from DR7", AS_SVM, AS_SVM, NONE, BY_KVM),
        code::WRITE_DR7 => row("MOV to DR7", AS_SVM, AS_SVM, "rax", BY_KVM),
        code::RDTSC => row(
            "RDTSC",
            AS_SVM,
            AS_SVM,
            NONE,
            "KVM has no handler: KVM_EXIT_INTERNAL_ERROR with suberror 4 and 0x6e in data[0]. Any SEV-ES guest can \
             cause it, so stop that VM and no other.",
        ),
        code::RDPMC => row("RDPMC", AS_SVM, AS_SVM, "rcx", BY_KVM),
        code::CPUID => row("CPUID", AS_SVM, AS_SVM, "rax and rcx, for leaf 0xd xcr0", BY_KVM),
        code::INVD => row("INVD", AS_SVM, AS_SVM, NONE, BY_KVM),
        code::IOIO => row(
            "port I/O",
            "as the SVM exit has it: bit 0 in, bit 2 string, bits 6:4 size, bits 31:16 port",
            "for string I/O the number of elements",
            "sw_scratch for string I/O, else rax for OUT",
            "KVM_EXIT_IO follows.",
        ),
        code::MSR => {
            row("RDMSR or WRMSR", "0 read, 1 write", NONE, "rcx, and rax and rdx for a write", HANDLED)
        }
        code::VMMCALL => row(
            "VMMCALL: a hypercall",
            AS_SVM,
            AS_SVM,
            "rax and cpl",
            "KVM_HC_MAP_GPA_RANGE becomes KVM_EXIT_HYPERCALL if it is enabled: answer by HC-2 to HC-7.",
        ),
        code::RDTSCP => row("RDTSCP", AS_SVM, AS_SVM, NONE, "Nothing: KVM raises #UD."),
        code::WBINVD => row("WBINVD", AS_SVM, AS_SVM, NONE, BY_KVM),
        code::MONITOR => row("MONITOR", AS_SVM, AS_SVM, "rax, rcx and rdx", BY_KVM),
        code::MWAIT => row("MWAIT", AS_SVM, AS_SVM, "rax and rcx", BY_KVM),
        _ => row("KVM does not know the code", NONE, NONE, NONE, REFUSED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_code_has_a_text_and_the_others_are_refused() {
        for (number, name) in code::ALL {
            let explanation = explain(&format!("{number:#x}")).unwrap();
            assert!(explanation.title.starts_with(name));
            assert!(!explanation.title.ends_with("does not know the code"), "{name}");
        }
        for number in [0, 0x8000_0006, 0x8000_0019, 0x8000_001b, u64::MAX] {
            assert_eq!(about(number).advice, REFUSED, "{number:#x}");
        }
        assert!(explain("SVM_VMGEXIT_PSC").unwrap().title.starts_with("PSC (0x80000010)"));
    }
}
