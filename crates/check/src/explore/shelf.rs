//! The certificates of a world's host, and who updates them together with the firmware.
//!
//! The update goes on between any two things that the VMM does: the shelf is stirred at each entry and each effect.

use super::devices::Canary;
use exeunt::certs::{CheckedTable, Guard, Lease, Provider, Unavailable};
use exeunt_model::Rng;
use exeunt_model::launch::SevHost;
use exeunt_model::psp::Version;
use exeunt_proto::certs::{Certificate, VCEK};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In so many stirs one goes on.
const ODDS: u64 = 3;

/// Certificates on a shelf. Clones are one shelf.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    inner: Arc<Mutex<Inner>>,
    canary: Option<Canary>,
}

#[derive(Debug)]
struct Inner {
    table: Arc<CheckedTable>,
    /// Leases that have not ended.
    readers: u32,
    update: Update,
    host: SevHost,
    rng: Rng,
    /// Updates that were done.
    updates: u64,
}

/// Where an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Update {
    /// Nobody updates.
    None,
    /// The lock is held; firmware and certificates are of one version still.
    Locked,
    /// The new firmware reports its TCB, and the certificates are those of the old one.
    Committed,
    /// Both are new, and the lock is held.
    Written,
}

/// A table with one certificate: the TCB that it is made for.
fn table_of(tcb: u64) -> Arc<CheckedTable> {
    let bytes = tcb.to_le_bytes();
    let table = CheckedTable::build(&[Certificate { guid: VCEK, bytes: &bytes }]);
    Arc::new(table.unwrap_or_else(|_| CheckedTable::empty()))
}

impl Shelf {
    pub(super) fn new(host: SevHost, seed: u64, canary: Option<Canary>) -> Self {
        let tcb = host.psp().snp_platform_status().map_or(0, |status| status.reported_tcb_version.get());
        let (rng, update) = (Rng::new(seed), Update::None);
        let inner = Inner { table: table_of(tcb), readers: 0, update, host, rng, updates: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), canary }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the update go on, or not.
    pub(super) fn stir(&self) {
        let mut inner = self.lock();
        if inner.rng.below(ODDS) == 0 {
            inner.go_on();
        }
    }

    /// Updates that were done so far.
    pub(super) fn updates(&self) -> u64 {
        self.lock().updates
    }
}

impl Inner {
    fn go_on(&mut self) {
        self.update = match self.update {
            Update::None if self.readers == 0 => Update::Locked,
            Update::Locked if self.commit() => Update::Committed,
            // Somebody reads; or the firmware did not answer, or has no next version, and the files stay as they are.
            Update::None | Update::Locked => Update::None,
            Update::Committed => {
                let status = self.host.psp().snp_platform_status();
                match status {
                    Ok(status) => {
                        self.table = table_of(status.reported_tcb_version.get());
                        Update::Written
                    }
                    Err(_) => Update::Committed,
                }
            }
            Update::Written => {
                self.updates = self.updates.saturating_add(1);
                Update::None
            }
        };
    }

    /// The next version of the firmware, for good. Whether it reports another TCB now.
    fn commit(&self) -> bool {
        let psp = self.host.psp();
        let Ok(status) = psp.snp_platform_status() else { return false };
        let mut tcb = status.current_tcb_version.get().to_le_bytes();
        let Some(snp) = tcb.get_mut(6).filter(|snp| **snp < 200) else { return false };
        *snp = snp.saturating_add(1);
        let version = Version { tcb, ..psp.config().version };
        psp.update_firmware(version).is_ok() && psp.snp_commit().is_ok()
    }
}

/// A lease under way.
#[derive(Debug)]
struct Reader(Shelf);

impl Guard for Reader {}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.readers = inner.readers.saturating_sub(1);
    }
}

impl Provider for Shelf {
    fn lease(&self) -> Result<Lease, Unavailable> {
        let mut inner = self.lock();
        if inner.update != Update::None {
            return Err(Unavailable::Busy);
        }
        let table = Arc::clone(&inner.table);
        if self.canary == Some(Canary::TakesNoLock) {
            return Ok(Lease::of(table));
        }
        inner.readers = inner.readers.saturating_add(1);
        drop(inner);
        Ok(Lease::guarded(table, Reader(self.clone())))
    }
}
