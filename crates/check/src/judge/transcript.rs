//! What crossed the boundary, in order, and nothing else: this is all that a checker sees.

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::Entered;
use exeunt_proto::host::{Action, Backing};
use std::fmt;

/// One crossing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Which VM: 0, or 1 for the target of a migration.
    pub(super) machine: u8,
    /// What crossed.
    pub(super) crossing: Crossing,
}

/// What crosses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Crossing {
    /// `KVM_CHECK_EXTENSION` on the VM.
    CheckExtension {
        /// The capability.
        cap: Cap,
        /// 0 if it is missing.
        value: u64,
    },
    /// `KVM_ENABLE_CAP`.
    EnableCap {
        /// The capability.
        cap: Cap,
        /// Its first argument.
        argument: u64,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// `KVM_GET_DEVICE_ATTR` on `/dev/kvm`, in the group of SEV.
    SevAttribute {
        /// The attribute.
        attribute: u64,
        /// Its value.
        result: Result<u64, Errno>,
    },
    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
    EnableReqCerts {
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// `KVM_CREATE_VCPU`.
    CreateVcpu {
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// `KVM_RUN`.
    Run(Box<Run>),
    /// Something done to memory.
    Effect {
        /// What.
        effect: Effect,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// `KVM_GET_VCPU_EVENTS`.
    GetEvents {
        /// Which vCPU.
        vcpu: u64,
        /// What it reported.
        result: Result<VcpuEvents, Errno>,
    },
    /// `KVM_SET_VCPU_EVENTS`.
    SetEvents {
        /// Which vCPU.
        vcpu: u64,
        /// What was set.
        events: VcpuEvents,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// A call at the certificate file.
    CertFile(FileCall),
}

/// One `KVM_RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Which vCPU.
    pub(super) vcpu: u64,
    /// With `immediate_exit`.
    pub(super) immediate: bool,
    /// It has not come back: the vCPU waits in the kernel.
    pub(super) is_inside: bool,
    /// The exit was put in between those of a real kernel.
    pub(super) is_injected: bool,
    /// The page when it was entered: the answer to the exit before.
    pub(super) before: RunPage,
    /// What the ioctl returned.
    pub(super) entered: Entered,
    /// The page when it came back.
    pub(super) after: RunPage,
}

/// A call at the file that holds the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileCall {
    /// Somebody else holds the lock: it is not had.
    Refused,
    /// The lock is had.
    Locked,
    /// The content was read: which edition.
    Read(u32),
    /// The lock is given back.
    Unlocked,
}

/// Something done to memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    Attributes {
        /// Which pages.
        range: PageRange,
        /// What they become.
        to: PageState,
    },
    /// A hole is punched.
    Discard {
        /// Which pages.
        range: PageRange,
        /// Which of their two memories.
        backing: Backing,
    },
    /// Bytes for the guest.
    Write {
        /// Where.
        gpa: Gpa,
        /// What.
        bytes: Vec<u8>,
    },
}

impl Effect {
    /// What an action does to memory, if it is one of those.
    pub(super) fn of(action: &Action<'_>) -> Option<Self> {
        Some(match action {
            Action::SetAttributes { range, to } => Self::Attributes { range: *range, to: *to },
            Action::Discard { range, backing } => Self::Discard { range: *range, backing: *backing },
            Action::WriteGuest { gpa, bytes } => Self::Write { gpa: *gpa, bytes: bytes.to_vec() },
            _ => return None,
        })
    }

    pub(super) fn action(&self) -> Action<'_> {
        match self {
            Self::Attributes { range, to } => Action::SetAttributes { range: *range, to: *to },
            Self::Discard { range, backing } => Action::Discard { range: *range, backing: *backing },
            Self::Write { gpa, bytes } => Action::WriteGuest { gpa: *gpa, bytes },
        }
    }

    /// The pages that it touches.
    pub(super) fn range(&self) -> Option<PageRange> {
        match self {
            Self::Attributes { range, .. } | Self::Discard { range, .. } => Some(*range),
            Self::Write { .. } => None,
        }
    }
}

/// How a VMM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// As its parent sees it.
    pub(super) status: Status,
    /// What it said.
    pub(super) text: String,
}

/// How a VMM ended, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The guest is done, or shut down as it wanted.
    Success,
    /// Something is wrong, and the text says what.
    Failure,
    /// The guest is started anew.
    Reset,
    /// The VMM is there, holds an exit that it does not answer, and enters no vCPU any more.
    #[cfg_attr(
        not(all(target_os = "linux", target_arch = "x86_64")),
        expect(dead_code, reason = "only foreign VMMs stop so, and they are judged on x86-64 Linux")
    )]
    Stopped,
    /// The VMM did not end by its own will.
    Crashed,
    /// The VMM did not end.
    Hung,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "it ended well",
            Self::Failure => "it ended and said that something is wrong",
            Self::Reset => "it started the guest anew",
            Self::Stopped => "it holds the exit and enters no vCPU",
            Self::Crashed => "it crashed",
            Self::Hung => "it hung",
        })
    }
}

impl Status {
    /// The VMM gave up, and did not say that all is well.
    pub(super) const fn has_given_up(self) -> bool {
        matches!(self, Self::Failure | Self::Stopped)
    }
}

/// All that crossed the boundary, up to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transcript {
    /// In order.
    pub(super) records: Vec<Record>,
    /// The end.
    pub(super) end: End,
}
