use super::*;

/// Two sections, one of which may be skipped.
fn written() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.section(7, MUST_UNDERSTAND, b"seven").unwrap();
    writer.section(0x8000_0001, 0, b"").unwrap();
    writer.finish().unwrap().0
}

fn read(bytes: &[u8], limits: Limits) -> Result<Vec<Section>, FormatError> {
    let mut reader = Reader::new(bytes, limits)?;
    let mut sections = Vec::new();
    while let Some(section) = reader.section()? {
        sections.push(section);
    }
    assert!(reader.digest().is_some() && reader.section() == Ok(None), "the end stays the end");
    Ok(sections)
}

#[test]
fn what_is_written_is_read_again_whatever_the_section() {
    let sections = read(&written(), Limits::default()).unwrap();
    let seven = Section { id: 7, flags: MUST_UNDERSTAND, payload: b"seven".to_vec() };
    assert_eq!(sections, [seven, Section { id: 0x8000_0001, flags: 0, payload: Vec::new() }]);
}

#[test]
fn the_bytes_are_those_of_the_document() {
    let bytes = written();
    assert_eq!(bytes[..16], *b"\x7fexeunt\n\x01\x00\x00\x00\x00\x00\x00\x00");
    assert_eq!(bytes[16..32], [7, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[32..37], *b"seven");
    let checked: Digest = Sha256::digest(&bytes[16..37]).into();
    assert_eq!(bytes[37..45], checked[..8]);
    let end = 45 + 24;
    let whole: Digest = Sha256::digest(&bytes[..end]).into();
    assert_eq!(bytes[end..end + 16], [0, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        (&bytes[end + 16..end + 24], &bytes[end + 24..end + 56]),
        (&[2, 0, 0, 0, 0, 0, 0, 0][..], &whole[..])
    );
    assert_eq!(bytes.len(), end + 64);
}

#[test]
fn every_flipped_bit_every_cut_and_every_byte_behind_the_end_is_an_error() {
    let bytes = written();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped, Limits::default()).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let cut = read(&bytes[..length], Limits::default());
        assert!(matches!(cut, Err(FormatError::Truncated { .. })), "{length} bytes: {cut:?}");
    }
    for more in 0..=255 {
        let longer = [bytes.as_slice(), &[more]].concat();
        let at = bytes.len() as u64;
        assert_eq!(read(&longer, Limits::default()), Err(FormatError::BehindTheEnd { at }));
    }
}

#[test]
fn another_major_format_is_refused_and_a_higher_minor_one_is_read() {
    for (major, minor) in [(0u16, 0u16), (2, 0), (u16::MAX, 7)] {
        let mut bytes = written();
        bytes[8..10].copy_from_slice(&major.to_le_bytes());
        bytes[10..12].copy_from_slice(&minor.to_le_bytes());
        assert_eq!(read(&bytes, Limits::default()), Err(FormatError::OtherFormat { major, minor }));
    }
    let mut writer = Writer { to: Vec::new(), digest: Sha256::new(), sections: 0 };
    let mut header = written()[..16].to_vec();
    header[10] = 9;
    writer.write(&header).unwrap();
    let bytes = writer.finish().unwrap().0;
    let mut reader = Reader::new(bytes.as_slice(), Limits::default()).unwrap();
    assert_eq!((reader.minor(), reader.section()), (9, Ok(None)));
}

/// Zero bytes for ever, after a beginning.
struct Endless<'a>(&'a [u8], u64);

impl Read for Endless<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.1 += to.len() as u64;
        if self.0.is_empty() {
            to.fill(0);
            return Ok(to.len());
        }
        self.0.read(to)
    }
}

#[test]
fn an_endless_snapshot_ends_at_the_limit_and_takes_no_more_memory_than_that() {
    let limits = Limits { total_bytes: 1 << 16, section_bytes: 1 << 12 };
    let header = &written()[..16];
    // Sections without an end, of which each is right.
    let one = written()[16..45].to_vec();
    let many = [header, &one.repeat(1 << 12)].concat();
    assert_eq!(read(&many, limits), Err(FormatError::TooLong { limit_bytes: 1 << 16 }));
    // A section that says that it is endless.
    let mut huge = [header, &section_header(7, 1, u64::MAX)].concat();
    let too_long = FormatError::SectionTooLong { id: 7, bytes: u64::MAX, limit_bytes: 1 << 12 };
    assert_eq!(Reader::new(Endless(&huge, 0), limits).unwrap().section(), Err(too_long));
    // One that may be as long as it says, and does not come.
    huge[24..32].copy_from_slice(&(1u64 << 12).to_le_bytes());
    assert!(matches!(read(&huge, limits), Err(FormatError::Truncated { .. })));
    let mut zeros = Reader::new(Endless(header, 0), limits).unwrap();
    assert!(zeros.section().is_err());
    assert!(zeros.from.1 < 1 << 16);
    // Zeros behind the end.
    let bytes = written();
    let mut behind = Reader::new(Endless(&bytes, 0), limits).unwrap();
    let last = std::iter::repeat_with(|| behind.section()).find(|it| !matches!(it, Ok(Some(_))));
    assert_eq!(last, Some(Err(FormatError::BehindTheEnd { at: bytes.len() as u64 })));
}

#[test]
fn an_error_of_the_reader_is_carried() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::ConnectionReset.into())
        }
    }
    let error = Reader::new(Broken, Limits::default()).map(|_| ()).unwrap_err();
    assert_eq!(error, FormatError::Read { kind: ErrorKind::ConnectionReset, at: 16 });
}

#[test]
fn sections_that_were_taken_out_or_swapped_show_although_each_is_right() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for payload in [b"one", b"two"] {
        writer.section(7, MUST_UNDERSTAND, payload).unwrap();
    }
    let bytes = writer.finish().unwrap().0;
    let (header, one, two, end) = (&bytes[..16], &bytes[16..43], &bytes[43..70], &bytes[70..]);
    let is = |parts: &[&[u8]]| read(&parts.concat(), Limits::default()).map(|sections| sections.len());
    assert_eq!(is(&[header, one, two, end]), Ok(2));
    assert_eq!(is(&[header, two, one, end]), Err(FormatError::Digest));
    assert_eq!(is(&[header, one, one, end]), Err(FormatError::Digest));
    assert_eq!(is(&[header, two, end]), Err(FormatError::SectionCount { said: 2, found: 1 }));
    assert_eq!(is(&[header, one, two, two, end]), Err(FormatError::SectionCount { said: 2, found: 3 }));
}
