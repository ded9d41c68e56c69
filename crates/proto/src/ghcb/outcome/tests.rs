extern crate std;
use super::*;
use std::string::ToString;

#[test]
fn every_code_and_every_first_word_has_an_outcome_that_prints() {
    let codes = exit_code::ALL.iter().map(|(code, _)| *code).chain([0, 0x8000_0019, u64::MAX]);
    for code in codes {
        for info_1 in 0..6 {
            for info_2 in [0, 1, 6, 7, 1 << 32, 0x1_0000_0001, 0x100 << 32, u64::MAX] {
                let outcome = Outcome::decode(code, info_1, info_2);
                assert!(!outcome.to_string().is_empty());
                assert_eq!(matches!(outcome, Outcome::Malformed(_)), info_1 == 2);
                assert_eq!(matches!(outcome, Outcome::Exception(_)), info_1 == 1);
                assert_eq!(matches!(outcome, Outcome::Unknown { .. }), info_1 > 2);
            }
        }
    }
}

#[test]
fn the_second_word_means_what_the_exit_code_makes_of_it() {
    let generic = 0x100 << 32;
    assert_eq!(Outcome::decode(exit_code::PSC, 0, generic), Outcome::Psc(PscResult::Generic));
    let busy = GuestRequestResult { vmm: 2, firmware: 0 };
    assert_eq!(Outcome::decode(exit_code::EXT_GUEST_REQUEST, 0, 2 << 32), Outcome::GuestRequest(busy));
    assert_eq!(Outcome::decode(exit_code::HV_FEATURES, 0, 3), Outcome::Value(3));
    assert_eq!(Outcome::decode(exit_code::CPUID, 0, 0), Outcome::Success);
    assert_eq!(Outcome::decode(exit_code::CPUID, 7 << 32, 0), Outcome::Success, "the low half counts");
}

#[test]
fn a_number_of_a_page_state_change_comes_back() {
    for number in (0..0x200).chain((0..0x200).map(|high| high << 32)).chain([1 << 32 | 1, 1 << 32 | 2]) {
        assert_eq!(PscResult::from_number(number).number(), number);
    }
}

#[test]
fn every_malformed_code_of_the_table_is_explained_by_its_name() {
    for code in 0..64 {
        let text = Malformed(code).to_string();
        match malformed::name(code) {
            Some(name) => assert!(text.contains(name), "{text}"),
            None => assert!(text.contains("unknown"), "{text}"),
        }
    }
}

#[test]
fn linux_takes_a_valid_ud_or_gp_and_nothing_else() {
    for vector in 0..=255_u64 {
        for kind in 0..8_u64 {
            for flags in [0, event_injection::VALID, event_injection::ERROR_CODE_VALID] {
                let exception = Exception(vector | kind << 8 | flags);
                let expected = flags == event_injection::VALID && kind == 3 && [6, 13].contains(&vector);
                assert_eq!(exception.is_taken_by_linux(), expected, "{exception}");
            }
        }
    }
    let gp = Exception(0x5_8000_0b0d);
    assert_eq!((gp.vector(), gp.error_code(), gp.is_taken_by_linux()), (13, Some(5), true));
    assert_eq!(gp.to_string(), "raise #GP with error code 0x5");
}

#[test]
fn both_halves_of_a_guest_request_are_named() {
    let cases = [
        (0, "guest request: done"),
        (1 << 32, "guest request: hypervisor INVALID_LEN (0x1)"),
        (0x16, "guest request: firmware INVALID_PARAM (0x16)"),
        (0xffff_ffff_0000_0000, "guest request: hypervisor GENERIC (0xffffffff)"),
        (0x7_0000_0999, "guest request: hypervisor error 0x7 firmware error 0x999"),
    ];
    for (number, text) in cases {
        let result = GuestRequestResult::from_number(number);
        assert_eq!((result.to_string().as_str(), result.number()), (text, number));
    }
}
