//! The wrapping of an image that a VMM loads as a kernel: an ELF file with one segment and one note.

use zerocopy::{Immutable, IntoBytes};

/// `Elf64_Ehdr`.
///
/// Layout: System V ABI, ELF-64 object file format, chapter 4.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    program_headers: u64,
    section_headers: u64,
    flags: u32,
    this_bytes: u16,
    program_header_bytes: u16,
    program_header_count: u16,
    section_header_bytes: u16,
    section_header_count: u16,
    names: u16,
}

/// `Elf64_Phdr`.
///
/// Layout: System V ABI, ELF-64 object file format, chapter 5.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

/// A note with the owner `Xen`.
///
/// Layout: Xen `public/elfnote.h`; `XEN_ELFNOTE_PHYS32_ENTRY` holds the address in 4 or 8 bytes.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Note {
    name_bytes: u32,
    value_bytes: u32,
    kind: u32,
    name: [u8; 4],
    value: u64,
}

const HEADER_BYTES: u16 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;
const NOTE_BYTES: u64 = 24;
const _: () = assert!(size_of::<Header>() == HEADER_BYTES as usize);
const _: () = assert!(size_of::<ProgramHeader>() == PROGRAM_HEADER_BYTES as usize);
const _: () = assert!(size_of::<Note>() as u64 == NOTE_BYTES);

/// Where the segment begins in the file: a page, so that it can be mapped.
const SEGMENT_OFFSET: u16 = 0x1000;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const READ: u32 = 4;
const ALL: u32 = 7;
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;

/// Where the parts of an image are in guest memory.
pub(super) struct Place {
    /// The address of the first byte.
    pub(super) load: u64,
    /// Bytes of memory that it takes, those of the file and zeros behind them.
    pub(super) memory_bytes: u64,
    /// Where a loader that does not look for the note starts, in long mode.
    pub(super) entry: u64,
    /// Where a loader that follows PVH starts, in protected mode.
    pub(super) pvh_entry: u64,
}

/// Wraps an image. The file is of the 64-bit class also where the code is of 32 bits, because the loaders of
/// cloud-hypervisor, crosvm and Firecracker read no other; QEMU reads both.
pub(super) fn wrap(image: &[u8], place: &Place) -> Vec<u8> {
    let headers = u64::from(HEADER_BYTES);
    let note_offset = headers + 2 * u64::from(PROGRAM_HEADER_BYTES);
    let header = Header {
        ident: [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        kind: EXECUTABLE,
        machine: X86_64,
        version: 1,
        entry: place.entry,
        program_headers: headers,
        section_headers: 0,
        flags: 0,
        this_bytes: HEADER_BYTES,
        program_header_bytes: PROGRAM_HEADER_BYTES,
        program_header_count: 2,
        section_header_bytes: 0,
        section_header_count: 0,
        names: 0,
    };
    let segment = ProgramHeader {
        kind: PT_LOAD,
        flags: ALL,
        offset: SEGMENT_OFFSET.into(),
        virtual_address: place.load,
        physical_address: place.load,
        file_bytes: image.len() as u64,
        memory_bytes: place.memory_bytes,
        align: SEGMENT_OFFSET.into(),
    };
    let notes = ProgramHeader {
        kind: PT_NOTE,
        flags: READ,
        offset: note_offset,
        virtual_address: 0,
        physical_address: 0,
        file_bytes: NOTE_BYTES,
        memory_bytes: NOTE_BYTES,
        align: 4,
    };
    let note =
        Note { name_bytes: 4, value_bytes: 8, kind: PHYS32_ENTRY, name: *b"Xen\0", value: place.pvh_entry };
    let mut file = Vec::new();
    for part in [header.as_bytes(), segment.as_bytes(), notes.as_bytes(), note.as_bytes()] {
        file.extend_from_slice(part);
    }
    file.resize(SEGMENT_OFFSET.into(), 0);
    file.extend_from_slice(image);
    file
}
