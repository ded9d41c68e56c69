//! Wrong on purpose: what is put between a VMM half and the boundary so that the VMM is wrong in one way.
//!
//! Each hook sees what the VMM half does, or what it gets, and changes it. What comes of it goes over the boundary and
//! is recorded there, so a checker cannot tell a twisted VMM from one that is wrong by itself.

use super::transcript::{Effect, End};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::RunPage;
use exeunt_proto::exit::{Entered, Exit};

/// The last exit, as the kernel half left it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) vcpu: u64,
    pub(super) entered: Entered,
    pub(super) page: RunPage,
    /// What it means, if anything.
    pub(super) exit: Option<Exit>,
}

/// What becomes of an entry that is to drain a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// It is made.
    Enter,
    /// It is not made, and nothing is said to be pending.
    Skip,
    /// It is made without `immediate_exit`, once.
    Run,
}

/// How a VMM enables the certificates of SNP guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EnableCerts {
    /// After it asked, before the first vCPU.
    #[default]
    InOrder,
    /// Without asking.
    Unasked,
    /// After the vCPUs.
    Late,
}

type Hook<F> = Option<Box<F>>;
type Read = dyn FnMut(&mut Entered, &mut RunPage, &RunPage) + Send;
type Answer = dyn FnMut(&Seen, &mut RunPage) + Send;
type InsteadOf = dyn FnMut(&Seen, Effect) -> Vec<Effect> + Send;
type Unasked = dyn FnMut(&Seen) -> Vec<Effect> + Send;
type AtEnd = dyn FnMut(&Seen, End) -> Option<End> + Send;
type GiveUp = dyn FnMut(&Seen, &RunPage) -> Option<End> + Send;

/// The changes. An empty one changes nothing.
#[derive(Default)]
pub(super) struct Twist {
    /// Changes what the half finds in the page, or what `KVM_RUN` is said to have returned. The last page is what a
    /// second look at the live page would find.
    pub(super) read: Hook<Read>,
    /// Changes what is handed over with the next entry.
    pub(super) answer: Hook<Answer>,
    /// Does something else to memory.
    pub(super) effect: Hook<InsteadOf>,
    /// Does something to memory that nobody asked for, before an entry.
    pub(super) before_entry: Hook<Unasked>,
    /// Ends otherwise, or with `None` goes on.
    pub(super) end: Hook<AtEnd>,
    /// As `read`, in a 32-bit process only.
    pub(super) read_as_32_bit: Hook<dyn FnMut(&mut RunPage) + Send>,
    /// Ends where nothing ended. The page holds the answer.
    pub(super) give_up: Hook<GiveUp>,
    /// Drains otherwise.
    pub(super) drain: Hook<dyn FnMut(&Seen) -> Drain + Send>,
    /// Believes that a capability has this value, without asking.
    pub(super) believes: Hook<dyn FnMut(Cap) -> Option<u64> + Send>,
    /// Enables with another argument, or not at all. The value is what the kernel said.
    pub(super) enable: Hook<dyn FnMut(Cap, u64, u64) -> Option<u64> + Send>,
    /// Enables certificates otherwise.
    pub(super) enable_certs: EnableCerts,
    /// Makes something else of the events that it read.
    pub(super) saved: Hook<dyn FnMut(VcpuEvents) -> VcpuEvents + Send>,
    /// Sets other events, perhaps more than once, up to the first that is taken.
    pub(super) set: Hook<dyn FnMut(VcpuEvents) -> Vec<VcpuEvents> + Send>,
    /// Sets events right after it read them.
    pub(super) after_save: Hook<dyn FnMut(VcpuEvents) -> Option<VcpuEvents> + Send>,
    /// Runs what could not be restored.
    pub(super) runs_unrestored: bool,
    /// Runs on with the other vCPUs when one is shut down.
    pub(super) shuts_down_one: bool,
    /// What it does at the certificate file.
    pub(super) file: FileHabit,
}

/// What a VMM does at the certificate file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FileHabit {
    /// Locks, reads, and gives the lock back when the answer has been taken.
    #[default]
    Right,
    /// Reads without a lock.
    NoLock,
    /// Gives the lock back when the file is read.
    EarlyUnlock,
    /// Waits for the lock for ever.
    Forever,
    /// Reads once and keeps the content.
    ReadOnce,
}
