//! Numbers as people write them.

use super::input::shorten;
use crate::Failure;

/// A number: decimal, with `0x`, or hex digits of which one at least is a letter.
///
/// # Errors
///
/// One line: what is no number, or does not fit into 64 bits.
pub(super) fn parse(text: &str) -> Result<u64, Failure> {
    let shown = shorten(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => (text, 10),
        None => (text, 16),
    };
    if digits.is_empty() {
        return Err(format!("'{shown}' is no number"));
    }
    if let Some((at, bad)) = digits.char_indices().find(|(_, letter)| !letter.is_digit(radix)) {
        let (offset, bad) = (at + text.len() - digits.len(), bad.escape_debug());
        return Err(format!("'{shown}' is no number: '{bad}' at offset {offset}"));
    }
    u64::from_str_radix(digits, radix).map_err(|_| format!("'{shown}' does not fit into 64 bits"))
}

/// A number of 32 bits.
///
/// # Errors
///
/// As for [`parse`].
pub(super) fn parse_u32(text: &str, what: &str) -> Result<u32, Failure> {
    let number = parse(text)?;
    u32::try_from(number).map_err(|_| format!("{what} has 32 bits, and {number:#x} has more"))
}

/// Whether the text was written in hex, which says something about what it may be.
pub(super) fn is_hex(text: &str) -> bool {
    !text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hex() {
        assert_eq!(
            (parse("43"), parse("0x2b"), parse("0X2B"), parse("2b")),
            (Ok(43), Ok(43), Ok(43), Ok(43))
        );
        assert_eq!(parse("0xffffffffffffffff"), Ok(u64::MAX));
        for (text, expected) in [
            ("", "'' is no number"),
            ("0x", "'0x' is no number"),
            ("0x1g", "'0x1g' is no number: 'g' at offset 3"),
            ("-3", "'-3' is no number: '-' at offset 0"),
            ("18446744073709551616", "'18446744073709551616' does not fit into 64 bits"),
        ] {
            assert_eq!(parse(text), Err(expected.to_string()));
        }
        assert!(parse_u32("0x100000000", "an exit reason").unwrap_err().contains("32 bits"));
    }
}
