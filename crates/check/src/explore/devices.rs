//! The VMM's side of a world: effects on the VM, one device for each guest, and VMMs that are wrong on purpose.

use super::ledger::DEVICES;
use super::shelf::Shelf;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_model::{Effects, Rng};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::{Action, Backing, Host};
use std::collections::BTreeMap;

/// A way in which the VMM of a world is wrong, once in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// It says that it changed attributes, and did not.
    SkipsAttributes,
    /// It converts one page more than was asked for.
    ConvertsTooMuch,
    /// It gives back private memory that is in use.
    DiscardsPrivate,
    /// A word for the device gets lost.
    LosesAWord,
    /// A word for the device arrives twice.
    RepeatsAWord,
    /// It says that it gave memory back, and did not.
    SkipsDiscard,
    /// It hands certificates out while they may change. Caught where the firmware is updated.
    TakesNoLock,
}

impl Canary {
    /// Every way to be wrong.
    pub const ALL: [Self; 7] = [
        Self::SkipsAttributes,
        Self::ConvertsTooMuch,
        Self::DiscardsPrivate,
        Self::LosesAWord,
        Self::RepeatsAWord,
        Self::SkipsDiscard,
        Self::TakesNoLock,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkipsAttributes => "skips-attributes",
            Self::ConvertsTooMuch => "converts-too-much",
            Self::DiscardsPrivate => "discards-private",
            Self::LosesAWord => "loses-a-word",
            Self::RepeatsAWord => "repeats-a-word",
            Self::SkipsDiscard => "skips-discard",
            Self::TakesNoLock => "takes-no-lock",
        }
    }

    /// The canary with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|canary| canary.name() == name)
    }
}

/// One in this many opportunities a canary takes.
const CANARY_ODDS: u64 = 8;

/// Effects and devices.
pub(super) struct Devices {
    effects: Effects,
    canary: Option<Canary>,
    rng: Rng,
    /// Words received, by device.
    received: BTreeMap<u64, u64>,
    violation: Option<String>,
    shelf: Shelf,
}

impl Devices {
    pub(super) const fn new(effects: Effects, canary: Option<Canary>, seed: u64, shelf: Shelf) -> Self {
        Self { effects, canary, rng: Rng::new(seed), received: BTreeMap::new(), violation: None, shelf }
    }

    pub(super) fn received(&self, device: u64) -> u64 {
        self.received.get(&device).copied().unwrap_or(0)
    }

    pub(super) fn violation(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    fn is(&mut self, canary: Canary) -> bool {
        self.canary == Some(canary) && self.rng.below(CANARY_ODDS) == 0
    }

    fn receive(&mut self, gpa: Gpa, data: &[u8]) {
        let Some(device) = gpa.0.checked_sub(DEVICES).map(|offset| offset / PAGE_SIZE) else {
            self.violation.get_or_insert_with(|| format!("a write to {gpa}, where no device is"));
            return;
        };
        let number = data.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let expected = self.received.entry(device).or_default();
        if number != *expected {
            let expected = *expected;
            self.violation
                .get_or_insert_with(|| format!("device {device} received word {number} for word {expected}"));
        }
        *expected = number.wrapping_add(1);
    }
}

/// What the device answers to a read of the word at an address.
pub(super) fn device_word(gpa: Gpa) -> u64 {
    Rng::new(gpa.0).next_u64()
}

impl Host for Devices {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.shelf.stir();
        if matches!(action, Action::Discard { .. }) && self.is(Canary::SkipsDiscard) {
            return Ok(());
        }
        let Action::SetAttributes { range, to } = action else { return self.effects.apply(action) };
        if self.is(Canary::SkipsAttributes) {
            return Ok(());
        }
        if self.is(Canary::DiscardsPrivate) {
            let all = PageRange::new(range.gfn(), 1 << 20).unwrap_or(*range);
            self.effects.apply(&Action::Discard { range: all, backing: Backing::Private })?;
        }
        if self.is(Canary::ConvertsTooMuch) {
            let more = PageRange::new(range.gfn(), range.pages().saturating_add(1)).unwrap_or(*range);
            return self.effects.apply(&Action::SetAttributes { range: more, to: *to });
        }
        self.effects.apply(action)
    }

    fn mmio_write(&mut self, gpa: Gpa, data: &[u8]) {
        if self.is(Canary::LosesAWord) {
            return;
        }
        self.receive(gpa, data);
        if self.is(Canary::RepeatsAWord) {
            self.receive(gpa, data);
        }
    }

    fn mmio_read(&mut self, gpa: Gpa, data: &mut [u8]) {
        let word = device_word(gpa).to_le_bytes();
        data.iter_mut().zip(word).for_each(|(to, from)| *to = from);
    }
}
