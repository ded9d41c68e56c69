use super::*;
use proptest::prelude::*;

const BYTES: [u8; 20] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x7c, 0x20, 0x20];

#[test]
fn plain_digits_come_in_every_usual_form() {
    for text in
        ["0c000000", "0x0c000000", "0c 00 00 00", "0c:00:00:00", "0x0c, 0x00,\n0x00 0x00", "0C00\r\n0000\n"]
    {
        assert_eq!(parse(text), Ok(vec![12, 0, 0, 0]), "{text}");
    }
}

#[test]
fn dumps_of_the_usual_tools_lose_their_offsets_and_their_text() {
    let xxd = "00000000: 7f45 4c46 0201 0100 0000 0000 0000 0000  .ELF............\n\
               00000010: 417c 2020                                A|  \n";
    let hexdump = "00000000  7f 45 4c 46 02 01 01 00  00 00 00 00 00 00 00 00  |.ELF............|\n\
                   00000010  41 7c 20 20                                       |A|  |\n\
                   00000014\n";
    let kernel =
        "1000: 7f 45 4c 46 02 01 01 00 00 00 00 00 00 00 00 00  .ELF............\n1010: 41 7c 20 20\n";
    for text in [xxd, hexdump, kernel] {
        assert_eq!(parse(text), Ok(BYTES.to_vec()), "{text}");
    }
}

#[test]
fn a_star_repeats_the_row_before_it() {
    let text = "00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n*\n\
                00000040  01 02                                             |..|\n00000042\n";
    let bytes = parse(text).unwrap();
    assert_eq!((bytes.len(), bytes[0x3f], bytes[0x40], bytes[0x41]), (0x42, 0, 1, 2));
    // A length that nobody could mean is cut, and then does not fit.
    let huge = text.replace("00000040", "ffffffffffff");
    assert!(parse(&huge).unwrap_err().starts_with("line 3: offset 0xffffffffffff, where "));
}

#[test]
fn what_is_no_hex_is_named_with_its_line_and_column() {
    let cases = [
        ("", "there are no hex digits"),
        (" \n ", "there are no hex digits"),
        ("0c0", "line 1, column 1: 3 hex digits are no whole bytes"),
        ("0c 00\n0g", "line 2, column 2: 'g' is no hex digit"),
        ("0c 0x0z", "line 1, column 7: 'z' is no hex digit"),
        ("00000000: 00zz", "line 1, column 13: 'z' is no hex digit"),
        ("00000000: 0000\n00000010: 00", "line 2: offset 0x10, where 0x2 follows"),
        ("00000000: 0000\nfoo", "line 2: no offset, unlike the other lines"),
        ("00\u{7}", "line 1, column 3: '\\u{7}' is no hex digit"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text), Err(expected.to_string()), "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_text_gives_bytes_or_one_line(text in "[0-9a-fx:| *\n.]{0,200}") {
        if let Err(line) = parse(&text) {
            prop_assert_eq!(line.lines().count(), 1);
        }
    }

    #[test]
    fn bytes_survive_being_written_as_digits(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        prop_assert_eq!(parse(&super::super::explanation::hex(&bytes)), Ok(bytes));
    }
}
