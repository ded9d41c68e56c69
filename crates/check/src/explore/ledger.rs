//! What a guest was told and what it left where: the side of a world that the kernel half must agree with.

use super::PAGES_PER_GUEST;
use exeunt_abi::{Gfn, PAGE_SIZE};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages that a guest shares for good: its GHCB, and a message to the firmware and its answer.
pub(super) const GHCB: u64 = 0;
pub(super) const REQUEST: u64 = 1;
pub(super) const RESPONSE: u64 = 2;
/// Room for certificates.
pub(super) const CERTIFICATES: u64 = 3;
/// Pages that a guest converts.
pub(super) const OWN_PAGES: Range<u64> = 4..PAGES_PER_GUEST;

/// Frames that all guests convert as they like and none of them uses, below those of the first guest.
pub(super) const COMMON_FRAMES: Range<u64> = 4..PAGES_PER_GUEST;

/// What a guest knows of one of its pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Page {
    /// A change is under way, or failed half way.
    #[default]
    Unknown,
    /// Private and validated, with this word at its start once one was written.
    Private(Option<u64>),
    /// Shared, with this word at its start once one was written.
    Shared(Option<u64>),
}

/// The ledger of one guest, held by the guest and by the checkers.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) id: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    pages: Vec<Page>,
    /// Words written to the device.
    sent: u64,
    /// Reports that came with certificates.
    reports: u64,
    violation: Option<String>,
}

impl Ledger {
    pub(super) fn new(id: u64) -> Self {
        let pages = vec![Page::Unknown; usize::try_from(PAGES_PER_GUEST).unwrap_or(0)];
        Self { id, state: Arc::new(Mutex::new(State { pages, sent: 0, reports: 0, violation: None })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame of a page of this guest. The lowest frames are nobody's: a GHCB at address 0 is none.
    pub(super) const fn gfn(&self, page: u64) -> Gfn {
        Gfn(self.id.wrapping_add(1).wrapping_mul(PAGES_PER_GUEST).wrapping_add(page))
    }

    /// Where this guest's device is: outside of every slot.
    pub(super) const fn device(&self) -> u64 {
        DEVICES.wrapping_add(self.id.wrapping_mul(PAGE_SIZE))
    }

    pub(super) fn page(&self, page: u64) -> Page {
        let index = usize::try_from(page).unwrap_or(usize::MAX);
        self.lock().pages.get(index).copied().unwrap_or_default()
    }

    pub(super) fn set_page(&self, page: u64, to: Page) {
        let index = usize::try_from(page).unwrap_or(usize::MAX);
        if let Some(page) = self.lock().pages.get_mut(index) {
            *page = to;
        }
    }

    /// The number of the next word for the device.
    pub(super) fn send(&self) -> u64 {
        let mut state = self.lock();
        let number = state.sent;
        state.sent = number.saturating_add(1);
        number
    }

    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
    }

    pub(super) fn count_report(&self) {
        let mut state = self.lock();
        state.reports = state.reports.saturating_add(1);
    }

    pub(super) fn reports(&self) -> u64 {
        self.lock().reports
    }

    /// Keeps the first thing that the guest saw and must not have seen.
    pub(super) fn complain(&self, what: impl FnOnce() -> String) {
        self.lock().violation.get_or_insert_with(what);
    }

    pub(super) fn violation(&self) -> Result<(), String> {
        match &self.lock().violation {
            Some(what) => Err(format!("guest {}: {what}", self.id)),
            None => Ok(()),
        }
    }
}

/// The guest's device number from an address, and the address of device 0.
pub(super) const DEVICES: u64 = 0xf000_0000;
