//! What the library knows: the plan, which descriptors are KVM's, and the dispatcher once there is one.

use crate::memory;
use crate::process::Own;
use crate::syscall_unsafe::pid;
use exeunt_interpose::dispatch::Dispatcher;
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::ring::Writer;
use exeunt_model::UserMemory;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(crate) use crate::start_unsafe::with_fd;

/// What was said when the library was loaded.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) plan: Plan,
    pub(crate) ring: Arc<Writer>,
}

static START: OnceLock<Start> = OnceLock::new();

/// Remembers what is to be done. Without it the library does nothing.
pub(crate) fn start(start: Start) {
    // It is loaded once.
    let _ = START.set(start);
}

/// What is to be done, if anything.
pub(crate) fn plan() -> Option<&'static Plan> {
    START.get().map(|start| &start.plan)
}

/// A process that opened a device.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) process: Arc<Own>,
    pub(crate) memory: Arc<dyn UserMemory>,
    pub(crate) stage: Stage,
    pid: u32,
}

static ACTIVE: AtomicPtr<Active> = AtomicPtr::new(std::ptr::null_mut());
static MAKING: Mutex<()> = Mutex::new(());

/// What the process has, if it opened a device.
#[inline]
pub(crate) fn active() -> Option<&'static Active> {
    crate::start_unsafe::borrowed(&ACTIVE)
}

/// The same; of a child that shares its parent's memory it is not the child's.
pub(crate) fn own_active() -> Option<&'static Active> {
    active().filter(|active| active.pid == pid())
}

/// Makes a dispatcher, if there is none. `None`: there is nothing to be done, or it cannot be done, which was recorded.
pub(crate) fn activate() -> Option<&'static Active> {
    if let Some(active) = active() {
        return Some(active);
    }
    let Start { plan, ring } = START.get()?;
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(active) = active() {
        return Some(active);
    }
    let (process, pid) = (Arc::new(Own::default()), pid());
    match Dispatcher::new(plan, pid, Arc::<Own>::clone(&process), Arc::<Writer>::clone(ring)) {
        Ok(dispatcher) => {
            let memory = Arc::new(memory::Own);
            let active = Box::new(Active { dispatcher, process, memory, stage: plan.stage, pid });
            // It stays for as long as the process: other threads may be in it at any time.
            ACTIVE.store(Box::leak(active), Ordering::Release);
        }
        Err(error) => {
            let what = exeunt_interpose::record::What::Trouble { why: error.to_string() };
            ring.put(&exeunt_interpose::record::Record { pid, what });
        }
    }
    active()
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing of KVM's.
    None,
    /// KVM's, and known to the dispatcher.
    Ours,
    /// KVM's, of the process that this one was forked from.
    Inherited,
    /// `/dev/kvm`, opened by the process that this one was forked from.
    InheritedKvm,
    /// `/dev/sev`, likewise.
    InheritedSev,
}

/// Descriptors that can be told apart. Processes have fewer.
const MOST_FILES: usize = 1 << 20;
static MARKS: [AtomicU8; MOST_FILES] = [const { AtomicU8::new(0) }; MOST_FILES];
/// Above all marks that were ever made.
static END: AtomicI32 = AtomicI32::new(0);

/// Known to the dispatcher.
const OURS: u8 = 1 << 0;
/// Of the process that this one was forked from.
const INHERITED: u8 = 1 << 1;
/// It is `/dev/kvm`.
const KVM: u8 = 1 << 2;
/// It is `/dev/sev`.
const SEV: u8 = 1 << 3;

fn place(fd: i32) -> Option<&'static AtomicU8> {
    MARKS.get(usize::try_from(fd).ok()?)
}

/// What a descriptor is.
#[inline]
pub(crate) fn marked(fd: i32) -> Mark {
    let bits = place(fd).map_or(0, |mark| mark.load(Ordering::Acquire));
    match bits {
        0 => Mark::None,
        bits if bits & INHERITED == 0 => Mark::Ours,
        bits if bits & KVM != 0 => Mark::InheritedKvm,
        bits if bits & SEV != 0 => Mark::InheritedSev,
        _ => Mark::Inherited,
    }
}

/// Remembers what a descriptor is.
pub(crate) fn mark(fd: i32, mark: Mark) {
    set(
        fd,
        match mark {
            Mark::None => 0,
            Mark::Ours => OURS,
            Mark::Inherited => INHERITED,
            Mark::InheritedKvm => INHERITED | KVM,
            Mark::InheritedSev => INHERITED | SEV,
        },
    );
}

/// Remembers that a descriptor is one of a device that was opened.
pub(crate) fn mark_device(fd: i32, device: &[u8]) {
    set(fd, OURS | if device == b"/dev/kvm" { KVM } else { SEV });
}

/// Remembers that a descriptor leads where another one leads.
pub(crate) fn copy_mark(from: i32, to: i32) {
    set(to, place(from).map_or(0, |mark| mark.load(Ordering::Acquire)));
}

fn set(fd: i32, bits: u8) {
    let Some(place) = place(fd) else { return };
    place.store(bits, Ordering::Release);
    END.fetch_max(fd.saturating_add(1), Ordering::Relaxed);
}

/// The descriptors of a range that are KVM's.
pub(crate) fn marked_between(first: u32, last: u32) -> impl Iterator<Item = i32> {
    let end = END.load(Ordering::Relaxed);
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    let past = i32::try_from(last).unwrap_or(i32::MAX).saturating_add(1);
    (first..past.min(end)).filter(|fd| marked(*fd) != Mark::None)
}

/// A guest has memory that can be given back.
static HAS_SLOTS: AtomicBool = AtomicBool::new(false);

/// Remembers that calls which give memory back are to be looked at.
pub(crate) fn note_slots() {
    HAS_SLOTS.store(true, Ordering::Relaxed);
}

/// Whether calls that give memory back are to be looked at.
#[inline]
pub(crate) fn has_slots() -> bool {
    HAS_SLOTS.load(Ordering::Relaxed)
}

/// This is a child now, with a copy of all memory: what its parent had is not its own.
pub(crate) fn forked() {
    if active().is_none() {
        return;
    }
    // The parent's threads may have held any lock, so nothing of it is touched again.
    ACTIVE.store(std::ptr::null_mut(), Ordering::Release);
    HAS_SLOTS.store(false, Ordering::Relaxed);
    for fd in marked_between(0, u32::MAX) {
        let bits = place(fd).map_or(0, |mark| mark.load(Ordering::Relaxed));
        set(fd, bits & (KVM | SEV) | INHERITED);
    }
}
