//! The guest's memory in the VMM's process: where the slots are, what of it is given back, what is written into it.

use super::argument::{half_at, word_at};
use super::run::Vcpu;
use super::{Dispatcher, Outcome};
use crate::record::{File, Memory, What};
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::run::{ExitReason, RunPage, SnpReqCerts, TdxGetQuote};
use exeunt_abi::{Errno, PAGE_SIZE, ghci};
use exeunt_model::UserMemory;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// `FALLOC_FL_PUNCH_HOLE`.
const PUNCH_HOLE: u32 = 1 << 1;
/// `MADV_DONTNEED`, `MADV_FREE`, `MADV_REMOVE` and `MADV_DONTNEED_LOCKED`: what gives memory back.
const GIVES_BACK: [i32; 4] = [4, 8, 9, 24];
/// Bytes of a guest's buffer that are looked at.
const MOST_BYTES: u64 = 64 * PAGE_SIZE;

/// The memory slots of all VMs, by VM and number.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<(u32, u32), Slot>);

#[derive(Clone, Copy, Debug)]
struct Slot {
    gpa: u64,
    bytes: u64,
    uaddr: u64,
}

impl Slots {
    /// `KVM_SET_USER_MEMORY_REGION` and its successor, whose structs begin alike.
    fn set(&mut self, vm: u32, region: &[u8]) -> Option<()> {
        let slot = half_at(region, 0)?;
        let [gpa, bytes, uaddr] = [word_at(region, 8)?, word_at(region, 16)?, word_at(region, 24)?];
        if bytes == 0 {
            self.0.remove(&(vm, slot));
        } else {
            self.0.insert((vm, slot), Slot { gpa, bytes, uaddr });
        }
        Some(())
    }

    /// Where a part of a VM's memory lies, from its start up to the first address that no slot has.
    pub(super) fn find(&self, vm: u32, gpa: u64, bytes: u64) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let (mut gpa, mut left) = (gpa, bytes);
        while left != 0 {
            let slots = self.0.range((vm, 0)..=(vm, u32::MAX)).map(|(_, slot)| slot);
            let at = |slot: &&Slot| gpa.checked_sub(slot.gpa).is_some_and(|offset| offset < slot.bytes);
            let Some(slot) = slots.into_iter().find(at) else { break };
            let offset = gpa.saturating_sub(slot.gpa);
            let take = left.min(slot.bytes.saturating_sub(offset));
            let start = slot.uaddr.saturating_add(offset);
            found.push(start..start.saturating_add(take));
            (gpa, left) = (gpa.saturating_add(take), left.saturating_sub(take));
        }
        found
    }

    /// Whether a guest's memory is in a range of addresses.
    fn meets(&self, addresses: &Range<u64>) -> bool {
        self.0
            .values()
            .any(|slot| slot.uaddr < addresses.end && addresses.start < slot.uaddr.saturating_add(slot.bytes))
    }
}

/// A buffer that the VMM was asked to fill, as it was.
#[derive(Debug)]
pub(super) struct Watch {
    gpa: u64,
    parts: Vec<Range<u64>>,
    before: Vec<u8>,
}

impl Dispatcher {
    /// A slot was set.
    pub(super) fn set_slot(&self, vm: u32, region: &[u8]) {
        // A struct that could not be read was not set either.
        let _ = self.slots.lock().unwrap_or_else(PoisonError::into_inner).set(vm, region);
    }

    /// `fallocate` under [`crate::plan::Stage::Scripted`].
    pub fn fallocate(&self, fd: i32, mode: u32, offset: i64, bytes: i64) -> Outcome {
        let (Some(model), Some(file)) = (&self.model, self.files.file(fd)) else { return Outcome::NotOurs };
        if !self.process.is_same(fd) {
            self.close(fd);
            return Outcome::NotOurs;
        }
        let result = model.fallocate(fd, mode, offset, bytes);
        self.tell_of_private(file, mode, offset, bytes, result);
        Outcome::Done(result.map(|()| 0))
    }

    /// The kernel did an `fallocate` on any file. A hole in one that a guest's memory is mapped from gives it back.
    pub fn fallocated(&self, fd: i32, mode: u32, offset: i64, bytes: i64, result: Result<(), Errno>) {
        if let Some(file) = self.files.file(fd) {
            self.tell_of_private(file, mode, offset, bytes, result);
            return;
        }
        let (Ok(offset), Ok(bytes)) = (u64::try_from(offset), u64::try_from(bytes)) else { return };
        if mode & PUNCH_HOLE == 0 || !self.has_slots() {
            return;
        }
        let end = offset.saturating_add(bytes);
        for mapped in self.process.mapped(fd) {
            let start = offset.max(mapped.offset_bytes);
            let end = end.min(mapped.offset_bytes.saturating_add(mapped.bytes));
            if start < end {
                let uaddr = mapped.uaddr.saturating_add(start.saturating_sub(mapped.offset_bytes));
                self.tell_of_shared(uaddr, end.saturating_sub(start), result);
            }
        }
    }

    /// The kernel did an `madvise`.
    pub fn madvised(&self, uaddr: u64, bytes: u64, advice: i32, result: Result<(), Errno>) {
        if GIVES_BACK.contains(&advice) {
            self.tell_of_shared(uaddr, bytes, result);
        }
    }

    /// Whether a guest has memory that could be given back.
    #[must_use]
    pub fn has_slots(&self) -> bool {
        !self.slots.lock().unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    fn tell_of_private(&self, file: File, mode: u32, offset: i64, bytes: i64, result: Result<(), Errno>) {
        let (Ok(offset_bytes), Ok(bytes)) = (u64::try_from(offset), u64::try_from(bytes)) else { return };
        if mode & PUNCH_HOLE != 0 && matches!(file, File::Gmem(..)) {
            self.put(What::Discard { memory: Memory::Private { file, offset_bytes, bytes }, result });
        }
    }

    fn tell_of_shared(&self, uaddr: u64, bytes: u64, result: Result<(), Errno>) {
        let addresses = uaddr..uaddr.saturating_add(bytes);
        let meets = self.slots.lock().unwrap_or_else(PoisonError::into_inner).meets(&addresses);
        if meets {
            self.put(What::Discard { memory: Memory::Shared { uaddr, bytes }, result });
        }
    }

    /// Takes a copy of the buffer that an exit asks the VMM to fill.
    pub(super) fn watch(
        &self,
        vcpu: &Vcpu,
        result: Result<(), Errno>,
        after: &RunPage,
        memory: &Arc<dyn UserMemory>,
    ) {
        if result.is_err() {
            return;
        }
        let (gpa, bytes) = match after.reason() {
            ExitReason::SNP_REQ_CERTS => {
                let asked: SnpReqCerts = after.payload();
                (asked.gpa, asked.npages.saturating_mul(PAGE_SIZE))
            }
            ExitReason::TDX => {
                let asked: TdxGetQuote = after.payload();
                if asked.nr != ghci::leaf::GET_QUOTE {
                    return;
                }
                (asked.gpa, asked.size)
            }
            _ => return,
        };
        let parts = self.slots.lock().unwrap_or_else(PoisonError::into_inner).find(
            vcpu.vm,
            gpa,
            bytes.min(MOST_BYTES),
        );
        let before = copy(memory, &parts);
        let mut watch = vcpu.watch.lock().unwrap_or_else(PoisonError::into_inner);
        *watch = Some(Watch { gpa, parts, before });
        vcpu.is_watched.store(true, Ordering::Release);
    }

    /// Tells what the VMM wrote into the buffer that it was asked to fill, at the entry that answers.
    #[inline]
    pub(super) fn tell_what_was_written(&self, vcpu: &Vcpu, memory: &Arc<dyn UserMemory>) {
        if vcpu.is_watched.load(Ordering::Acquire) {
            self.look_at_watched(vcpu, memory);
        }
    }

    fn look_at_watched(&self, vcpu: &Vcpu, memory: &Arc<dyn UserMemory>) {
        vcpu.is_watched.store(false, Ordering::Release);
        let watch = vcpu.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Watch { gpa, parts, before }) = watch else { return };
        let mut now = copy(memory, &parts);
        let last = now.iter().zip(&before).rposition(|(now, before)| now != before);
        if let Some(last) = last {
            // What was there before and is written again cannot be told from what was left alone.
            now.truncate(last.saturating_add(1));
            self.put(What::Wrote { vm: vcpu.vm, gpa, bytes: now });
        }
    }

    /// What is behind an argument after a call, and the file that the call made.
    pub(super) fn behind(
        &self,
        on: File,
        request: u32,
        arg: u64,
        result: Result<u32, Errno>,
        memory: &Arc<dyn UserMemory>,
    ) -> (Vec<u8>, Option<(i32, File)>) {
        let after = super::argument::bytes(memory.as_ref(), request, arg);
        let Ok(value) = result else { return (after, None) };
        let request = nr::Ioctl(request);
        if let (File::Vm(vm), nr::KVM_SET_USER_MEMORY_REGION | nr::KVM_SET_USER_MEMORY_REGION2) =
            (on, request)
        {
            self.set_slot(vm, &after);
        }
        let made = self.adopt(on, request, arg, value, &after);
        (after, made)
    }
}

fn copy(memory: &Arc<dyn UserMemory>, parts: &[Range<u64>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let length = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(0);
        let mut to = vec![0; length];
        // A part that is not mapped stays zero, both times.
        let _ = memory.read(part.start, &mut to);
        bytes.append(&mut to);
    }
    bytes
}
