extern crate std;
use super::*;
use std::string::ToString;
use std::vec::Vec;

fn bytes(version: u32) -> [u8; REPORT_BYTES] {
    let mut bytes = [0; REPORT_BYTES];
    bytes[..4].copy_from_slice(&version.to_le_bytes());
    bytes[0x188..0x18b].copy_from_slice(&[0x1a, 0x02, 0x01]);
    bytes[0x1f8] = 7;
    bytes[0x200] = 9;
    bytes
}

fn known(bytes: &[u8]) -> KnownReport<'_> {
    Report::parse(bytes).unwrap().known().unwrap()
}

#[test]
fn each_version_says_what_it_has_and_no_more() {
    for version in (0..16).chain([u32::MAX]) {
        let bytes = bytes(version);
        let parsed = Report::parse(&bytes).unwrap();
        assert_eq!((parsed.version(), parsed.bytes()), (version, bytes.as_slice()));
        let report = parsed.known();
        assert_eq!(report.is_some(), (2..=5).contains(&version), "{version}");
        let Some(report) = report else { continue };
        let cpuid = Cpuid { family: 0x1a, model: 2, stepping: 1 };
        assert_eq!(report.cpuid(), (version >= 3).then_some(cpuid));
        let mitigations = Mitigations { launch: 7, current: 9 };
        assert_eq!(report.mitigations(), (version == 5).then_some(mitigations));
    }
}

#[test]
fn every_length_below_a_report_is_refused_and_every_length_above_is_taken() {
    let mut long = Vec::from(bytes(2));
    long.extend_from_slice(&[0xff; 64]);
    for length in 0..long.len() {
        let parsed = Report::parse(&long[..length]);
        let short = ReportError::Short { bytes: length, needed: REPORT_BYTES };
        assert_eq!(parsed.err(), (length < REPORT_BYTES).then_some(short));
    }
}

#[test]
fn the_parts_of_a_tcb_version_lie_where_the_product_has_them() {
    let versions = [1, 2, 3, 4, 5, 6, 7, 8];
    let milan = TcbVersion { fmc: None, boot_loader: 1, tee: 2, snp: 7, microcode: 8 };
    let turin = TcbVersion { fmc: Some(1), boot_loader: 2, tee: 3, snp: 4, microcode: 8 };
    for family in 0..=255 {
        let expected = if family < 0x1a { milan } else { turin };
        assert_eq!(TcbVersion::decode(versions, family), expected, "{family:#x}");
    }
    assert_eq!(known(&bytes(2)).tcb(versions), milan, "version 2 does not name the CPU");
    assert_eq!(known(&bytes(3)).tcb(versions), turin);
    assert_eq!(turin.to_string(), "fmc 1, boot loader 2, tee 3, snp 4, microcode 8");
}

#[test]
fn the_flags_name_the_keys_for_every_value() {
    for value in 0..256_u32 {
        let mut bytes = bytes(5);
        bytes[0x48..0x4c].copy_from_slice(&value.to_le_bytes());
        bytes[0x110] = 3;
        let report = known(&bytes);
        let expected = match value >> 2 & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            number => SigningKey::Unknown(number),
        };
        assert_eq!(report.signing_key(), expected);
        assert_eq!(report.author_key_digest().is_some(), value & 1 == 1);
    }
}

#[test]
fn the_signature_covers_the_bytes_as_they_came_and_a_hidden_chip_is_none() {
    let mut bytes = bytes(4);
    assert_eq!(known(&bytes).chip_id(), None);
    bytes[0x1a0] = 1;
    let report = known(&bytes);
    assert!(report.chip_id().is_some());
    assert_eq!(report.signed_bytes(), &bytes[..0x2a0]);
}

#[test]
fn a_response_is_as_long_as_it_says_or_refused() {
    let mut response = Vec::from([0; 32]);
    response[4..8].copy_from_slice(&1184_u32.to_le_bytes());
    response.extend_from_slice(&bytes(2));
    assert!(Report::parse_response(&response).unwrap().known().is_some());
    for length in 0..response.len() {
        let short = ReportError::Short { bytes: length, needed: 1216 };
        assert_eq!(Report::parse_response(&response[..length]), Err(short));
    }
    for size in [0, 1183_u32, u32::MAX] {
        response[4..8].copy_from_slice(&size.to_le_bytes());
        assert!(matches!(Report::parse_response(&response), Err(ReportError::Short { .. })), "{size}");
    }
    response[0] = 0x27;
    let refused = Report::parse_response(&response).unwrap_err();
    assert_eq!(refused, ReportError::Refused { status: 0x27 });
    assert!(refused.to_string().contains("0x27"));
}
