//! Decoders take any bytes: they answer or refuse, and never panic.

use exeunt_abi::kvm::run::{ExitReason, RunPage, UNION_BYTES};
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_proto::certs::Table;
use exeunt_proto::conversion::map_gpa_range;
use exeunt_proto::exit::{Exit, decode, encode};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::termination::SevTermination;
use proptest::prelude::*;

fn any_kernel() -> impl Strategy<Value = Kernel> {
    let arch = prop_oneof![Just(Arch::X86), Just(Arch::Arm64), Just(Arch::Riscv64)];
    (0..10usize, arch).prop_map(|(index, arch)| Kernel { dialect: Dialect::all().nth(index).unwrap(), arch })
}

fn any_page() -> impl Strategy<Value = RunPage> {
    let reason = prop_oneof![4 => 0u32..50, 1 => any::<u32>()];
    // Small bytes make lengths and counts that are nearly right.
    let byte = prop_oneof![3 => 0u8..9, 1 => any::<u8>()];
    (reason, prop::collection::vec(byte, UNION_BYTES)).prop_map(|(reason, bytes)| {
        let mut page = RunPage::zeroed();
        page.exit_reason = reason;
        page.set_bytes(0, &bytes);
        page
    })
}

fn any_entered() -> impl Strategy<Value = Result<(), Errno>> {
    prop_oneof![3 => Just(Ok(())), 1 => (1..200i32).prop_map(|number| Err(Errno(number)))]
}

proptest! {
    #[test]
    fn any_page_decodes_or_is_refused(entered in any_entered(), page in any_page(), kernel in any_kernel()) {
        if let Ok(exit) = decode(entered, &page, kernel) {
            // What was understood survives the way back, on a page full of other bytes.
            let mut again = RunPage::zeroed();
            again.exit = [0x5a; UNION_BYTES];
            let entered = encode(&exit, kernel, &mut again);
            prop_assert_eq!(decode(entered, &again, kernel), Ok(exit));
        }
    }

    #[test]
    fn an_unknown_reason_keeps_its_number_and_its_bytes(number in 44u32.., bytes in any::<[u8; 32]>()) {
        let mut page = RunPage::zeroed();
        page.exit_reason = number;
        page.set_bytes(100, &bytes);
        match decode(Ok(()), &page, Kernel::default()) {
            Ok(Exit::Other(other)) => {
                prop_assert_eq!(other.reason, ExitReason(number));
                prop_assert_eq!(other.bytes, page.exit);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_bytes_are_a_certificate_table_or_not(bytes in prop::collection::vec(0u8..80, 0..400)) {
        if let Ok(table) = Table::parse(&bytes) {
            for certificate in table.certificates() {
                prop_assert!(certificate.bytes.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_conversion_that_is_accepted_ends_below_2_to_the_64(args in any::<[u64; 3]>(), aligned in any::<bool>()) {
        let [gpa, pages, attributes] = args;
        let args = if aligned { [gpa & !0xfff, pages >> 13, attributes & 0x1f] } else { args };
        if let Ok(conversion) = map_gpa_range(args) {
            let range = conversion.range;
            prop_assert!(range.pages() > 0 && range.gpa().0.checked_add(range.bytes()).is_some());
        }
    }

    #[test]
    fn any_ghcb_msr_has_a_meaning_and_a_termination_a_text(value in any::<u64>()) {
        let _ = MsrRequest::decode(value);
        prop_assert!(!SevTermination::from_msr(value).to_string().is_empty());
    }
}
