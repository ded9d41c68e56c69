//! Where certificates come from, and what keeps them from changing while a guest's report is made.

use super::CheckedTable;
use std::fmt::Debug;
use std::sync::Arc;

/// A source of certificates. vCPU threads share it, and each asks at the moment its guest does.
pub trait Provider: Send + Sync + Debug {
    /// The table as it is now, and what keeps it so.
    ///
    /// It may wait, but not for long: the guest's vCPU waits with it, and a guest that is told to come back does so
    /// after 2 seconds.
    ///
    /// # Errors
    ///
    /// There is no table for this guest now, or at all.
    fn lease(&self) -> Result<Lease, Unavailable>;
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It is being changed: the guest is to come back.
    Busy,
    /// There is none and will be none. A Linux guest gives up attestation for good.
    Broken,
}

/// What keeps certificates and firmware as they are until it is dropped, such as a lock on a file.
pub trait Guard: Send + Debug {}

/// A table that does not change while this lives.
///
/// It is to live until `KVM_RUN` has returned `EINTR` under `immediate_exit` after the answer: the firmware makes the
/// report in that call. [`crate::run::step`] sees to it.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/x86/amd-memory-encryption.rst`, `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    table: Arc<CheckedTable>,
    guard: Option<Box<dyn Guard>>,
}

impl Lease {
    /// A table that cannot change, or whose changes do not matter.
    pub const fn of(table: Arc<CheckedTable>) -> Self {
        Self { table, guard: None }
    }

    /// A table that stays as it is until the guard is dropped.
    pub fn guarded(table: Arc<CheckedTable>, guard: impl Guard + 'static) -> Self {
        Self { table, guard: Some(Box::new(guard)) }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &CheckedTable {
        &self.table
    }

    /// Whether something is released when this is dropped, so that it matters when that is.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }
}
