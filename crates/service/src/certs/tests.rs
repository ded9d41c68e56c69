use super::*;

/// A table of `bytes` bytes: no entry, then padding.
fn table(bytes: usize) -> Certificates {
    Certificates::Table(CheckedTable::new(vec![0; bytes]).unwrap())
}

fn plan(certificates: &Certificates, pages: u64) -> CertsPlan<'_> {
    let request = SnpReqCerts { gpa: Gpa(0x8000), pages };
    certificates.plan(request, |gpa, pages| gpa == Gpa(0x8000) && pages <= 16)
}

#[test]
fn a_buffer_that_is_too_small_is_told_the_pages_needed_exactly() {
    for (bytes, needed) in [(24, 1), (4096, 1), (4097, 2), (0x4000, 4)] {
        let certificates = table(bytes);
        for pages in 0..needed {
            let expected = CertsPlan::Answer(CertsReply::TooSmall { pages: needed });
            assert_eq!(plan(&certificates, pages), expected, "{bytes} bytes, {pages} pages");
        }
        assert!(matches!(plan(&certificates, needed), CertsPlan::Install(_)));
    }
}

#[test]
fn a_buffer_without_memory_behind_it_is_an_error_and_nothing_is_written() {
    for pages in [17, u64::MAX] {
        assert_eq!(plan(&table(24), pages), CertsPlan::Answer(CertsReply::Failed));
        assert_eq!(plan(&Certificates::None, pages), CertsPlan::Answer(CertsReply::Failed));
    }
}

#[test]
fn without_certificates_the_guest_gets_an_empty_table_and_goes_on() {
    let expected = Action::WriteGuest { gpa: Gpa(0x8000), bytes: &[0; 24] };
    assert_eq!(plan(&Certificates::None, 1), CertsPlan::Install(expected));
    assert_eq!(plan(&Certificates::None, 0), CertsPlan::Answer(CertsReply::Installed));
}

#[test]
fn busy_and_broken_are_said_whatever_the_buffer_is() {
    for pages in [0, 1, u64::MAX] {
        assert_eq!(plan(&Certificates::Busy, pages), CertsPlan::Answer(CertsReply::Busy));
        assert_eq!(plan(&Certificates::Broken, pages), CertsPlan::Answer(CertsReply::Failed));
    }
}

#[test]
fn a_file_is_refused_when_it_is_missing_malformed_or_too_large() {
    let folder = std::env::temp_dir().join(format!("exeunt-certs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        CheckedTable::read(&path)
    };
    assert!(matches!(CheckedTable::read(&folder.join("missing")), Err(CertsError::Read { .. })));
    assert!(matches!(file("short", &[1; 23]), Err(CertsError::Malformed { .. })));
    let too_large = vec![0; usize::try_from(MAX_TABLE_BYTES).unwrap() + 1];
    assert!(matches!(file("large", &too_large), Err(CertsError::TooLarge { .. })));
    assert_eq!(file("empty", &[0; 24]).unwrap().pages(), 1);
    // A file without an end is cut off at the limit.
    let endless = CheckedTable::read(Path::new("/dev/zero"));
    assert!(matches!(endless, Err(CertsError::TooLarge { .. })), "{endless:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_table_that_was_built_parses_to_what_went_in() {
    let certificates = [
        Certificate { guid: exeunt_proto::certs::VCEK, bytes: b"one" },
        Certificate { guid: exeunt_proto::certs::ARK, bytes: &[7; 5000] },
    ];
    let table = CheckedTable::build(&certificates).unwrap();
    let parsed: Vec<_> = Table::parse(table.as_bytes()).unwrap().certificates().collect();
    assert_eq!(parsed, certificates);
    assert_eq!(table.pages(), 2);
    assert_eq!(CheckedTable::build(&[]).unwrap().as_bytes(), [0; 24]);
}
