//! Faults and time by plan: what goes wrong, where, and the how-manieth time.
//!
//! The kernel half passes [`Point`]s, places where a real kernel can fail, be interrupted or be raced. Each is counted
//! from 0 for the whole VM. A [`FaultPlan`] says what happens at which count; a seeded one decides it by chance, and
//! the seed decides all of it. A VM without a plan pays one load of a flag for each point.

use crate::rng::Rng;
use exeunt_abi::Errno;
use exeunt_abi::ghcb::psc;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::tdx::CompletionStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place where something can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// `KVM_SET_MEMORY_ATTRIBUTES` is about to store a change, its checks done.
    AttributeChange,
    /// A page of a `guest_memfd` is about to be allocated.
    GmemPage,
    /// `KVM_PRE_FAULT_MEMORY` is about to map a page.
    PreFault,
    /// A vCPU is about to do an act of its guest.
    Act,
    /// KVM is about to read a word of a page-state change descriptor.
    PscRead,
    /// A guest's request is about to be handed to the firmware.
    FirmwareCommand,
    /// KVM is about to allocate its copy of a scratch area outside of the GHCB.
    ScratchBuffer,
    /// KVM is about to read the page of a guest's request, or its type in it. Chance spares it.
    GuestRequestRead,
    /// A page of the initial memory is about to be added to a guest.
    LaunchPage,
    /// The TDX module is about to enter a vCPU.
    VpEnter,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 10] = [
        Self::AttributeChange,
        Self::GmemPage,
        Self::PreFault,
        Self::Act,
        Self::PscRead,
        Self::FirmwareCommand,
        Self::ScratchBuffer,
        Self::GuestRequestRead,
        Self::LaunchPage,
        Self::VpEnter,
    ];

    /// The name in traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttributeChange => "attribute-change",
            Self::GmemPage => "gmem-page",
            Self::PreFault => "pre-fault",
            Self::Act => "act",
            Self::PscRead => "psc-read",
            Self::FirmwareCommand => "firmware-command",
            Self::ScratchBuffer => "scratch-buffer",
            Self::GuestRequestRead => "guest-request-read",
            Self::LaunchPage => "launch-page",
            Self::VpEnter => "vp-enter",
        }
    }
}

/// What goes wrong. One that makes no sense at its point does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with this number. At [`Point::FirmwareCommand`] the command does not complete.
    Fails(Errno),
    /// At [`Point::GmemPage`]: the page is poisoned, and stays so until its hole is punched.
    Poison,
    /// At [`Point::Act`], [`Point::PreFault`] and [`Point::LaunchPage`]: a signal is pending, the ioctl ends with `EINTR`.
    Signal,
    /// At [`Point::PscRead`]: another vCPU of the guest overwrites a word of the descriptor just before it is read.
    Rewrite {
        /// The word: 0 is the header, 1 the first entry.
        word: u64,
        /// The new content.
        value: u64,
    },
    /// At [`Point::FirmwareCommand`]: the firmware completes the command with this status, having done nothing.
    Status(u32),
    /// At [`Point::FirmwareCommand`]: the firmware is updated first, so that its TCB version is another.
    Update,
    /// At [`Point::VpEnter`]: `TDH.VP.ENTER` comes back with this status and has not entered the guest.
    VpEnter(CompletionStatus),
}

/// What goes wrong in a VM.
///
/// Set it with [`crate::Vm::set_fault_plan`].
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    planned: BTreeMap<(Point, u64), Fault>,
    chance: Option<(Rng, u64)>,
    spared: BTreeSet<Point>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans a fault for the `nth` time, counted from 0, that a point is passed.
    #[must_use]
    pub fn with(mut self, point: Point, nth: u64, fault: Fault) -> Self {
        self.planned.insert((point, nth), fault);
        self
    }

    /// A plan by chance: at each point something goes wrong once in `one_in` times, 0 for never.
    #[must_use]
    pub const fn seeded(seed: u64, one_in: u64) -> Self {
        Self { planned: BTreeMap::new(), chance: Some((Rng::new(seed), one_in)), spared: BTreeSet::new() }
    }

    /// Chance spares a point; what is planned for it happens all the same.
    #[must_use]
    pub fn without(mut self, point: Point) -> Self {
        self.spared.insert(point);
        self
    }

    fn draw(&mut self, point: Point) -> Option<Fault> {
        let (rng, one_in) = self.chance.as_mut()?;
        if *one_in == 0 || self.spared.contains(&point) || rng.below(*one_in) != 0 {
            return None;
        }
        Some(match point {
            Point::AttributeChange | Point::ScratchBuffer => Fault::Fails(Errno::ENOMEM),
            Point::GmemPage => match rng.below(4) {
                0 => Fault::Poison,
                1 => Fault::Fails(Errno::EINTR),
                _ => Fault::Fails(Errno::ENOMEM),
            },
            Point::PreFault => match rng.below(2) {
                0 => Fault::Fails(Errno::EAGAIN),
                _ => Fault::Signal,
            },
            Point::Act | Point::LaunchPage => Fault::Signal,
            Point::VpEnter => Fault::VpEnter(match rng.below(4) {
                0 => CompletionStatus::NON_RECOVERABLE_TD,
                1 => CompletionStatus(rng.next_u64()),
                _ => CompletionStatus::OPERAND_BUSY,
            }),
            Point::PscRead => rewrite(rng),
            Point::FirmwareCommand => match rng.below(4) {
                0 => Fault::Fails(Errno::ETIMEDOUT),
                1 => Fault::Status(firmware::HWSEV_RET_PLATFORM),
                _ => Fault::Update,
            },
            Point::GuestRequestRead => return None,
        })
    }
}

/// A word that another vCPU of a hostile or confused guest may write.
fn rewrite(rng: &mut Rng) -> Fault {
    let word = rng.below(psc::MAX_ENTRIES.saturating_add(1));
    let value = match rng.below(4) {
        0 => rng.next_u64(),
        1 => 0,
        // A header with other borders, or an entry half done.
        2 => rng.below(300) | rng.below(300) << 16,
        _ => rng.below(513) | rng.below(0x1000) << 12 | rng.below(5) << 52 | rng.below(2) << 56,
    };
    Fault::Rewrite { word, value }
}

/// A fault that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Where.
    pub point: Point,
    /// The count of the point.
    pub nth: u64,
    /// What.
    pub fault: Fault,
}

/// Faults that are kept for who asks. Those after are counted in no other way than by their points.
const MAX_MET: usize = 4096;

/// The plan of a VM and the counts of its points, shared by all who pass points.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    has_plan: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    counts: BTreeMap<Point, u64>,
    met: Vec<Met>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the plan and counts from 0 again.
    pub(crate) fn set(&self, plan: FaultPlan) {
        *self.lock() = State { plan, ..State::default() };
        self.0.has_plan.store(true, Ordering::Release);
    }

    /// The faults that have happened.
    pub(crate) fn met(&self) -> Vec<Met> {
        self.lock().met.clone()
    }

    /// Whether a plan is set, so that points are counted.
    pub(crate) fn is_planned(&self) -> bool {
        self.0.has_plan.load(Ordering::Acquire)
    }

    /// Passes a point.
    pub(crate) fn at(&self, point: Point) -> Option<Fault> {
        if !self.0.has_plan.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.lock();
        let count = state.counts.entry(point).or_default();
        let nth = *count;
        *count = nth.saturating_add(1);
        let planned = state.plan.planned.get(&(point, nth)).copied();
        let fault = planned.or_else(|| state.plan.draw(point))?;
        if state.met.len() < MAX_MET {
            state.met.push(Met { point, nth, fault });
        }
        Some(fault)
    }

    /// Passes a point where a signal ends an ioctl.
    ///
    /// # Errors
    ///
    /// `EINTR` for [`Fault::Signal`].
    pub(crate) fn signal_at(&self, point: Point) -> Result<(), Errno> {
        match self.at(point) {
            Some(Fault::Signal) => Err(Errno::EINTR),
            _ => Ok(()),
        }
    }

    /// Passes a point that can only fail. Other faults do nothing there.
    ///
    /// # Errors
    ///
    /// The planned number.
    pub(crate) fn fail_at(&self, point: Point) -> Result<(), Errno> {
        match self.at(point) {
            Some(Fault::Fails(errno)) => Err(errno),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
