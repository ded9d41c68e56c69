//! Guest images for VMMs that load a file: firmware and kernels of a few dozen instructions.
//!
//! Every image prints one line to the first serial port, does some port I/O, and ends. How often it exits in between and
//! how it ends is set when the file is made. The first bytes of all of them are laid out alike:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0x00 | 8 | a jump to the code |
//! | 0x08 | 8 | `exeunt` |
//! | 0x10 | 4 | how often port 0x80 is written |
//! | 0x14 | 4 | how it ends |
//! | 0x18 | 10 | the address and limit of an interrupt table, zero |
//! | 0x28 | 6 | the limit and address of the segment table |
//! | 0x30 | 32 | the segment table: none, code of 32 bits, data, code of 64 bits |
//! | 0x50 | 32 | the line, with a zero behind it |
//! | 0x80 | | code that changes the mode |
//! | 0x100 | | the code |

mod code;
mod elf;
mod file;

pub use file::ImageFile;

use elf::Place;
use std::fmt;
use zerocopy::IntoBytes;

/// What a guest image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageKind {
    /// Firmware of 64 KiB that stays in real mode. It also runs as a flat binary that is entered at its first byte.
    Rom16,
    /// Firmware of 64 KiB that runs in protected mode.
    Rom32,
    /// A kernel that is entered in protected mode, by its PVH note.
    Pvh32,
    /// A kernel for long mode, entered there, or in protected mode by its PVH note.
    Elf64,
}

/// How a guest image ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// By whatever the VMM has: isa-debug-exit at 0xf4, the ACPI sleep register at 0x600, the keyboard controller's
    /// reset, and at last a halt.
    #[default]
    Exit,
    /// By the keyboard controller's reset.
    Reset,
    /// By a halt with interrupts off.
    Halt,
    /// By a triple fault in protected or long mode, which is `KVM_EXIT_SHUTDOWN`.
    TripleFault,
}

/// What can be chosen about a guest image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ImageOptions {
    /// How often port 0x80 is written, one exit each.
    pub exits: u32,
    /// How it ends.
    pub ending: Ending,
}

const ROM_BYTES: usize = 0x1_0000;
/// Where the reset vector is in a ROM.
const RESET_VECTOR: usize = 0xfff0;
const MODE_CODE: usize = 0x80;
const CODE: usize = 0x100;
/// Where a ROM of 64 KiB is, and where the others are loaded: where x86-64 Linux is.
const ROM_LOAD: u32 = 0xffff_0000;
const KERNEL_LOAD: u32 = 0x100_0000;
/// What the page tables of a kernel need behind the first page.
const KERNEL_BYTES: u64 = 0x4000;
/// From address 0 to 4 GiB: none, code of 32 bits, data, code of 64 bits.
const SEGMENTS: [u64; 4] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff];

impl ImageKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Rom16, Self::Rom32, Self::Pvh32, Self::Elf64];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rom16 => "rom16",
            Self::Rom32 => "rom32",
            Self::Pvh32 => "pvh32",
            Self::Elf64 => "elf64",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The bytes of a file that a VMM can load.
    #[must_use]
    pub fn build(self, options: ImageOptions) -> Vec<u8> {
        let mut image = self.header(options);
        let (mode, code) = match self {
            Self::Rom16 => (&[][..], code::real().0),
            Self::Rom32 => (code::rom_to_protected().0, code::protected().0),
            Self::Pvh32 => (code::pvh_to_protected().0, code::protected().0),
            Self::Elf64 => (code::pvh_to_long().0, code::long().0),
        };
        for (offset, part) in [(MODE_CODE, mode), (CODE, code)] {
            image.resize(offset, 0);
            image.extend_from_slice(part);
        }
        let load = u64::from(KERNEL_LOAD);
        let at = |offset: usize| load + offset as u64;
        match self {
            Self::Rom16 | Self::Rom32 => {
                image.resize(RESET_VECTOR, 0);
                // A jump to the first byte: IP goes around at 64 KiB.
                image.extend([0xe9, 0x0d, 0x00]);
                image.resize(ROM_BYTES, 0);
                image
            }
            Self::Pvh32 | Self::Elf64 => {
                let entry = if self == Self::Pvh32 { at(MODE_CODE) } else { at(CODE) };
                let place = Place { load, memory_bytes: KERNEL_BYTES, entry, pvh_entry: at(MODE_CODE) };
                elf::wrap(&image, &place)
            }
        }
    }

    /// What is before the code.
    fn header(self, options: ImageOptions) -> Vec<u8> {
        let load = if matches!(self, Self::Rom16 | Self::Rom32) { ROM_LOAD } else { KERNEL_LOAD };
        // A jump in 16 bits to 0x100, or one to 0x80.
        let jump = if self == Self::Rom16 { [0xe9, 0xfd, 0x00] } else { [0xeb, 0x7e, 0x90] };
        let parts: [(usize, &[u8]); 7] = [
            (0, &jump),
            (0x08, b"exeunt\0\0"),
            (0x10, &options.exits.to_le_bytes()),
            (0x14, &options.ending.number().to_le_bytes()),
            (0x28, &[0x1f, 0]),
            (0x2a, &(load + 0x30).to_le_bytes()),
            (0x30, SEGMENTS.as_bytes()),
        ];
        let mut header = Vec::new();
        for (offset, bytes) in parts {
            header.resize(offset, 0);
            header.extend_from_slice(bytes);
        }
        header.extend_from_slice(self.line().as_bytes());
        header
    }

    /// What it prints.
    #[must_use]
    pub fn line(self) -> String {
        format!("exeunt {} runs\r\n", self.name())
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 4] = [Self::Exit, Self::Reset, Self::Halt, Self::TripleFault];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Reset => "reset",
            Self::Halt => "halt",
            Self::TripleFault => "triple-fault",
        }
    }

    /// The ending of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == name)
    }

    /// As the code knows it.
    const fn number(self) -> u32 {
        match self {
            Self::Exit => 0,
            Self::Reset => 1,
            Self::Halt => 2,
            Self::TripleFault => 3,
        }
    }
}

#[cfg(test)]
mod tests;
