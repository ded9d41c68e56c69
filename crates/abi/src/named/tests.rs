/// Walks a range of numbers, and the named ones outside of it: a name leads back to its number, and nothing else has
/// a name.
macro_rules! walk {
    ($($($path:ident)::+ in $range:expr;)*) => {$({
        use crate::$($path)::+ as table;
        for (number, text) in table::ALL {
            assert_eq!(table::name(*number), Some(*text), "{}", stringify!($($path)::+));
            assert_eq!(table::from_name(text), Some(*number), "{text}");
        }
        for number in $range {
            let listed = table::ALL.iter().find(|(known, _)| *known == number).map(|(_, text)| *text);
            assert_eq!(table::name(number), listed, "{number:#x} of {}", stringify!($($path)::+));
        }
        assert_eq!(table::from_name("no such name"), None);
    })*};
}

#[test]
fn every_name_leads_back_to_its_number_and_no_other_number_has_one() {
    walk! {
        kvm::run::event_type in 0..0x1000;
        kvm::run::suberror in 0..0x1000;
        kvm::run::msr_exit_reason in 0..0x1000;
        kvm::device_attr::sev_attr in 0..0x1000;
        kvm::mp_state in 0..0x1000;
        kvm::sev::id in 0..0x1000;
        kvm::sev::firmware in 0..0x1000;
        kvm::sev::platform::command in 0..0x1000;
        kvm::sev::snp::policy in (0..64).map(|bit| 1 << bit);
        kvm::sev::snp::page_type in 0..=u8::MAX;
        kvm::tdx::id in 0..0x1000;
        ghcb::exit_code in (0..0x500).chain(0x8000_0000..0x8001_0000);
        ghcb::exit_code::ap_creation in 0..0x1000;
        ghcb::features in (0..64).map(|bit| 1 << bit);
        ghcb::msr in 0..0x1000;
        ghcb::guest_message::msg_type in 0..=u8::MAX;
        ghcb::guest_message::algo in 0..=u8::MAX;
        ghcb::guest_message::vmm_error in (0..0x1000).map(|code| code << 32);
        ghcb::page::exit_info_1 in 0..0x1000;
        ghcb::page::malformed in 0..0x1000;
        ghcb::psc::operation in 0..=u8::MAX;
        ghcb::psc::result in (0..0x1000).chain((0..0x1000).map(|high| high << 32));
        ghci::leaf in (0..0x100).chain(0x10000..0x10100);
        ghci::quote_status in (0..0x100).chain((0..0x100).map(|low| 1 << 63 | low));
        msr_index in (0..0x1000).chain(0x4b56_4d00..0x4b56_4e00).chain(0xc000_0000..0xc001_2000);
        psci::function in (0x8400_0000..0x8400_0100).chain(0xc400_0000..0xc400_0100);
        psci::return_code in -0x100..0x100;
        sbi::extension in 0..0x1000;
        sbi::reset_type in 0..0x1000;
        sbi::reset_reason in 0..0x1000;
        sbi::error in -0x100..0x100;
        report::signing_key in 0..0x1000;
        report::signature_algo in 0..0x1000;
        report::platform_info in (0..64).map(|bit| 1 << bit);
        rmp::bits in (0..64).map(|bit| 1 << bit);
        rmp::npf in (0..64).map(|bit| 1 << bit);
        vmsa::sev_features in (0..64).map(|bit| 1 << bit);
    }
}
