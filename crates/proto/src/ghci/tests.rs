extern crate std;
use super::*;
use std::string::ToString;
use std::vec::Vec;

#[test]
fn every_named_leaf_is_known_and_every_other_survives() {
    for number in (0..0x100).chain(0x10000..0x10100) {
        let call = TdVmCall::decode([0, number, 1, 2, 3, 4]);
        let unknown = TdVmCall::Unknown { leaf: number, args: [1, 2, 3, 4] };
        assert_eq!(call == unknown, leaf::name(number).is_none(), "{number:#x}");
    }
    let vendor = TdVmCall::decode([12, 1, 2, 3, 4, 5]);
    assert_eq!(vendor, TdVmCall::Vendor { nr: 12, args: [1, 2, 3, 4] });
    let mmio = TdVmCall::decode([0, 48, 8, 1, 0x1000, 7]);
    assert_eq!(mmio, TdVmCall::Mmio { size_bytes: 8, is_write: true, gpa: Gpa(0x1000), value: 7 });
}

fn buffer(status: u64, in_len: u32, out_len: u32, room: usize) -> Vec<u8> {
    let mut bytes = Vec::from(1_u64.to_le_bytes());
    bytes.extend_from_slice(&status.to_le_bytes());
    bytes.extend_from_slice(&in_len.to_le_bytes());
    bytes.extend_from_slice(&out_len.to_le_bytes());
    bytes.extend((0..room).map(|index| u8::try_from(index % 256).unwrap()));
    bytes
}

#[test]
fn a_quote_gives_what_its_lengths_say_and_refuses_what_they_do_not_hold() {
    for (in_len, out_len) in [(0, 0), (4, 0), (4, 8), (8, 8)] {
        let bytes = buffer(0, in_len, out_len, 8);
        let quote = Quote::parse(&bytes).unwrap();
        assert_eq!((quote.request.len(), quote.quote.len()), (in_len as usize, out_len as usize));
    }
    for (in_len, out_len) in [(9, 0), (0, 9), (u32::MAX, u32::MAX)] {
        let length = in_len.max(out_len);
        let refused = Quote::parse(&buffer(0, in_len, out_len, 8)).map(|_| ());
        assert_eq!(refused, Err(QuoteError::Length { length, room: 8 }));
    }
    let bytes = buffer(0, 0, 0, 0);
    for length in 0..24 {
        assert_eq!(Quote::parse(&bytes[..length]), Err(QuoteError::Short { bytes: length }));
    }
    let mut wrong = bytes;
    wrong[0] = 2;
    assert_eq!(Quote::parse(&wrong), Err(QuoteError::Version { version: 2 }));
}

#[test]
fn a_report_is_taken_when_it_lies_in_the_buffer_whatever_the_guest_wrote_into_out_len() {
    for out_len in [0, u32::MAX] {
        for (in_len, size_bytes, expected) in [
            (1, 25, Ok(1)),
            (1024, 4096, Ok(1024)),
            (4072, 4096, Ok(4072)),
            (4073, 4096, Err(QuoteError::Length { length: 4073, room: 4072 })),
            (u32::MAX, 4096, Err(QuoteError::Length { length: u32::MAX, room: 4072 })),
            (0, 4096, Err(QuoteError::Empty)),
            (0, 24, Err(QuoteError::Empty)),
            (1, 24, Err(QuoteError::Length { length: 1, room: 0 })),
            (1, 23, Err(QuoteError::Short { bytes: 23 })),
        ] {
            let head = buffer(7, in_len, out_len, 0);
            assert_eq!(quote_request_bytes(&head, size_bytes), expected, "{in_len} in {size_bytes}");
        }
    }
    let mut head = buffer(0, 1, 0, 0);
    for length in 0..24 {
        let short = Err(QuoteError::Short { bytes: length });
        assert_eq!(quote_request_bytes(&head[..length], 4096), short);
    }
    head[7] = 1;
    let version = QuoteError::Version { version: 1 << 56 | 1 };
    assert_eq!(quote_request_bytes(&head, 4096), Err(version));
}

#[test]
fn a_status_of_a_quote_comes_back_from_its_number() {
    for number in (0..16).chain((0..16).map(|low| 1 << 63 | low)).chain([u64::MAX]) {
        let status = QuoteStatus::from_number(number);
        assert_eq!(status.number(), number);
        let is_unknown = matches!(status, QuoteStatus::Unknown(_));
        assert_eq!(is_unknown, quote_status::name(number).is_none());
    }
}

#[test]
fn the_message_of_a_fatal_error_comes_in_the_order_of_its_registers() {
    let mut words = [0; 16];
    words[12] = 1 << 63 | 5;
    words[13] = 0x7000;
    let text = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\"\n";
    let order = [14, 15, 3, 7, 6, 8, 9, 2];
    for (index, chunk) in order.into_iter().zip(text.chunks(8)) {
        words[index] = u64::from_le_bytes(chunk.try_into().unwrap());
    }
    let error = FatalError::from_words(&Words::from_slice(&words)).unwrap();
    assert_eq!((error.error, error.gpa), (5, Some(Gpa(0x7000))));
    assert_eq!(error.text(), text);
    assert!(error.to_string().ends_with("XYZ\\\"\\n\", more at 0x7000"), "{error}");
}

#[test]
fn a_fatal_error_needs_all_sixteen_words_and_ends_its_text_at_the_first_zero() {
    for count in 0..16 {
        assert_eq!(FatalError::from_words(&Words::new(count, [1; 16])), None);
    }
    let mut words = [0; 16];
    words[14] = u64::from_le_bytes(*b"ab\0cdefg");
    let error = FatalError::from_words(&Words::new(16, words)).unwrap();
    assert_eq!((error.text(), error.gpa), (b"ab".as_slice(), None));
    assert_eq!(error.to_string(), "fatal error 0x0: \"ab\"");
}
