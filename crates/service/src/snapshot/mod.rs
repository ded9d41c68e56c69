//! Snapshots of a VM: what they hold, their bytes, taking one and giving it to another VM.
//!
//! A [`Snapshot`] is a value. [`save`](save::save) takes it of a VM whose vCPUs are [`Drained`], [`Snapshot::write`] and
//! [`Snapshot::read`] are its bytes, [`Snapshot::check`] asks whether a target can take it before the target is touched,
//! and [`Snapshot::restore_memory`] and [`restore_vcpu`] give it to a new VM. What the kernel said is carried as it was
//! said: events, `mp_state` and registers are the bytes of the ioctls.
//!
//! `docs/migration.md` has the format.

pub mod container;
mod error;
mod events;
mod restore;
mod said;
pub mod save;
pub mod section;
mod wire;

pub use container::{Digest, Limits, MAGIC, Reader, Section, Writer};
pub use error::{Flaw, FormatError, Refusal};
pub use events::{EventParts, SavedEvents, SnapshotError};
pub use restore::{RestoreError, Target, check_head, restore_vcpu};
pub use said::{Said, area_name};
pub use save::{Drained, Layout, PrivatePages, SaveError, save, save_vcpu};
pub use section::{AreaState, AttributeRun, Contents, DeviceState, Need, Origin, SlotLayout, VcpuState, Why};

use container::MUST_UNDERSTAND;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::{VALID_PAYLOAD, VALID_TRIPLE_FAULT};
use exeunt_abi::{Gfn, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use section::{Counts, id};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use wire::Cursor;

/// Bytes of a page as a length.
pub const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE);
/// Pages of one section at most: 256 KiB.
const PAGES_PER_SECTION: usize = 64;

/// A page with content.
pub type Page = Box<[u8; PAGE_BYTES]>;

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it comes from.
    pub origin: Origin,
    /// What a target must offer, in ascending order. [`Snapshot::needs`] says what follows from the rest.
    pub needs: Vec<Need>,
    /// The slots, by their frames.
    pub slots: Vec<SlotLayout>,
    /// The memory attributes that are not 0, by their frames.
    pub attributes: Vec<AttributeRun>,
    /// The VMM's devices, by name.
    pub devices: Vec<DeviceState>,
    /// The vCPUs, by id.
    pub vcpus: Vec<VcpuState>,
    /// The shared pages that are not zero, by their frame.
    pub pages: BTreeMap<u64, Page>,
    /// Sections of a newer writer that may be skipped. They are written again as they came.
    pub unknown: Vec<Section>,
}

impl Snapshot {
    /// The device with this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&[u8]> {
        self.devices.iter().find(|device| device.name == name).map(|device| device.bytes.as_slice())
    }

    /// What the rest of the snapshot asks of a target.
    #[must_use]
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = BTreeSet::new();
        for VcpuState { events, .. } in &self.vcpus {
            if events.flags & VALID_TRIPLE_FAULT != 0 && events.triple_fault_pending != 0 {
                needs.insert(Need { cap: Cap::X86_TRIPLE_FAULT_EVENT, why: Why::TripleFault, value: 1 });
            }
            if events.flags & VALID_PAYLOAD != 0 && events.exception_pending != 0 {
                needs.insert(Need { cap: Cap::EXCEPTION_PAYLOAD, why: Why::ExceptionPayload, value: 1 });
            }
        }
        // The two of the events are needed only where something is lost without them.
        let of_events = [Cap::X86_TRIPLE_FAULT_EVENT, Cap::EXCEPTION_PAYLOAD];
        let enabled = self.origin.enabled.iter().filter(|(cap, _)| !of_events.contains(cap));
        needs.extend(enabled.map(|&(cap, value)| Need { cap, why: Why::Enabled, value }));
        let value = self.attributes.iter().fold(0, |bits, run| bits | run.attributes);
        if !self.attributes.is_empty() {
            needs.insert(Need { cap: Cap::MEMORY_ATTRIBUTES, why: Why::PrivateMemory, value });
        }
        needs.into_iter().collect()
    }

    /// The payloads of the first two sections, which say what a target has to be able to do.
    #[must_use]
    pub fn head(&self) -> (Vec<u8>, Vec<u8>) {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let counts = Counts {
            devices: count(self.devices.len()),
            vcpus: count(self.vcpus.len()),
            pages: self.pages.len() as u64,
        };
        (section::put_origin(&self.origin, counts), section::put_needs(&self.needs))
    }

    /// Writes the snapshot, and says what its digest is.
    ///
    /// # Errors
    ///
    /// As `to` has them.
    pub fn write<W: Write>(&self, to: W) -> io::Result<(W, Digest)> {
        let mut writer = Writer::new(to)?;
        let (origin, needs) = self.head();
        writer.section(id::ORIGIN, MUST_UNDERSTAND, &origin)?;
        writer.section(id::NEEDS, MUST_UNDERSTAND, &needs)?;
        writer.section(id::SLOTS, MUST_UNDERSTAND, &section::put_slots(&self.slots))?;
        writer.section(id::ATTRIBUTES, MUST_UNDERSTAND, &section::put_attributes(&self.attributes))?;
        for device in &self.devices {
            writer.section(id::DEVICE, MUST_UNDERSTAND, &section::put_device(device))?;
        }
        for vcpu in &self.vcpus {
            writer.section(id::VCPU, MUST_UNDERSTAND, &section::put_vcpu(vcpu))?;
        }
        for (gfn, run) in runs(&self.pages) {
            let mut payload = gfn.to_le_bytes().to_vec();
            for page in run {
                payload.extend(page.as_slice());
            }
            writer.section(id::PAGES, MUST_UNDERSTAND, &payload)?;
        }
        for other in &self.unknown {
            writer.section(other.id, other.flags, &other.payload)?;
        }
        writer.finish()
    }

    /// Reads a snapshot to its end, and says what its digest is. Memory is bounded by the limits.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn read(from: impl Read, limits: Limits) -> Result<(Self, Digest), FormatError> {
        let mut reader = Reader::new(from, limits)?;
        let mut reading = Reading::default();
        while let Some(section) = reader.section()? {
            reading.take(section)?;
        }
        let digest = reader.digest().ok_or(FormatError::Digest)?;
        Ok((reading.finish()?, digest))
    }

    /// The slot that has a frame.
    fn slot(&self, gfn: u64) -> Option<&SlotLayout> {
        let behind = self.slots.partition_point(|slot| slot.range.gfn().0 <= gfn);
        self.slots.get(behind.checked_sub(1)?).filter(|slot| gfn < slot.range.end().0)
    }

    /// The first frame of a run that has no memory for its attributes.
    fn first_without_memory(&self, run: &AttributeRun) -> Option<u64> {
        let mut gfn = run.range.gfn().0;
        while gfn < run.range.end().0 {
            let slot = self.slot(gfn).filter(|slot| slot.has_private || !run.is_private());
            match slot {
                Some(slot) => gfn = slot.range.end().0,
                None => return Some(gfn),
            }
        }
        None
    }

    /// Whether a frame is private.
    #[must_use]
    pub fn is_private(&self, gfn: Gfn) -> bool {
        is_private(&self.attributes, gfn.0)
    }
}

fn is_private(runs: &[AttributeRun], gfn: u64) -> bool {
    let behind = runs.partition_point(|run| run.range.gfn().0 <= gfn);
    let run = behind.checked_sub(1).and_then(|index| runs.get(index));
    run.is_some_and(|run| gfn < run.range.end().0 && run.is_private())
}

/// Pages with neighbouring frames, as many as one section takes.
fn runs(pages: &BTreeMap<u64, Page>) -> Vec<(u64, Vec<&Page>)> {
    let mut runs: Vec<(u64, Vec<&Page>)> = Vec::new();
    for (&gfn, page) in pages {
        match runs.last_mut() {
            Some((first, run))
                if run.len() < PAGES_PER_SECTION
                    && first.checked_add(run.len() as u64).is_some_and(|next| next == gfn) =>
            {
                run.push(page);
            }
            _ => runs.push((gfn, vec![page])),
        }
    }
    runs
}

/// A snapshot that is not yet complete.
#[derive(Debug, Default)]
struct Reading {
    origin: Option<(Origin, Counts)>,
    needs: Option<Vec<Need>>,
    slots: Option<Vec<SlotLayout>>,
    attributes: Option<Vec<AttributeRun>>,
    devices: Vec<DeviceState>,
    vcpus: Vec<VcpuState>,
    pages: BTreeMap<u64, Page>,
    unknown: Vec<Section>,
    last: u32,
}

impl Reading {
    fn take(&mut self, section: Section) -> Result<(), FormatError> {
        let Section { id, flags, payload } = &section;
        if section::name(*id).is_none() {
            if flags & MUST_UNDERSTAND != 0 {
                return Err(FormatError::UnknownSection { id: *id });
            }
            // What is known comes first, so that who cannot take it knows so early.
            if self.origin.is_none() {
                return Err(FormatError::Missing { id: id::ORIGIN });
            }
            self.unknown.push(section);
            return Ok(());
        }
        let from = Cursor::new(*id, payload);
        if self.origin.is_none() && *id != id::ORIGIN {
            return Err(FormatError::Missing { id: id::ORIGIN });
        }
        if *id < self.last {
            return Err(from.flawed(Flaw::Order { number: (*id).into() }));
        }
        self.last = *id;
        match *id {
            id::ORIGIN => once(&mut self.origin, *id, section::take_origin(from)?),
            id::NEEDS => once(&mut self.needs, *id, section::take_needs(from)?),
            id::SLOTS => once(&mut self.slots, *id, section::take_slots(from)?),
            id::ATTRIBUTES => once(&mut self.attributes, *id, section::take_attributes(from)?),
            id::DEVICE => {
                let device = section::take_device(from)?;
                if self.devices.last().is_some_and(|last| last.name >= device.name) {
                    return Err(FormatError::Duplicate { id: *id });
                }
                self.devices.push(device);
                Ok(())
            }
            id::VCPU => {
                let vcpu = section::take_vcpu(from)?;
                if self.vcpus.last().is_some_and(|last| last.id >= vcpu.id) {
                    return Err(FormatError::Duplicate { id: *id });
                }
                self.vcpus.push(vcpu);
                Ok(())
            }
            _ => self.take_pages(from),
        }
    }

    fn take_pages(&mut self, from: Cursor<'_>) -> Result<(), FormatError> {
        let (range, pages) = take_pages(from)?;
        let first = range.gfn().0;
        if self.pages.last_key_value().is_some_and(|(last, _)| *last >= first) {
            return Err(from.flawed(Flaw::Order { number: first }));
        }
        for (gfn, bytes) in (first..range.end().0).zip(pages.chunks_exact(PAGE_BYTES)) {
            let page: Page = Box::new(bytes.try_into().unwrap_or([0; PAGE_BYTES]));
            self.pages.insert(gfn, page);
        }
        Ok(())
    }

    fn finish(self) -> Result<Snapshot, FormatError> {
        let missing = |id| FormatError::Missing { id };
        let (origin, counts) = self.origin.ok_or(missing(id::ORIGIN))?;
        let needs = self.needs.ok_or(missing(id::NEEDS))?;
        let slots = self.slots.ok_or(missing(id::SLOTS))?;
        let attributes = self.attributes.ok_or(missing(id::ATTRIBUTES))?;
        let Self { devices, vcpus, pages, unknown, .. } = self;
        if devices.len() as u64 != u64::from(counts.devices) {
            return Err(missing(id::DEVICE));
        }
        if vcpus.len() as u64 != u64::from(counts.vcpus) {
            return Err(missing(id::VCPU));
        }
        if pages.len() as u64 != counts.pages {
            return Err(missing(id::PAGES));
        }
        let snapshot = Snapshot { origin, needs, slots, attributes, devices, vcpus, pages, unknown };
        if snapshot.origin.contents == Contents::OutsideOnly
            && snapshot.vcpus.iter().any(|vcpu| !vcpu.areas.is_empty())
        {
            return Err(FormatError::Malformed { id: id::VCPU, flaw: Flaw::UnreadableCarried });
        }
        for &gfn in snapshot.pages.keys() {
            if snapshot.slot(gfn).is_none() || snapshot.is_private(Gfn(gfn)) {
                return Err(FormatError::Malformed { id: id::PAGES, flaw: Flaw::NoMemory { gfn } });
            }
        }
        if let Some(gfn) = snapshot.attributes.iter().find_map(|run| snapshot.first_without_memory(run)) {
            return Err(FormatError::Malformed { id: id::ATTRIBUTES, flaw: Flaw::NoMemory { gfn } });
        }
        if let Some(need) = snapshot.needs().into_iter().find(|need| !snapshot.needs.contains(need)) {
            let flaw = Flaw::NeedNotSaid { cap: need.cap };
            return Err(FormatError::Malformed { id: id::NEEDS, flaw });
        }
        Ok(snapshot)
    }
}

/// A run of pages and their bytes.
fn take_pages(mut from: Cursor<'_>) -> Result<(PageRange, &[u8]), FormatError> {
    let first = from.u64()?;
    let bytes = from.take_rest();
    let chunks = bytes.chunks_exact(PAGE_BYTES);
    let left_over = chunks.remainder().len() as u64;
    if left_over != 0 || bytes.is_empty() {
        return Err(from.flawed(Flaw::LeftOver { bytes: left_over }));
    }
    let pages = chunks.len() as u64;
    let range = PageRange::new(Gfn(first), pages);
    range.map(|range| (range, bytes)).ok_or_else(|| from.flawed(Flaw::BadRange { gfn: first, pages }))
}

fn once<T>(place: &mut Option<T>, id: u32, value: T) -> Result<(), FormatError> {
    if place.is_some() {
        return Err(FormatError::Duplicate { id });
    }
    *place = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests;
