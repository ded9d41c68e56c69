//! An entry of the reverse map table.

use exeunt_abi::rmp::{Fields, RawEntry, State, bits, vmpl};
use exeunt_runs::Linear;

/// An entry: the architectural fields as in memory, and the permissions of each privilege level where Linux has the
/// part that is opaque to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RmpEntry {
    raw: RawEntry,
}

impl RmpEntry {
    /// What `RMPUPDATE` makes: not validated, no VMSA, and everything permitted to VMPL 0 alone.
    #[must_use]
    pub const fn updated(fields: Fields) -> Self {
        let mut raw = RawEntry::new(fields);
        raw.high = if fields.assigned { vmpl::FULL as u64 } else { 0 };
        Self { raw }
    }

    /// The entry as it lies in memory.
    #[must_use]
    pub const fn raw(self) -> RawEntry {
        self.raw
    }

    /// What `RMPUPDATE` wrote.
    #[must_use]
    pub const fn fields(self) -> Fields {
        self.raw.fields()
    }

    /// The state of the page.
    #[must_use]
    pub const fn state(self) -> State {
        self.raw.state()
    }

    /// Whether the guest accepted the page.
    #[must_use]
    pub const fn is_validated(self) -> bool {
        self.raw.is_validated()
    }

    /// Whether the page is a VMSA.
    #[must_use]
    pub const fn is_vmsa(self) -> bool {
        self.raw.is_vmsa()
    }

    /// What a privilege level may do: bits of [`vmpl`].
    #[must_use]
    pub const fn permissions(self, level: u8) -> u8 {
        let [low, ..] = (self.raw.high >> shift(level)).to_le_bytes();
        low
    }

    /// The entry with other permissions of a privilege level.
    #[must_use]
    pub const fn with_permissions(mut self, level: u8, permissions: u8) -> Self {
        self.raw.high = self.raw.high & !(0xff << shift(level)) | (permissions as u64) << shift(level);
        self
    }

    /// The entry of a page that the guest accepted, or no longer accepts.
    #[must_use]
    pub const fn with_validated(self, validated: bool) -> Self {
        self.with(bits::VALIDATED, validated)
    }

    /// The entry of a page that is a VMSA, or no longer.
    #[must_use]
    pub const fn with_vmsa(self, vmsa: bool) -> Self {
        self.with(bits::VMSA, vmsa)
    }

    /// The entry of a page that `RMPUPDATE` can change, or no longer.
    #[must_use]
    pub const fn with_immutable(self, immutable: bool) -> Self {
        self.with(bits::IMMUTABLE, immutable)
    }

    /// One of the 512 entries that an entry of 2 MiB falls into.
    pub(crate) const fn as_4k(self) -> Self {
        self.with(bits::PAGE_SIZE_2M, false)
    }

    const fn with(mut self, bit: u64, on: bool) -> Self {
        self.raw.low = if on { self.raw.low | bit } else { self.raw.low & !bit };
        self
    }
}

/// Where a privilege level's permissions lie in the upper word. There are four levels.
const fn shift(level: u8) -> u32 {
    (level as u32 & 3) * 8
}

/// The bits of the guest frame.
const GFN: u64 = 0x7f_ffff_ffff << 12;

impl Linear for RmpEntry {
    fn advance(self, pages: u64) -> Self {
        let gfn = (self.raw.low & GFN).wrapping_add(pages << 12) & GFN;
        Self { raw: RawEntry { low: self.raw.low & !GFN | gfn, high: self.raw.high } }
    }
}
