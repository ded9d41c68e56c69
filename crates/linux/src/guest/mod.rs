//! Small guests: a few instructions each, loaded to one address and entered there.
//!
//! The assembler is the compiler's own, so that the text that is shown is the text that runs.

mod code;

use exeunt_abi::Gpa;

/// Where every guest of this crate is loaded: behind the first page, which holds the real-mode interrupt table.
const LOAD: Gpa = Gpa(0x1000);

/// The CPU mode that a guest starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Real mode: the code segment starts at `load`, every other segment at 0.
    Real,
    /// Protected mode: flat segments of 4 GiB, paging off, an interrupt table of limit 0.
    Protected,
}

/// A guest without firmware and operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatGuest {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// How it starts.
    pub mode: Mode,
    /// Where its first byte goes; below 1 MiB and a multiple of 4096.
    pub load: Gpa,
    /// Where its first instruction is. In real mode, IP starts as the distance from `load`.
    pub entry: Gpa,
    /// Its bytes.
    pub image: &'static [u8],
    /// The assembly text that the bytes come from, in Intel syntax.
    pub source: &'static str,
}

/// The guest with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<FlatGuest> {
    all().into_iter().find(|guest| guest.name == name)
}

/// Every guest.
#[must_use]
pub fn all() -> [FlatGuest; 8] {
    let guest = |name, mode, (image, source), about| {
        let (load, entry) = (LOAD, LOAD);
        FlatGuest { name, about, mode, load, entry, image, source }
    };
    [
        guest(
            "port-io",
            Mode::Real,
            code::port_io(),
            "Writes \"exeunt\" to port 0x3f8 byte by byte, copies a byte from port 0x60 to port 0x80, halts.",
        ),
        guest("hlt", Mode::Real, code::hlt(), "Halts, as often as it is entered."),
        guest(
            "shutdown",
            Mode::Protected,
            code::shutdown(),
            "Shuts down by a triple fault: a division by zero with an empty interrupt table.",
        ),
        guest("spin", Mode::Real, code::spin(), "Spins until somebody takes it out of the guest."),
        guest(
            "string-io",
            Mode::Real,
            code::string_io(),
            "Writes 8 bytes to port 0x3f8 with one instruction, halts.",
        ),
        guest(
            "string-in",
            Mode::Real,
            code::string_in(),
            "Reads 8 bytes from port 0x60 with one instruction, writes the last to port 0x80, halts.",
        ),
        guest(
            "count",
            Mode::Real,
            code::count(),
            "Writes 0, 1, 2 and so on to port 0x1e0, and counts in a register and in memory.",
        ),
        guest(
            "mmio",
            Mode::Protected,
            code::mmio(),
            "Writes 4 bytes to 0xd0000000, where no memory is, reads 4 bytes there, halts.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_guest() {
        for guest in all() {
            assert_eq!(by_name(guest.name), Some(guest));
        }
        assert_eq!(by_name("linux"), None);
    }

    #[test]
    fn the_images_are_what_the_sources_say() {
        let image = |name| by_name(name).unwrap().image;
        assert_eq!(image("hlt"), [0xf4, 0xeb, 0xfd]);
        assert_eq!(image("spin"), [0xeb, 0xfe]);
        assert_eq!(image("shutdown"), [0x31, 0xc9, 0xf7, 0xf1]);
        assert_eq!(image("port-io")[2..8], *b"exeunt");
        assert_eq!(image("string-io")[2..10], *b"exeunt!\n");
        assert_eq!(image("mmio")[..5], [0xbb, 0, 0, 0, 0xd0]);
        for guest in all() {
            assert!(guest.image.len() < 64, "{}", guest.name);
            assert!(guest.load.is_page_aligned() && guest.load.0 < 1 << 20);
            assert!(guest.entry >= guest.load);
        }
    }
}
