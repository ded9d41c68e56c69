use super::*;
use crate::identity::{ChipId, Product};
use crate::testing::data::*;
use crate::testing::table_of;
use exeunt::certs::CheckedTable;
use exeunt_proto::certs::{self as table, Table};
use exeunt_proto::report::{SigningKey, TcbVersion};
use std::time::{Duration, SystemTime};

const LENIENT: Verifier<'_> = Verifier { root: Root::Any, allow_simulated: true, at: None };

fn chain_of(certificates: &[&[u8]]) -> Chain {
    Chain::all_of(&table_of(certificates)).unwrap().remove(0)
}

fn parsed(der: &[u8]) -> Certificate {
    Certificate::from_der(der).unwrap()
}

fn pem(der: &[u8]) -> String {
    crate::testing::pem(&[der])
}

#[test]
fn each_certificate_is_known_by_what_it_says() {
    let roles = [
        (MILAN_ARK, Role::Ark),
        (MILAN_ASK, Role::Ask),
        (MILAN_ASVK, Role::Asvk),
        (MILAN_VCEK, Role::Vcek),
        (MILAN_VLEK, Role::Vlek),
        (TURIN_VCEK, Role::Vcek),
    ];
    for (der, role) in roles {
        let certificate = parsed(der);
        assert_eq!(certificate.role(), role);
        assert!(certificate.is_simulated(), "{role}");
        assert_eq!(certificate.validity_text(), ["2020-01-01T00:00:00Z", "2049-01-01T00:00:00Z"]);
    }
    let milan = parsed(MILAN_VCEK).endorsement().unwrap().clone();
    let tcb = TcbVersion { fmc: None, boot_loader: 3, tee: 0, snp: 20, microcode: 209 };
    assert_eq!((milan.product(), milan.tcb, milan.csp), (Some(Product::Milan), tcb, None));
    assert_eq!(milan.chip.unwrap().as_bytes().len(), ChipId::BYTES);
    let turin = parsed(TURIN_VCEK).endorsement().unwrap().clone();
    let tcb = TcbVersion { fmc: Some(1), boot_loader: 1, tee: 1, snp: 4, microcode: 72 };
    assert_eq!((turin.product(), turin.tcb), (Some(Product::Turin), tcb));
    assert_eq!(turin.chip.unwrap().as_bytes().len(), ChipId::TURIN_BYTES);
    let vlek = parsed(MILAN_VLEK).endorsement().unwrap().clone();
    assert!(vlek.chip.is_none() && vlek.csp.unwrap().starts_with(SIMULATED));
}

#[test]
fn names_that_would_write_more_than_a_name_to_a_terminal_have_no_meaning() {
    for (der, last, name) in [(MILAN_VCEK, &b"Milan"[..], "productName"), (MILAN_VLEK, b"SIMULATED", "cspID")]
    {
        let at = der.windows(last.len()).rposition(|window| window == last).unwrap();
        for letter in [b'\n', 0x1b, 0x7f] {
            let mut changed = der.to_vec();
            changed[at + 1] = letter;
            let error = Certificate::from_der(&changed).unwrap_err();
            assert!(
                matches!(error, CertificateError::Extension { name: found, .. } if found == name),
                "{error}"
            );
        }
    }
}

#[test]
fn no_truncation_and_no_garbage_is_a_certificate() {
    for length in 0..MILAN_VCEK.len() {
        assert!(Certificate::from_der(&MILAN_VCEK[..length]).is_err(), "{length}");
    }
    assert!(Certificate::from_der(&[MILAN_VCEK, &[0]].concat()).is_err(), "a byte too many");
    assert!(matches!(Certificate::from_der(&[0x30; 4096]), Err(CertificateError::Der { .. })));
}

#[test]
fn a_table_that_names_the_same_bytes_often_is_refused_before_they_are_parsed_as_often() {
    let of = |role: Role, bytes| table::Certificate { guid: role.guid(), bytes };
    let chains = |veks: usize| {
        let above = [of(Role::Ask, MILAN_ASK), of(Role::Ark, MILAN_ARK)];
        let certificates = [&above[..], &vec![of(Role::Vcek, MILAN_VCEK); veks]].concat();
        Chain::all_of(&CheckedTable::build(&certificates).unwrap()).map(|chains| chains.len())
    };
    assert_eq!(chains(14), Ok(14));
    for veks in [15, 500] {
        assert_eq!(chains(veks), Err(ChainError::TooMany));
    }
}

#[test]
fn a_chain_verifies_up_to_a_root_that_is_trusted_and_to_no_other() {
    for certificates in [MILAN, TURIN, VLEK] {
        let chain = chain_of(&certificates);
        let [vek, _, ark] = certificates;
        let trusted = [Root::Any, Root::Certificate(ark), Root::Fingerprint(parsed(ark).fingerprint())];
        for root in trusted {
            let verified = Verifier { root, ..LENIENT }.verify(&chain).unwrap();
            assert_eq!(Some(&verified.endorsement), parsed(vek).endorsement());
            assert_eq!(verified.root, parsed(ark).fingerprint());
        }
        for root in [Root::Certificate(MILAN_ASK), Root::Fingerprint([0; 32])] {
            let refused = Verifier { root, ..LENIENT }.verify(&chain);
            assert_eq!(refused, Err(ChainError::Root { fingerprint: parsed(ark).fingerprint() }));
        }
    }
}

#[test]
fn simulated_certificates_are_refused_unless_the_caller_takes_them() {
    let strict = Verifier { allow_simulated: false, ..LENIENT };
    let chain = chain_of(&MILAN);
    assert_eq!(strict.verify(&chain), Err(ChainError::Simulated { role: Role::Ark }));
}

/// Where a byte of a certificate is covered by its signature, or is the signature.
#[test]
fn a_change_of_any_byte_of_any_certificate_is_found() {
    for (index, role) in [(0, Role::Vcek), (1, Role::Ask), (2, Role::Ark)] {
        let mut found = 0;
        // Verifying takes a millisecond; every third byte walks through all fields.
        for at in (0..MILAN[index].len()).step_by(3) {
            let mut changed = MILAN.map(<[u8]>::to_vec);
            changed[index][at] ^= 1;
            let certificates: Result<Vec<_>, _> =
                changed.iter().map(|der| Certificate::from_der(der)).collect();
            let Ok(certificates) = certificates else { continue };
            let Ok(chains) = Chain::all_from(&certificates) else { continue };
            assert!(LENIENT.verify(&chains[0]).is_err(), "byte {at} of the {role}");
            found += 1;
        }
        assert!(found > 150, "{found} of the {role} parse");
    }
}

#[test]
fn a_certificate_of_another_chain_is_not_signed_by_this_one() {
    let chain = Chain { vek: parsed(TURIN_VCEK), ..chain_of(&MILAN) };
    assert_eq!(LENIENT.verify(&chain), Err(ChainError::Signature { role: Role::Vcek }));
    let chain = Chain { root: parsed(TURIN_ARK), ..chain_of(&MILAN) };
    assert_eq!(LENIENT.verify(&chain), Err(ChainError::Signature { role: Role::Ask }));
    let chain = Chain { signer: parsed(MILAN_VCEK), ..chain_of(&MILAN) };
    assert_eq!(
        LENIENT.verify(&chain),
        Err(ChainError::Signature { role: Role::Vcek }),
        "no root signed it as an ASK"
    );
    let chain = Chain { signer: parsed(MILAN_ASVK), ..chain_of(&MILAN) };
    assert_eq!(LENIENT.verify(&chain), Err(ChainError::Signature { role: Role::Vcek }));
}

#[test]
fn dates_fail_a_chain_only_for_a_caller_who_has_a_time() {
    let chain = chain_of(&MILAN);
    let year = Duration::from_secs(365 * 24 * 3600);
    let at = |years| Some(SystemTime::UNIX_EPOCH + year * years);
    assert!(Verifier { at: at(56), ..LENIENT }.verify(&chain).is_ok());
    for years in [49, 80] {
        let refused = Verifier { at: at(years), ..LENIENT }.verify(&chain);
        let (from, to) = ("2020-01-01T00:00:00Z".into(), "2049-01-01T00:00:00Z".into());
        assert_eq!(refused, Err(ChainError::Date { role: Role::Ark, from, to }), "year {years}");
    }
}

#[test]
fn a_report_holds_with_its_chain_and_with_no_other() {
    let cases = [(MILAN, MILAN_REPORT), (TURIN, TURIN_REPORT), (VLEK, MILAN_VLEK_REPORT)];
    for (index, (certificates, _)) in cases.iter().enumerate() {
        for (other, (_, report)) in cases.iter().enumerate() {
            let result = chain_of(certificates).check_report(&parse_report(report).unwrap());
            assert_eq!(result.is_ok(), index == other, "chain {index}, report {other}: {result:?}");
        }
    }
}

#[test]
fn each_thing_that_is_wrong_with_a_report_has_its_error() {
    let chain = chain_of(&MILAN);
    let check = |at: usize, bits: u8| {
        let mut report = MILAN_REPORT.to_vec();
        report[at] ^= bits;
        chain.check_report(&parse_report(&report).unwrap()).unwrap_err()
    };
    assert!(matches!(check(0x1a0, 1), ChainError::Chip { .. }), "chip_id");
    assert!(matches!(check(0x180, 1), ChainError::Tcb { .. }), "reported_tcb");
    for at in [0x38, 0x50, 0x90, 0x1e0, 0x2a0] {
        assert_eq!(check(at, 1), ChainError::ReportSignature { role: Role::Vcek }, "{at:#x}");
    }
    let said = SigningKey::Vlek;
    assert_eq!(check(0x48, 4), ChainError::SigningKey { said, role: Role::Vcek });
    let mut report = MILAN_REPORT.to_vec();
    report[0] = 9;
    assert_eq!(parse_report(&report).map(|_| ()), Err(ChainError::ReportVersion { version: 9 }));
    assert!(matches!(parse_report(&MILAN_REPORT[..1183]), Err(ChainError::Report(_))));
}

#[test]
fn a_report_of_before_an_update_does_not_hold_with_the_certificate_of_after() {
    let chain = chain_of(&MILAN_NEXT);
    let verified = LENIENT.verify(&chain).unwrap();
    let result = chain.check_report(&parse_report(MILAN_REPORT).unwrap());
    let reported = TcbVersion { fmc: None, boot_loader: 3, tee: 0, snp: 20, microcode: 209 };
    assert_eq!(result, Err(ChainError::Tcb { certified: verified.endorsement.tcb, reported }));
}

#[test]
fn the_response_of_the_firmware_is_as_good_as_the_report_in_it() {
    let mut response = vec![0; 32];
    response[4..8].copy_from_slice(&1184u32.to_le_bytes());
    response.extend_from_slice(MILAN_REPORT);
    assert_eq!(parse_report(&response), parse_report(MILAN_REPORT));
}

#[test]
fn the_tcb_of_the_platform_is_compared_part_by_part() {
    let verified = LENIENT.verify(&chain_of(&MILAN)).unwrap();
    let tcb = verified.endorsement.tcb;
    assert_eq!(verified.check_tcb(tcb), Ok(()));
    let others = [
        TcbVersion { boot_loader: 4, ..tcb },
        TcbVersion { tee: 4, ..tcb },
        TcbVersion { snp: 4, ..tcb },
        TcbVersion { microcode: 4, ..tcb },
        TcbVersion { fmc: Some(0), ..tcb },
    ];
    for reported in others {
        assert_eq!(verified.check_tcb(reported), Err(ChainError::Tcb { certified: tcb, reported }));
    }
}

#[test]
fn a_bundle_takes_any_order_and_form_and_builds_the_same_table() {
    let expected = table_of(&MILAN);
    let kinds: Vec<_> =
        Table::parse(expected.as_bytes()).unwrap().certificates().map(|one| one.guid).collect();
    assert_eq!(kinds, [table::VCEK, table::ASK, table::ARK]);
    assert_eq!(table_of(&[MILAN_ARK, MILAN_VCEK, MILAN_ASK, MILAN_ARK]), expected);
    let mut bundle = Bundle::default();
    let text = format!("a comment\n{}\n\n{}trailing", pem(MILAN_ASK), pem(MILAN_ARK).replace('\n', "\r\n"));
    assert!(bundle.add(text.as_bytes()).is_err(), "PEM starts with its first line");
    let text = format!("\n{}\n\n{}trailing", pem(MILAN_ASK), pem(MILAN_ARK).replace('\n', "\r\n"));
    bundle.add(text.as_bytes()).unwrap();
    bundle.add(MILAN_VCEK).unwrap();
    assert_eq!(bundle.table().unwrap(), expected);
}

#[test]
fn a_bundle_refuses_what_is_twice_or_nothing() {
    let mut bundle = Bundle::default();
    bundle.add(MILAN_VCEK).unwrap();
    assert_eq!(bundle.add(TURIN_VCEK), Err(BundleError::Twice { role: Role::Vcek }));
    let algorithm = [&[0x30, 11, 6, 9][..], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]].concat();
    let list = |signature| {
        let inside = [&[2, 1, 1][..], &algorithm, &[0x30, 0, 0x17, 13], b"200101000000Z"].concat();
        [&[0x30, 52, 0x30, 33][..], &inside, &algorithm, &[3, 2, 0, signature]].concat()
    };
    bundle.add(&list(1)).unwrap();
    bundle.add(&list(1)).unwrap();
    assert_eq!(bundle.add(&list(2)), Err(BundleError::TwoLists));
    let found: Vec<_> = [bundle.table().unwrap()]
        .iter()
        .flat_map(|one| Table::parse(one.as_bytes()).unwrap().certificates().map(|one| one.bytes.to_vec()))
        .collect();
    assert_eq!(found, [MILAN_VCEK.to_vec(), list(1)], "neither list takes the place of the other");
    let private = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    let cut = &pem(MILAN_ASK)[..900];
    for text in [private, cut, "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(bundle.add(text.as_bytes()), Err(BundleError::Pem { .. })), "{text}");
    }
    assert!(matches!(bundle.add(b"garbage"), Err(BundleError::Certificate(_))));
    assert_eq!(bundle.certificates().len(), 1, "what was refused is not in it");
}

#[test]
fn a_table_whose_entries_are_not_what_they_are_called_is_refused() {
    let entry = |guid, bytes| table::Certificate { guid, bytes };
    let chains = |entries: &[table::Certificate<'_>]| {
        Chain::all_of(&CheckedTable::build(entries).unwrap()).map(|chains| chains.len())
    };
    let [vcek, ask, ark] = [(table::VCEK, MILAN_VCEK), (table::ASK, MILAN_ASK), (table::ARK, MILAN_ARK)]
        .map(|(a, b)| entry(a, b));
    assert_eq!(chains(&[vcek, ask, ark]), Ok(1));
    let misplaced = entry(table::VLEK, MILAN_VCEK);
    let error = ChainError::Misplaced { guid: table::VLEK, role: Role::Vcek };
    assert_eq!(chains(&[misplaced, ask, ark]), Err(error));
    assert_eq!(chains(&[vcek, ark]), Err(ChainError::Missing { role: Role::Ask }));
    assert_eq!(chains(&[vcek, ask]), Err(ChainError::Missing { role: Role::Ark }));
    assert_eq!(chains(&[ask, ark]), Err(ChainError::Missing { role: Role::Vcek }));
    assert_eq!(chains(&[]), Err(ChainError::Missing { role: Role::Vcek }));
    let garbage = entry(table::ASK, b"garbage");
    assert!(matches!(chains(&[vcek, garbage, ark]), Err(ChainError::Entry { guid: table::ASK, .. })));
    let unknown = entry(table::Guid([7; 16]), b"garbage");
    assert_eq!(chains(&[vcek, unknown, ask, ark]), Ok(1), "what is not known is left alone");
}

#[test]
fn a_table_with_a_vcek_and_a_vlek_has_a_chain_for_each() {
    let table = table_of(&[MILAN_VCEK, MILAN_VLEK, MILAN_ASK, MILAN_ASVK, MILAN_ARK]);
    let chains = Chain::all_of(&table).unwrap();
    let roles: Vec<_> = chains.iter().map(|chain| LENIENT.verify(chain).unwrap().role).collect();
    assert_eq!(roles, [Role::Vcek, Role::Vlek]);
}
