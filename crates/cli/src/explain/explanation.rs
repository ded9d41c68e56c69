//! What a number or a page means, as a value. Pure functions build it, `print` shows it.

use serde::Serialize;

/// One reading of one input. Its form in JSON is promised in the help text of the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    /// The kind that was asked for, or that fits.
    pub(crate) kind: &'static str,
    /// What was given: the number as it was written, or where the bytes came from.
    pub(crate) input: String,
    /// The meaning in a line.
    pub(crate) title: String,
    /// The parts, in the order of their offsets.
    pub(crate) fields: Vec<Field>,
    /// Reserved bits and bytes that are set, and values that the other side would refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reserved: Vec<String>,
    /// What a VMM should do, with the ids of the rules.
    pub(crate) advice: String,
    /// Where the meaning comes from.
    pub(crate) source: String,
}

/// One part of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Field {
    /// The name in the header or the specification.
    pub(crate) name: String,
    /// Bytes from the start in hex, or bits of a number as `high:low`. Empty where neither fits.
    pub(crate) offset: String,
    /// The raw value: hex for addresses, codes and bit fields, decimal for counts.
    pub(crate) value: String,
    /// What it says.
    pub(crate) meaning: String,
    /// What a count counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<&'static str>,
}

impl Explanation {
    pub(crate) fn new(kind: &'static str, input: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            kind,
            input: input.into(),
            title: title.into(),
            fields: Vec::new(),
            reserved: Vec::new(),
            advice: String::new(),
            source: String::new(),
        }
    }

    pub(crate) fn with(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    pub(crate) fn with_all(mut self, fields: impl IntoIterator<Item = Field>) -> Self {
        self.fields.extend(fields);
        self
    }

    /// Calls out what is set and must not be.
    pub(crate) fn reserved(mut self, what: Option<String>) -> Self {
        self.reserved.extend(what);
        self
    }

    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    pub(crate) fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }
}

impl Field {
    /// A part that is not at any offset.
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), meaning: meaning.into(), ..Self::default() }
    }

    /// A part at a byte offset.
    pub(crate) fn at(
        offset: usize,
        name: impl Into<String>,
        value: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Self {
        Self { offset: format!("{offset:#x}"), ..Self::new(name, value, meaning) }
    }

    /// The bits from `low` to `high` of a number.
    pub(crate) fn bits(name: &str, whole: u64, high: u32, low: u32, meaning: impl Into<String>) -> Self {
        let offset = if high == low { high.to_string() } else { format!("{high}:{low}") };
        Self { offset, ..Self::new(name, format!("{:#x}", bits(whole, high, low)), meaning) }
    }

    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }
}

/// The bits from `low` to `high` of a number, moved down.
pub(crate) const fn bits(whole: u64, high: u32, low: u32) -> u64 {
    whole >> low & mask(high - low, 0)
}

/// A mask of the bits from `low` to `high`, at most 63.
pub(crate) const fn mask(high: u32, low: u32) -> u64 {
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

/// Calls out the bits of `value` outside of `known`, in a form such as `bits 23:12 (0x5000)`.
pub(crate) fn unknown_bits(value: u64, known: u64) -> Option<String> {
    let left = value & !known;
    let (high, low) = (left.checked_ilog2()?, left.trailing_zeros());
    let place = if high == low { format!("bit {high}") } else { format!("bits within {high}:{low}") };
    Some(format!("{place} ({left:#x}) without a meaning here, should be 0"))
}

/// Hex digits without spaces, as they lie in memory.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_masks_hold_at_both_ends() {
        assert_eq!(mask(63, 0), u64::MAX);
        assert_eq!((mask(63, 63), mask(0, 0), mask(23, 12)), (1 << 63, 1, 0xff_f000));
        assert_eq!((bits(0x21100, 15, 12), bits(u64::MAX, 63, 0), bits(1 << 63, 63, 63)), (1, u64::MAX, 1));
    }

    #[test]
    fn what_is_not_known_is_called_out_with_its_place() {
        assert_eq!(unknown_bits(0xfff, 0xfff), None);
        assert_eq!(
            unknown_bits(0x2fff, 0xfff).as_deref(),
            Some("bit 13 (0x2000) without a meaning here, should be 0")
        );
        assert!(unknown_bits(0x5000, 0).unwrap().starts_with("bits within 14:12 (0x5000)"));
    }
}
