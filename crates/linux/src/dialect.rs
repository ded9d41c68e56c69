//! Which dialect a host speaks, told by what it offers.

use exeunt_abi::Dialect;
use exeunt_abi::kvm::caps::Cap;

/// The newest dialect whose marks, and those of every dialect before it, are all there.
///
/// The marks are what every kernel of the dialect offers whatever its configuration and CPU, as far as there is such
/// a thing. Linux 7.2 has only one that is new and that a VMM can see, the attribute for certificates, which the
/// module for AMD CPUs alone has; so a host with another CPU counts as 6.12.
///
/// Source: Linux v7.2 and v6.12 `arch/x86/kvm/x86.c` and `virt/kvm/kvm_main.c`, `KVM_CHECK_EXTENSION`.
pub(crate) fn newest(has: impl Fn(Cap) -> bool, has_snp_req_certs: bool) -> Dialect {
    if !has(Cap::EXIT_HYPERCALL) {
        Dialect::Linux5_10
    } else if ![Cap::SYSTEM_EVENT_DATA, Cap::X86_TRIPLE_FAULT_EVENT].into_iter().all(&has) {
        Dialect::Linux5_17
    } else if ![Cap::USER_MEMORY2, Cap::MEMORY_FAULT_INFO, Cap::VM_TYPES].into_iter().all(&has) {
        Dialect::Linux6_1
    } else if !has_snp_req_certs {
        Dialect::Linux6_12
    } else {
        Dialect::Linux7_2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: [Cap; 6] = [
        Cap::EXIT_HYPERCALL,
        Cap::SYSTEM_EVENT_DATA,
        Cap::X86_TRIPLE_FAULT_EVENT,
        Cap::USER_MEMORY2,
        Cap::MEMORY_FAULT_INFO,
        Cap::VM_TYPES,
    ];

    #[test]
    fn a_missing_mark_leads_back_to_the_dialect_before_it() {
        use Dialect::{Linux5_10, Linux5_17, Linux6_1, Linux6_12, Linux7_2};
        let without = [Linux5_10, Linux5_17, Linux5_17, Linux6_1, Linux6_1, Linux6_1];
        for (missing, dialect) in MARKS.into_iter().zip(without) {
            assert_eq!(newest(|cap| cap != missing, true), dialect, "without {missing}");
        }
        assert_eq!(newest(|_| true, false), Linux6_12);
        assert_eq!(newest(|_| true, true), Linux7_2);
        assert_eq!(newest(|_| false, true), Linux5_10);
    }

    #[test]
    fn no_dialect_is_named_that_promises_an_event_or_exit_the_host_lacks() {
        for bits in 0u32..1 << MARKS.len() {
            let has =
                |cap| MARKS.iter().position(|mark| *mark == cap).is_some_and(|bit| bits & 1 << bit != 0);
            for certs in [false, true] {
                let dialect = newest(has, certs);
                assert!(!dialect.has_exit_hypercall() || has(Cap::EXIT_HYPERCALL), "{bits:#x}");
                assert!(!dialect.has_system_event_data() || has(Cap::SYSTEM_EVENT_DATA), "{bits:#x}");
                assert!(!dialect.has_triple_fault_event() || has(Cap::X86_TRIPLE_FAULT_EVENT), "{bits:#x}");
                assert!(!dialect.has_private_memory() || has(Cap::MEMORY_FAULT_INFO), "{bits:#x}");
                assert!(dialect.certs_form() == exeunt_abi::CertsForm::None || certs, "{bits:#x}");
            }
        }
    }
}
