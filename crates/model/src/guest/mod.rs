//! Guests written as Rust programs.
//!
//! A program is an `async` function that acts on a [`Cpu`]. Each act is one thing that hardware would do: touch
//! memory, execute `VMGEXIT`, make a hypercall. It hands control to the engine behind `KVM_RUN` and gets it back when
//! the guest is entered again, so an act may cost no exit, one, or many; the program sees only what a real guest
//! would see in its registers, its GHCB and its memory.

mod cpu;
pub(crate) mod mailbox;
pub mod message;
mod nested;
pub mod snp;
pub mod tdx;
mod view;

use crate::nested::NestedExit;
use std::fmt;

pub use cpu::{Cpu, Pvalidated};
pub(crate) use view::View;

/// Whether the guest maps a page with the C-bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// C-bit clear: the page that the host sees.
    Shared,
    /// C-bit set: the page that only the guest sees.
    Private,
}

/// An exception that the guest gets instead of the result of its act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestFault {
    /// `#VC`: a private page that the guest did not validate (exit code 0x404).
    NotValidated {
        /// The address.
        gpa: u64,
    },
    /// `#VC`: an access to no memory, which an SEV-ES guest has to ask for through its GHCB.
    NoMemory {
        /// The address.
        gpa: u64,
    },
    /// `#VC`: an SEV-ES guest has to ask for this instruction through its GHCB.
    VmmCommunication,
    /// `#VE`: a TD executed an instruction that it has to ask the host for, touched an address without memory, or a
    /// page that it did not accept.
    VirtualizationException {
        /// The address, if it was an access.
        gpa: u64,
    },
    /// `#UD`: the CPU does not have the instruction.
    InvalidOpcode,
    /// `#GP`: the instruction is refused.
    GeneralProtection,
    /// Not an exception: L2 came back to L1, and the act was L2's last.
    NestedExit(NestedExit),
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotValidated { gpa } => write!(f, "#VC: private page at {gpa:#x} is not validated"),
            Self::NoMemory { gpa } => write!(f, "#VC: no memory at {gpa:#x}"),
            Self::VmmCommunication => f.write_str("#VC: an instruction that the hypervisor has to emulate"),
            Self::VirtualizationException { gpa } => write!(f, "#VE at {gpa:#x}"),
            Self::InvalidOpcode => f.write_str("#UD"),
            Self::GeneralProtection => f.write_str("#GP"),
            Self::NestedExit(exit) => exit.fmt(f),
        }
    }
}

impl std::error::Error for GuestFault {}

/// What a guest did or saw, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An act that leaves the guest.
    Did(String),
    /// What the guest found in its registers or memory afterwards.
    Saw(String),
}
