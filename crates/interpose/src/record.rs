//! What crossed the boundary between a VMM and its kernel half, with its bytes, and how records travel.
//!
//! A record is made where the call is: in the VMM's process or in its supervisor. It travels as one block of bytes:
//! process, kind, and fields in the order of the variant, numbers little-endian, byte strings behind a length of 32 bits.

mod wire;

pub use wire::{MAX_BYTES, decode, encode};

use exeunt_abi::Errno;
use exeunt_abi::kvm::run::RunPage;

/// One crossing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The process that made the call.
    pub pid: u32,
    /// The call.
    pub what: What,
}

/// What kind of file a call was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum File {
    /// `/dev/kvm`.
    System,
    /// A VM, by its number in the order in which they were made.
    Vm(u32),
    /// A vCPU: the number of its VM, and the id that the VMM gave.
    Vcpu(u32, u32),
    /// A `guest_memfd`: the number of its VM, and its own number in the order in which they were made.
    Gmem(u32, u32),
    /// An in-kernel device of a VM.
    Device(u32),
    /// `/dev/sev`.
    Sev,
}

/// What crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `open` of `/dev/kvm` or `/dev/sev`.
    Opened {
        /// Which.
        file: File,
        /// The descriptor.
        result: Result<u32, Errno>,
    },
    /// An ioctl other than `KVM_RUN`.
    Ioctl {
        /// On what.
        on: File,
        /// The whole request.
        request: u32,
        /// The argument as it was passed.
        arg: u64,
        /// The bytes behind the argument before the call: as many as the request's size says and, for commands of
        /// `KVM_MEMORY_ENCRYPT_OP`, those of the command behind them. Empty if the argument is no pointer.
        before: Vec<u8>,
        /// The same after the call.
        after: Vec<u8>,
        /// What the call returned.
        result: Result<u32, Errno>,
        /// What the call made, if it made a file.
        made: Option<File>,
    },
    /// `KVM_RUN`.
    Run(Box<Run>),
    /// `KVM_RUN` that waits in the kernel, and may never come back. If it does, there is a [`What::Run`] of it as well.
    Inside {
        /// The number of the VM.
        vm: u32,
        /// The id of the vCPU.
        vcpu: u32,
        /// `immediate_exit` was set when it began.
        immediate: bool,
        /// The page when it was entered.
        before: Box<RunPage>,
    },
    /// `KVM_RUN`s that brought port I/O or MMIO, which nobody judges.
    PlainRuns {
        /// On what.
        on: File,
        /// How many in a row.
        count: u64,
    },
    /// Memory that was given back.
    Discard {
        /// Which.
        memory: Memory,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// Guest memory that the VMM wrote between an exit that asked for it and the next entry.
    Wrote {
        /// The number of the VM.
        vm: u32,
        /// Where, as guest physical address.
        gpa: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Every vCPU's program of the scene has ended.
    SceneOver,
    /// The VMM entered a vCPU more often than the plan allows, and is not let in any more.
    Hung,
    /// The part in the VMM's process cannot go on, and says why.
    Trouble {
        /// A sentence.
        why: String,
    },
}

/// One `KVM_RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the VM.
    pub vm: u32,
    /// The id of the vCPU.
    pub vcpu: u32,
    /// `immediate_exit` was set when it began.
    pub immediate: bool,
    /// The exit was put in by the interposer; the kernel knows nothing of it.
    pub injected: bool,
    /// The page when it was entered: the answer to the exit before.
    pub before: RunPage,
    /// What the call returned.
    pub result: Result<(), Errno>,
    /// The page when it came back.
    pub after: RunPage,
}

/// Memory that can be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// A hole in a `guest_memfd`.
    Private {
        /// The file.
        file: File,
        /// Where it starts, in bytes.
        offset_bytes: u64,
        /// How long it is.
        bytes: u64,
    },
    /// Addresses of the VMM: by `madvise`, or by a hole in a file that is mapped there.
    Shared {
        /// Where it starts.
        uaddr: u64,
        /// How long it is.
        bytes: u64,
    },
}
