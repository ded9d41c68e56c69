//! How a simulated host is made.

use super::platform::Version;

/// The product that the chip is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Product {
    /// Zen 3.
    #[default]
    Milan,
    /// Zen 4.
    Genoa,
    /// Zen 5.
    Turin,
}

impl Product {
    /// The name as certificates have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Family, model, stepping.
    #[must_use]
    pub const fn cpuid(self) -> [u8; 3] {
        match self {
            Self::Milan => [0x19, 0x01, 0x01],
            Self::Genoa => [0x19, 0x11, 0x01],
            Self::Turin => [0x1a, 0x02, 0x01],
        }
    }

    pub(crate) const fn is_turin(self) -> bool {
        matches!(self, Self::Turin)
    }

    /// Family, model and stepping as EAX of `CPUID 1`.
    pub(crate) fn fms(self) -> u32 {
        let [family, model, stepping] = self.cpuid().map(u32::from);
        let extended_family = family.saturating_sub(0xf);
        extended_family << 20 | (model >> 4) << 16 | 0xf << 8 | (model & 0xf) << 4 | stepping
    }
}

/// What a simulated host is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the host on its own")]
pub struct PspConfig {
    /// Decides every key and identity.
    pub seed: u64,
    /// The product.
    pub product: Product,
    /// The firmware that runs, and is committed, at the start.
    pub version: Version,
    /// Version of the reports: 2 to 5.
    pub report_version: u32,
    /// Simultaneous multithreading is on.
    pub smt: bool,
    /// CXL devices or memory are there.
    pub cxl: bool,
    /// The memory is encrypted with AES-256-XTS.
    pub aes_256_xts: bool,
    /// The running average power limit is off.
    pub rapl_dis: bool,
    /// Ciphertext hiding is on.
    pub ciphertext_hiding: bool,
    /// ASIDs for SNP and SEV-ES guests, from 1 on.
    pub es_asids: u32,
    /// ASIDs for SEV guests, after those.
    pub sev_asids: u32,
}

impl Default for PspConfig {
    /// A Milan.
    fn default() -> Self {
        Self::new(Product::Milan)
    }
}

impl PspConfig {
    /// A host with firmware 1.55, multithreading, and versions of the product's own layout. The seed is 0.
    #[must_use]
    pub const fn new(product: Product) -> Self {
        let tcb = if product.is_turin() { [1, 1, 1, 4, 0, 0, 0, 72] } else { [3, 0, 0, 0, 0, 0, 20, 209] };
        Self {
            seed: 0,
            product,
            version: Version { major: 1, minor: 55, build: 21, tcb },
            report_version: 3,
            smt: true,
            cxl: false,
            aes_256_xts: false,
            rapl_dis: false,
            ciphertext_hiding: false,
            es_asids: 99,
            sev_asids: 410,
        }
    }
}
