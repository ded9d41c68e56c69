//! The architectures whose C ABI decides where a field lies.

use serde::Serialize;
use std::fmt;

/// An architecture as a process sees it: word size and alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Target {
    /// x86-64, LP64.
    #[serde(rename = "x86_64")]
    X86_64,
    /// i386, ILP32: the only one that aligns an 8-byte scalar in a struct to 4 bytes.
    #[serde(rename = "i386")]
    I386,
    /// x86-64 with 4-byte pointers and `long`; aligns like x86-64.
    #[serde(rename = "x32")]
    X32,
    /// 64-bit ARM.
    #[serde(rename = "aarch64")]
    Aarch64,
    /// 32-bit ARM, EABI: 4-byte `long`, natural alignment. It has had no KVM of its own since Linux 5.7.
    #[serde(rename = "arm")]
    Arm,
    /// 64-bit RISC-V.
    #[serde(rename = "riscv64")]
    Riscv64,
}

impl Target {
    /// Every target, in the order in which tables show them.
    pub const ALL: [Self; 6] = [Self::X86_64, Self::I386, Self::X32, Self::Aarch64, Self::Arm, Self::Riscv64];

    /// The three targets of x86.
    pub const X86: &'static [Self] = &[Self::X86_64, Self::I386, Self::X32];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::I386 => "i386",
            Self::X32 => "x32",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
            Self::Riscv64 => "riscv64",
        }
    }

    /// The target with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Size and alignment of `long` and of a pointer, in bytes.
    #[must_use]
    pub const fn word_bytes(self) -> u64 {
        match self {
            Self::X86_64 | Self::Aarch64 | Self::Riscv64 => 8,
            Self::I386 | Self::X32 | Self::Arm => 4,
        }
    }

    /// The alignment that a scalar of this size has as a member of a struct, in bytes.
    #[must_use]
    pub const fn align_of_scalar(self, size_bytes: u64) -> u64 {
        match (self, size_bytes) {
            (Self::I386, 8) => 4,
            (_, 0) => 1,
            (_, size) => size,
        }
    }

    /// The 64-bit kernel that runs processes of this target, if KVM serves them.
    ///
    /// Only x86 does: `CONFIG_KVM_COMPAT` is off on arm64 and RISC-V, where a 32-bit process cannot open `/dev/kvm`.
    ///
    /// Source: Linux v7.2 `virt/kvm/Kconfig`, `KVM_COMPAT`, and `virt/kvm/kvm_main.c`, `kvm_no_compat_open`.
    #[must_use]
    pub const fn compat_kernel(self) -> Option<Self> {
        match self {
            Self::I386 | Self::X32 => Some(Self::X86_64),
            Self::X86_64 | Self::Aarch64 | Self::Arm | Self::Riscv64 => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
