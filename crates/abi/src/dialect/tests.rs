use super::*;

#[test]
fn a_name_leads_back_to_its_dialect() {
    for dialect in Dialect::all() {
        assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
    }
    assert_eq!(Dialect::all().count(), 10);
    assert_eq!(Dialect::from_name("linux-9.9"), None);
    assert_eq!(Dialect::default(), Dialect::Linux7_2);
}

#[test]
fn a_feature_that_a_release_has_stays_in_the_releases_after_it() {
    let features: [fn(Dialect) -> bool; 26] = [
        Dialect::has_exit_hypercall,
        Dialect::has_system_event_data,
        Dialect::has_sev_term,
        Dialect::has_psci_reset2,
        Dialect::has_psci_off2,
        Dialect::has_arm_system_suspend,
        Dialect::has_notify_vmexit,
        Dialect::says_guest_mode,
        Dialect::leaves_l2_without_its_vmcb,
        Dialect::has_sbi_susp,
        Dialect::has_triple_fault_event,
        Dialect::has_ap_reset_hold,
        Dialect::has_private_memory,
        Dialect::clears_exit_reason,
        Dialect::counts_pending_nmis,
        Dialect::has_snp,
        Dialect::has_gmem_mmap,
        Dialect::names_gmem_overlap,
        Dialect::forbids_readonly_protected_slots,
        Dialect::checks_attribute_before_rmp,
        Dialect::has_pre_fault_memory,
        |dialect| dialect.certs_form() == CertsForm::SnpReqCerts,
        Dialect::has_tdx,
        Dialect::checks_conversion_ret,
        Dialect::reads_psc_header_once,
        Dialect::names_what_a_vmgexit_lacks,
    ];
    for (index, has) in features.iter().enumerate() {
        let mut seen = false;
        for dialect in Dialect::RELEASES {
            assert!(!seen || has(dialect), "{dialect} lost feature {index}");
            seen |= has(dialect);
        }
        assert!(seen, "feature {index}");
    }
}

#[test]
fn each_proposal_differs_from_its_release_in_what_it_proposes() {
    assert_eq!(Dialect::SevTermV4_1.system_event_form(), SystemEventForm::Queued);
    assert_eq!(Dialect::SevTermAlternative.system_event_form(), SystemEventForm::Alternative);
    assert_eq!(Dialect::ShutdownFlagV4.triple_fault_form(), TripleFaultForm::OneWay);
    assert_eq!(Dialect::VmgexitV10.conversion_form(), ConversionForm::Vmgexit);
    assert_eq!(Dialect::VmgexitV10.memory_fault_number(), 38);
    assert_eq!(Dialect::CocoV1.certs_form(), CertsForm::Coco);
    for release in Dialect::RELEASES {
        assert_eq!(release.conversion_form(), ConversionForm::MapGpaRange);
        assert_eq!(release.memory_fault_number(), 39);
    }
}
