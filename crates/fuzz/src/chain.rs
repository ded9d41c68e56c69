//! Certificates as files, stores and services hand them over.

use exeunt::certs::CheckedTable;
use exeunt_certs::chain::{Bundle, Certificate, Chain, Root, Verifier, parse_report};
use exeunt_certs::identity::{ChipId, Product, TcbText};

/// The first byte says what the others are: a certificate, a bundle in any form, a table, or words of a command line.
pub(crate) fn chain(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => certificate(rest),
        1 => bundle(rest),
        2 => table(rest),
        _ => words(rest),
    }
}

fn certificate(bytes: &[u8]) {
    let Ok(certificate) = Certificate::from_der(bytes) else { return };
    assert_eq!(certificate.der(), bytes, "what was parsed is all of it");
    let texts = [certificate.subject(), certificate.issuer(), certificate.serial()];
    assert!(texts.iter().map(String::len).sum::<usize>() < bytes.len() * 8 + 64, "{texts:?}");
    let _ = (certificate.validity(), certificate.validity_text());
    let is_vek = certificate.endorsement().is_some();
    assert_eq!(is_vek, ["VCEK", "VLEK"].contains(&certificate.role().name()));
}

fn bundle(bytes: &[u8]) {
    let mut bundle = Bundle::default();
    let _ = bundle.add(bytes);
    let Ok(table) = bundle.table() else { return };
    let mut again = Bundle::default();
    for certificate in bundle.certificates() {
        again.push(certificate.clone()).expect("no kind is twice in a bundle");
    }
    let same = again.table().expect("the same certificates");
    assert!(table.as_bytes().len() >= same.as_bytes().len());
    verify(&table);
}

fn table(bytes: &[u8]) {
    if let Ok(table) = CheckedTable::new(bytes.to_vec()) {
        verify(&table);
    }
}

/// Nothing that a fuzzer makes is signed.
fn verify(table: &CheckedTable) {
    let Ok(chains) = Chain::all_of(table) else { return };
    let strict = Verifier { root: Root::Fingerprint([0; 32]), allow_simulated: false, at: None };
    for chain in chains {
        assert!(strict.verify(&chain).is_err());
        let _ = Verifier { root: Root::Any, allow_simulated: true, at: None }.verify(&chain);
        if let Ok(report) = parse_report(table.as_bytes()) {
            let _ = chain.check_report(&report);
        }
    }
}

fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(tcb) = text.parse::<TcbText>() {
        assert_eq!(tcb.to_string(), text, "there is one way to write a TCB");
    }
    if let Ok(chip) = text.parse::<ChipId>() {
        assert_eq!(chip.to_string().parse(), Ok(chip));
    }
    let _ = text.parse::<Product>();
}
