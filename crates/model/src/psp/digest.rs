//! The launch digest of an SNP guest.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 8.17.2 "Measurement", table
//! "Layout of the `PAGE_INFO` Structure".

use sha2::{Digest as _, Sha384};

/// `PAGE_INFO.LENGTH`.
const PAGE_INFO_BYTES: u16 = 0x70;

/// The address that a VMSA is measured with, whatever page holds it.
pub const VMSA_GPA: u64 = 0xffff_ffff_f000;

/// What is measured of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageType {
    /// Contents and address.
    Normal = 1,
    /// A VMSA: its contents.
    Vmsa = 2,
    /// That it is zero, and its address.
    Zero = 3,
    /// Its address.
    Unmeasured = 4,
    /// Its address; the firmware fills the page.
    Secrets = 5,
    /// Its address; the firmware checks the page.
    Cpuid = 6,
}

/// The chain of hashes over the pages of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchDigest([u8; 48]);

impl Default for LaunchDigest {
    fn default() -> Self {
        Self([0; 48])
    }
}

impl LaunchDigest {
    /// The digest before the first page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The digest so far.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 48] {
        self.0
    }

    /// Adds a page. The contents count for [`PageType::Normal`] and [`PageType::Vmsa`] alone. The permissions of the
    /// weaker privilege levels and the mark of a migration image are zero, as KVM asks for them.
    pub fn add_page(&mut self, page_type: PageType, gpa: u64, contents: &[u8]) {
        let contents = match page_type {
            PageType::Normal | PageType::Vmsa => Sha384::digest(contents).into(),
            _ => [0; 48],
        };
        self.0 = Sha384::new()
            .chain_update(self.0)
            .chain_update(contents)
            .chain_update(PAGE_INFO_BYTES.to_le_bytes())
            // The type, then: migration image, VMPL 3, VMPL 2, VMPL 1, reserved.
            .chain_update([page_type as u8, 0, 0, 0, 0, 0])
            .chain_update(gpa.to_le_bytes())
            .finalize()
            .into();
    }
}
