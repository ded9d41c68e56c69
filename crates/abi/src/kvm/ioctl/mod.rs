//! ioctl numbers: how they are put together, and which file takes which.
//!
//! Source: Linux v7.2 `include/uapi/asm-generic/ioctl.h`, whose form x86, arm64 and riscv64 share.

mod table;

use core::fmt;

pub use table::*;

/// An ioctl number: bits 7:0 the number, 15:8 the type, 29:16 the bytes of the argument, 31:30 the direction.
///
/// A 32-bit process may compute another number for the same call where the argument holds a `long` or a pointer; see
/// [`Form`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ioctl(pub u32);

/// Which way the argument goes, seen from the process. It is a hint: the handler copies as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `_IO`: no argument, or a plain number.
    None,
    /// `_IOW`: the process hands bytes over.
    Write,
    /// `_IOR`: the process gets bytes.
    Read,
    /// `_IOWR`: both.
    ReadWrite,
}

/// The parts of an ioctl number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    /// Bits 31:30.
    pub direction: Direction,
    /// Bits 29:16: bytes of the argument, at most 16383.
    pub size_bytes: u16,
    /// Bits 15:8: 0xae for KVM, 0x53 for `/dev/sev` and `/dev/sev-guest`.
    pub kind: u8,
    /// Bits 7:0.
    pub nr: u8,
}

/// A file that takes ioctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fd {
    /// `/dev/kvm`.
    Kvm,
    /// A VM.
    Vm,
    /// A vCPU.
    Vcpu,
    /// A device of `KVM_CREATE_DEVICE`.
    Device,
    /// `/dev/sev`, on the host.
    DevSev,
    /// `/dev/sev-guest`, in the guest.
    SevGuest,
}

/// Which processes compute this number from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// 64-bit processes, and 32-bit processes where no other form is in the table. The kernel handles this number.
    Native,
    /// i386 and x32, because the argument holds a `long` or a pointer. The kernel handles the number.
    Ilp32Translated,
    /// i386 and x32, because the argument is a `long`. No kernel handles the number.
    Ilp32Refused,
    /// i386 alone, which aligns a `u64` to 4 bytes. No kernel handles the number.
    I386Refused,
}

/// What is known of an ioctl number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The number.
    pub ioctl: Ioctl,
    /// The name in the header.
    pub name: &'static str,
    /// The files that take it.
    pub fds: &'static [Fd],
    /// Which processes compute it.
    pub form: Form,
}

/// The type of KVM's ioctls, `KVMIO`.
pub const KVMIO: u8 = 0xae;
/// The type of the ioctls of `/dev/sev` and `/dev/sev-guest`, `'S'`.
pub const SEV_IOC_TYPE: u8 = b'S';

/// Builds an ioctl number. Bits of `size_bytes` above the lowest 14 are dropped.
#[must_use]
pub const fn ioctl(direction: Direction, size_bytes: u16, kind: u8, nr: u8) -> Ioctl {
    let direction = match direction {
        Direction::None => 0,
        Direction::Write => 1,
        Direction::Read => 2,
        Direction::ReadWrite => 3,
    };
    Ioctl(direction << 30 | (size_bytes as u32 & 0x3fff) << 16 | (kind as u32) << 8 | nr as u32)
}

impl Ioctl {
    /// The parts of the number. Every number has them; [`Direction::None`] with a size occurs in no header here.
    #[must_use]
    pub const fn parts(self) -> Parts {
        let direction = match self.0 >> 30 {
            0 => Direction::None,
            1 => Direction::Write,
            2 => Direction::Read,
            _ => Direction::ReadWrite,
        };
        Parts {
            direction,
            size_bytes: (self.0 >> 16 & 0x3fff) as u16,
            kind: (self.0 >> 8 & 0xff) as u8,
            nr: (self.0 & 0xff) as u8,
        }
    }

    /// What the boundary knows of the number.
    #[must_use]
    pub fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.ioctl == self)
    }

    /// The name in the header, for each form of the number.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.known().map(|known| known.name)
    }

    /// The number with this name, in its native form.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KNOWN.iter().find(|known| known.name == name && known.form == Form::Native).map(|known| known.ioctl)
    }
}

impl fmt::Display for Ioctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(known) = self.known() else {
            return write!(f, "ioctl {:#x}", self.0);
        };
        let form = match known.form {
            Form::Native => "",
            Form::Ilp32Translated => ", the 32-bit form",
            Form::Ilp32Refused | Form::I386Refused => ", a 32-bit form that no kernel takes",
        };
        write!(f, "{} ({:#x}{form})", known.name, self.0)
    }
}

impl fmt::Debug for Ioctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
