//! The secure processor: firmware with real cryptography, behind a mailbox that can fail.
//!
//! Nothing here knows KVM. A [`Psp`] is the processor of one host; its clones are handles of the same one. All that it
//! draws by chance a seed decides, and whatever it certifies says SIMULATED.

mod certificates;
mod config;
mod cpuid;
mod digest;
mod guest;
mod identity;
mod message;
mod platform;
mod report;
mod request;
mod seed;
pub mod session;
pub mod sev;
mod sev_certs;
mod sev_platform;
mod snp;
mod verify;
mod vlek;

pub use certificates::{Authority, CertificateError};
pub use config::{Product, PspConfig};
pub use digest::{LaunchDigest, PageType, VMSA_GPA};
pub use guest::GuestState;
pub use identity::sign_id_block;
pub use message::{Kind, MessageKey, OpenError};
pub use platform::{Endorser, Version};
pub use sev_certs::SevCertificate;
pub use verify::{Verifier, VerifyError};

use exeunt_abi::Errno;
use exeunt_abi::kvm::sev::firmware;
pub(crate) use guest::Finish;
pub(crate) use platform::Platform;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the firmware answers: [`exeunt_abi::kvm::sev::firmware`], never 0.
pub(crate) type Status = u32;

/// How guest requests are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// By the secure processor of the host.
    #[default]
    Real,
    /// Without it: the command completes with this status, 0 for success, and leaves the response page zero.
    Completes {
        /// `SEV_RET_*` of the firmware.
        status: u32,
    },
    /// Without it: the command does not complete.
    Fails(Errno),
}

/// A command that failed: what the ioctl fails with, and what the firmware said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// What the caller gets.
    pub errno: Errno,
    /// `error` of the command's struct, as in [`firmware`]; 0 if the firmware said nothing.
    pub error: u32,
}

impl CommandError {
    /// A failure before the firmware was asked.
    #[must_use]
    pub const fn before(errno: Errno) -> Self {
        Self { errno, error: firmware::SUCCESS }
    }

    /// What the driver makes of a status of the firmware.
    #[must_use]
    pub const fn of_firmware(status: u32) -> Self {
        Self { errno: Errno::EIO, error: status }
    }
}

impl From<Errno> for CommandError {
    fn from(errno: Errno) -> Self {
        Self::before(errno)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno)?;
        match firmware::name(self.error) {
            _ if self.error == firmware::SUCCESS => Ok(()),
            Some(name) => write!(f, ", firmware {name}"),
            None => write!(f, ", firmware {:#x}", self.error),
        }
    }
}

impl std::error::Error for CommandError {}

/// What is wrong with the secure processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PspFault {
    /// Nothing.
    #[default]
    None,
    /// The next commands are not carried out and complete with this status.
    Status {
        /// `SEV_RET_*`, not 0.
        status: u32,
        /// How many commands.
        commands: u32,
    },
    /// The driver cannot take the next commands: they fail with `EBUSY`.
    Busy {
        /// How many commands.
        commands: u32,
    },
    /// The next command times out, and the processor is dead from then on.
    TimesOut,
    /// Every command fails with `EBUSY`.
    ///
    /// Source: Linux v7.2 `drivers/crypto/ccp/sev-dev.c`, `__sev_do_cmd_locked`: `psp_dead`.
    Dead,
}

/// The secure processor of a host.
#[derive(Clone, Debug)]
pub struct Psp(Arc<Mutex<Mailbox>>);

#[derive(Debug)]
struct Mailbox {
    platform: Platform,
    fault: PspFault,
}

impl Default for Psp {
    fn default() -> Self {
        Self::new(PspConfig::default())
    }
}

impl Psp {
    /// A processor that has been initialised, as KVM leaves it when it is loaded.
    #[must_use]
    pub fn new(config: PspConfig) -> Self {
        Self(Arc::new(Mutex::new(Mailbox { platform: Platform::new(config), fault: PspFault::None })))
    }

    /// Lets the next commands fail, or no more.
    pub fn set_fault(&self, fault: PspFault) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command.
    ///
    /// Source: Linux v7.2 `drivers/crypto/ccp/sev-dev.c`, `__sev_do_cmd_locked`: any status but 0 is `EIO`.
    pub(crate) fn command<T>(
        &self,
        run: impl FnOnce(&mut Platform) -> Result<T, Status>,
    ) -> Result<T, CommandError> {
        let mut mailbox = self.lock();
        let (result, fault) = match mailbox.fault {
            PspFault::None => return run(&mut mailbox.platform).map_err(CommandError::of_firmware),
            PspFault::Status { commands: 0, .. } | PspFault::Busy { commands: 0 } => {
                mailbox.fault = PspFault::None;
                return run(&mut mailbox.platform).map_err(CommandError::of_firmware);
            }
            PspFault::Status { status, commands } => (
                CommandError::of_firmware(status),
                PspFault::Status { status, commands: commands.saturating_sub(1) },
            ),
            PspFault::Busy { commands } => {
                (CommandError::before(Errno::EBUSY), PspFault::Busy { commands: commands.saturating_sub(1) })
            }
            PspFault::TimesOut => (CommandError::before(Errno::ETIMEDOUT), PspFault::Dead),
            PspFault::Dead => (CommandError::before(Errno::EBUSY), PspFault::Dead),
        };
        mailbox.fault = fault;
        Err(result)
    }

    /// Reads the platform without a command.
    pub(crate) fn peek<T>(&self, read: impl FnOnce(&mut Platform) -> T) -> T {
        read(&mut self.lock().platform)
    }
}
