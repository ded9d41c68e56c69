//! Why bytes are not a snapshot, and why a target cannot take one.

use exeunt_abi::kvm::caps::Cap;
use std::io::ErrorKind;
use thiserror::Error;

/// Why bytes are not a snapshot. Nothing has been done with any of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes cannot be read.
    #[error("the snapshot cannot be read at byte {at}: {kind}")]
    Read {
        /// The kind of the error.
        kind: ErrorKind,
        /// How far the reader is, in bytes.
        at: u64,
    },
    /// The bytes end before the snapshot does.
    #[error("the snapshot is cut off: what was to end at byte {at} does not")]
    Truncated {
        /// Where what is cut off was to end, in bytes.
        at: u64,
    },
    /// It begins with other bytes than a snapshot.
    #[error("not a snapshot: it begins with {magic:02x?}")]
    NotASnapshot {
        /// The first bytes.
        magic: [u8; 8],
    },
    /// It is of another format.
    #[error("the snapshot has format {major}.{minor}, which this reader does not have")]
    OtherFormat {
        /// Its major number.
        major: u16,
        /// Its minor number.
        minor: u16,
    },
    /// Its header has flags, and none exists.
    #[error("the header has unknown flags {bits:#x}")]
    HeaderFlags {
        /// The flags.
        bits: u32,
    },
    /// It is longer than the reader takes.
    #[error("the snapshot is longer than {limit_bytes} bytes")]
    TooLong {
        /// What the reader takes.
        limit_bytes: u64,
    },
    /// A section is longer than the reader takes.
    #[error("section {id:#x} says that it has {bytes} bytes, more than {limit_bytes}")]
    SectionTooLong {
        /// The section.
        id: u32,
        /// What it says.
        bytes: u64,
        /// What the reader takes.
        limit_bytes: u64,
    },
    /// A section has flags that are not known.
    #[error("section {id:#x} has unknown flags {bits:#x}")]
    SectionFlags {
        /// The section.
        id: u32,
        /// Only the unknown bits.
        bits: u32,
    },
    /// A section is not as it was written.
    #[error("the checksum of section {id:#x}, which ends at byte {at}, is wrong")]
    Checksum {
        /// The section.
        id: u32,
        /// Where it ends, in bytes.
        at: u64,
    },
    /// The end section is not one.
    #[error("the end has {bytes} bytes and flags {flags:#x}")]
    End {
        /// Its length in bytes.
        bytes: u64,
        /// Its flags.
        flags: u32,
    },
    /// Sections were taken away or put in.
    #[error("the end counts {said} sections, and there are {found}")]
    SectionCount {
        /// What the end says.
        said: u64,
        /// What was there.
        found: u64,
    },
    /// The whole is not as it was written, though each section is.
    #[error("the digest of the whole is wrong")]
    Digest,
    /// Something follows the end.
    #[error("bytes follow the end of the snapshot at byte {at}")]
    BehindTheEnd {
        /// Where they begin.
        at: u64,
    },
    /// A section is not known, and says that it must be.
    #[error("section {id:#x} is not known here and must be understood: it comes from a newer writer")]
    UnknownSection {
        /// The section.
        id: u32,
    },
    /// A section that every snapshot has is not there.
    #[error("section {id:#x} is missing")]
    Missing {
        /// The section.
        id: u32,
    },
    /// A section that there can be only one of is there again.
    #[error("section {id:#x} is there twice")]
    Duplicate {
        /// The section.
        id: u32,
    },
    /// A section's bytes have no meaning.
    #[error("section {id:#x} is malformed: {flaw}")]
    Malformed {
        /// The section.
        id: u32,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// What is wrong inside of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It ends too early.
    #[error("it ends too early")]
    TooShort,
    /// Bytes are left over.
    #[error("{bytes} bytes are left over")]
    LeftOver {
        /// How many.
        bytes: u64,
    },
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotText,
    /// A number that has to be one of a few is another.
    #[error("{number:#x} has no meaning there")]
    UnknownNumber {
        /// The number.
        number: u64,
    },
    /// A run of pages is empty, or ends above the address space.
    #[error("{pages:#x} pages from frame {gfn:#x} are no run of pages")]
    BadRange {
        /// The first frame.
        gfn: u64,
        /// How many.
        pages: u64,
    },
    /// Things that have to ascend do not, or two are the same or overlap.
    #[error("{number:#x} does not follow what is before it")]
    Order {
        /// The first that does not.
        number: u64,
    },
    /// A page is where no slot is, or where a private page is; or attributes are where no slot can have them.
    #[error("frame {gfn:#x} has no memory that a snapshot could hold")]
    NoMemory {
        /// The frame.
        gfn: u64,
    },
    /// What the target needs is not said, although the rest of the snapshot shows that it is needed.
    #[error("the target needs {cap}, and the snapshot does not say so")]
    NeedNotSaid {
        /// The capability.
        cap: Cap,
    },
    /// A need that nothing in this format has.
    #[error("the snapshot carries memory or registers of a VM whose memory and registers nobody can read")]
    UnreadableCarried,
}

/// Why a target cannot take a snapshot. It has not been touched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The snapshot has only what the VMM can see of a VM that nobody can read.
    #[error(
        "the snapshot holds no memory and no registers: the source is a {vm_type} VM, which its VMM cannot read"
    )]
    OutsideOnly {
        /// The type of the VM by name, or its number.
        vm_type: String,
    },
    /// The target has another architecture.
    #[error("the source is of architecture {source_arch}, the target of {target_arch}")]
    Arch {
        /// Of the source.
        source_arch: String,
        /// Of the target.
        target_arch: String,
    },
    /// The target makes no VMs of this type.
    #[error("the target makes no VM of type {vm_type}")]
    VmType {
        /// By name, or its number.
        vm_type: String,
    },
    /// The target lacks a capability.
    #[error("the target lacks {cap} with {value:#x} (it offers {offered:#x}): {why}")]
    Capability {
        /// The capability.
        cap: Cap,
        /// What it has to offer.
        value: u64,
        /// What it offers.
        offered: u64,
        /// What it is needed for.
        why: String,
    },
    /// The memory attributes have bits that nothing here can set.
    #[error("the memory attributes {bits:#x} are unknown")]
    Attributes {
        /// Only the unknown bits.
        bits: u64,
    },
    /// A vCPU carries state in an area that is not known here.
    #[error("vCPU {vcpu} carries state of kind {kind:#x}, which is not known here")]
    UnknownState {
        /// The vCPU.
        vcpu: u64,
        /// The kind.
        kind: u32,
    },
    /// A vCPU's events have flags without a meaning here.
    #[error("the events of vCPU {vcpu} carry unknown flags {bits:#x}")]
    UnknownEvents {
        /// The vCPU.
        vcpu: u64,
        /// Only the unknown bits.
        bits: u32,
    },
}
