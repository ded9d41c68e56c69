//! Which chip, which product and which TCB a certificate is for.
//!
//! Source: AMD 57230 "VCEK Certificate and KDS Interface Specification" revision 1.00; AMD 56860 revision 1.58,
//! section 2.2 "TCB Version".

use exeunt_proto::report::{Cpuid, KnownReport, TcbVersion};
use std::fmt::{self, Write as _};
use std::str::FromStr;
use thiserror::Error;

/// A product line, as AMD's key distribution service names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// Zen 3.
    Milan,
    /// Zen 4: Bergamo and Siena too.
    Genoa,
    /// Zen 5.
    Turin,
}

/// Why a text names nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It is no product.
    #[error("'{text}' is no product: there are Milan, Genoa (Bergamo, Siena) and Turin")]
    Product {
        /// The text.
        text: String,
    },
    /// It is no identity of a chip.
    #[error("a chip is 128 hex digits, or 16 for Turin, and not '{text}'")]
    Chip {
        /// The text.
        text: String,
    },
    /// It is no TCB.
    #[error("'{text}' is no TCB: write it as bl3.tee0.snp20.ucode209, with fmc1. in front for Turin")]
    Tcb {
        /// The text.
        text: String,
    },
}

impl Product {
    /// All products.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in certificates and in addresses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product of a CPU, if it is one of those.
    #[must_use]
    pub const fn of_cpu(cpuid: Cpuid) -> Option<Self> {
        match (cpuid.family, cpuid.model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Whether its TCB has an FMC.
    #[must_use]
    pub const fn has_fmc(self) -> bool {
        matches!(self, Self::Turin)
    }
}

impl FromStr for Product {
    type Err = IdentityError;

    /// A name, with a stepping behind it or not: `Milan`, `Milan-B0`, `milan`.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let name = text.split_once('-').map_or(text, |(name, _)| name);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("Bergamo") || is("Siena") {
            return Ok(Self::Genoa);
        }
        let found = Self::ALL.into_iter().find(|product| is(product.name()));
        found.ok_or_else(|| IdentityError::Product { text: shorten(text) })
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The identity of a chip: 64 bytes, or 8 on Turin.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChipId(Vec<u8>);

impl ChipId {
    /// Bytes of an identity before Turin, and of the field in a report.
    pub const BYTES: usize = 64;
    /// Bytes of an identity on Turin.
    pub const TURIN_BYTES: usize = 8;

    /// From 64 bytes, or from 8. Of 64 bytes that end with 56 zeroes the first 8 are the identity, as in the report of
    /// a Turin. `None` for another length, and for zeroes alone, with which a host hides its chip.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_at_checked(Self::TURIN_BYTES)?;
        if bytes.iter().all(|byte| *byte == 0) || ![0, Self::BYTES - Self::TURIN_BYTES].contains(&tail.len())
        {
            return None;
        }
        let is_short = tail.iter().all(|byte| *byte == 0);
        Some(Self(if is_short { head.to_vec() } else { bytes.to_vec() }))
    }

    /// The bytes, 8 or 64.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The chip of a report, unless the host hides it.
    #[must_use]
    pub fn of_report(report: &KnownReport<'_>) -> Option<Self> {
        Self::new(&report.chip_id()?)
    }
}

impl fmt::Display for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ChipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChipId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let wrong = || IdentityError::Chip { text: shorten(text) };
        unhex(digits).as_deref().and_then(Self::new).ok_or_else(wrong)
    }
}

/// A TCB as it is written in names and on command lines: `bl3.tee0.snp20.ucode209`, and `fmc1.` in front if there is
/// an FMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbText(pub TcbVersion);

impl fmt::Display for TcbText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TcbVersion { fmc, boot_loader, tee, snp, microcode } = self.0;
        if let Some(fmc) = fmc {
            write!(f, "fmc{fmc}.")?;
        }
        write!(f, "bl{boot_loader}.tee{tee}.snp{snp}.ucode{microcode}")
    }
}

impl FromStr for TcbText {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut rest = text;
        let mut part = |name: &str| {
            let after = rest.strip_prefix(name)?;
            let (digits, next) = after.split_once('.').unwrap_or((after, ""));
            // One way to write each number, because this is a name as well.
            let value = digits.parse::<u8>().ok().filter(|value| value.to_string() == digits)?;
            rest = next;
            Some(value)
        };
        let fmc = part("fmc");
        let parts = (part("bl"), part("tee"), part("snp"), part("ucode"));
        let (Some(boot_loader), Some(tee), Some(snp), Some(microcode)) = parts else {
            return Err(IdentityError::Tcb { text: shorten(text) });
        };
        let tcb = Self(TcbVersion { fmc, boot_loader, tee, snp, microcode });
        if tcb.to_string() == text { Ok(tcb) } else { Err(IdentityError::Tcb { text: shorten(text) }) }
    }
}

/// Whether each part of `new` is at least that of `old`. Two TCBs may each be the newer one in some part.
#[must_use]
pub fn is_at_least(new: TcbVersion, old: TcbVersion) -> bool {
    let parts = |tcb: TcbVersion| {
        let TcbVersion { fmc, boot_loader, tee, snp, microcode } = tcb;
        [fmc.unwrap_or(0), boot_loader, tee, snp, microcode]
    };
    parts(new).iter().zip(parts(old)).all(|(new, old)| *new >= old)
}

/// Bytes as hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// Bytes from hex digits, two each.
#[must_use]
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// A text from outside, short enough for a message of one line.
fn shorten(text: &str) -> String {
    text.chars().take(60).filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tcb_is_read_as_it_is_written_and_in_no_other_way() {
        for value in 0..=255u8 {
            for fmc in [None, Some(value)] {
                let tcb = TcbVersion { fmc, boot_loader: value, tee: 1, snp: !value, microcode: 72 };
                let text = TcbText(tcb).to_string();
                assert_eq!(text.parse(), Ok(TcbText(tcb)), "{text}");
            }
        }
        let wrong =
            ["", "bl3", "bl03.tee0.snp20.ucode209", "bl3.tee0.snp20.ucode256", "bl3.tee0.snp20.ucode2."];
        for text in wrong.into_iter().chain(["tee0.bl3.snp20.ucode2", "bl3.tee0.snp20.ucode2.x", "../x"]) {
            assert!(text.parse::<TcbText>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chip_has_8_or_64_bytes_and_is_not_hidden() {
        for length in 0..200 {
            assert_eq!(ChipId::new(&vec![7; length]).is_some(), [8, 64].contains(&length), "{length}");
            assert_eq!(ChipId::new(&vec![0; length]), None, "zeroes hide the chip");
        }
        let mut turin = [0; 64];
        turin[..8].fill(5);
        assert_eq!(ChipId::new(&turin), ChipId::new(&[5; 8]));
        let chip = ChipId::new(&[0xa5; 8]).unwrap();
        assert_eq!(chip.to_string(), "a5a5a5a5a5a5a5a5");
        assert_eq!(chip.to_string().parse(), Ok(chip));
        for text in ["", "a5", "0xzz", "a5a5a5a5a5a5a5a", "é5a5a5a5a5a5a5"] {
            assert!(text.parse::<ChipId>().is_err(), "{text}");
        }
    }

    #[test]
    fn products_are_known_by_name_with_or_without_a_stepping() {
        for (text, product) in
            [("Milan-B0", Product::Milan), ("genoa", Product::Genoa), ("Siena", Product::Genoa)]
        {
            assert_eq!(text.parse(), Ok(product));
        }
        assert!("Rome".parse::<Product>().is_err());
    }

    #[test]
    fn a_tcb_that_is_older_in_one_part_is_not_at_least_the_other() {
        let tcb = TcbVersion { fmc: None, boot_loader: 3, tee: 1, snp: 8, microcode: 115 };
        assert!(is_at_least(tcb, tcb));
        assert!(is_at_least(TcbVersion { snp: 9, ..tcb }, tcb));
        assert!(!is_at_least(TcbVersion { snp: 9, microcode: 114, ..tcb }, tcb));
    }
}
