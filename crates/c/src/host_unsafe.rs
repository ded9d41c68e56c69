//! The host as C callbacks.
#![allow(non_camel_case_types, reason = "the names are those of the header")]

use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::{Conversion, PageState};
use exeunt_proto::exit::Exit;
use exeunt_proto::host::{Action, Backing, Host};

use crate::boundary::returned;

/// What the library asks of the VMM. Addresses are guest physical, sizes are in bytes and multiples of 4096 but for
/// `write_guest` and `read_guest`. Each returns 0 or an errno of either sign. A null callback is one that says
/// EOPNOTSUPP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct exeunt_host {
    /// `sizeof(struct exeunt_host)`: members that a later version adds count as null.
    pub size: usize,
    /// Handed to each callback.
    pub ctx: *mut c_void,
    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    pub set_attributes:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, size: u64, to_private: bool) -> c_int>,
    /// Give back the memory that pages no longer use: the `guest_memfd`, or what the VMM maps. A file, a memfd among them,
    /// needs fallocate with `FALLOC_FL_PUNCH_HOLE`; anonymous memory needs madvise, with `MADV_DONTNEED` if it is mapped
    /// private and `MADV_REMOVE` if it is mapped shared, where the other succeeds and leaves the data.
    pub discard:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, size: u64, private_memory: bool) -> c_int>,
    /// Write to shared guest memory.
    pub write_guest:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, bytes: *const u8, length: usize) -> c_int>,
    /// Read shared guest memory, once.
    pub read_guest:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, bytes: *mut u8, length: usize) -> c_int>,
    /// `KVM_PRE_FAULT_MEMORY` of private pages. It may fail.
    pub prefault: Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, size: u64) -> c_int>,
    /// Pages are about to change: what maps them for devices lets go of pages that become private. An error refuses
    /// the conversion. Null: nothing to do.
    pub before_conversion:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, size: u64, to_private: bool) -> c_int>,
    /// Pages have changed, and nothing has been discarded: what maps memory for devices takes pages in that have
    /// become shared. An error undoes the conversion. Null: nothing to do.
    pub after_conversion:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, size: u64, to_private: bool) -> c_int>,
    /// Pages that `before_conversion` was told of do not change after all.
    pub undo_conversion:
        Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, size: u64, to_private: bool)>,
    /// Keep what can be kept of the guest: the vCPU that this thread serves stops.
    pub dump: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// A vCPU has ended the VM, see `exeunt_vm_stop`: take the others out of `KVM_RUN`, and those that are about to enter
    /// as well. So set `immediate_exit` of each to 1 before its thread gets a signal. Called once for a VM.
    pub kick: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
}

/// The callbacks, as the port's host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callbacks(exeunt_host);

// SAFETY: The header says that callbacks are called by every thread that serves a vCPU, with this pointer.
unsafe impl Send for Callbacks {}
// SAFETY: As above.
unsafe impl Sync for Callbacks {}

impl exeunt_host {
    /// A host of so many bytes that can do nothing.
    const fn without_callbacks(size: usize) -> Self {
        Self {
            size,
            ctx: ptr::null_mut(),
            set_attributes: None,
            discard: None,
            write_guest: None,
            read_guest: None,
            prefault: None,
            before_conversion: None,
            after_conversion: None,
            undo_conversion: None,
            dump: None,
            kick: None,
        }
    }
}

impl Callbacks {
    /// Copies as many members as the caller's struct has.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a null pointer or a size that does not even hold `ctx`.
    ///
    /// # Safety
    ///
    /// `host` is null or points at `host->size` bytes of an `exeunt_host`, whose callbacks can be called with its
    /// `ctx` from any thread for as long as the result or a copy of it lives.
    pub(crate) unsafe fn copy(host: *const exeunt_host) -> Result<Self, Errno> {
        if host.is_null() || !host.is_aligned() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: The pointer is not null, and the caller promises that the first member is there.
        let size = unsafe { host.cast::<usize>().read() };
        if size < offset_of!(exeunt_host, set_attributes) {
            return Err(Errno::EINVAL);
        }
        let mut copy = exeunt_host::without_callbacks(size);
        let bytes = size.min(size_of::<exeunt_host>());
        // SAFETY: Both have that many bytes, and all zero or whole members are values of an `exeunt_host`: a size that
        // ends inside of a callback is cut below.
        unsafe { ptr::copy_nonoverlapping(host.cast::<u8>(), (&raw mut copy).cast(), bytes - bytes % 8) };
        Ok(Self(copy))
    }

    /// Takes the other vCPUs out of the guest.
    pub(crate) fn kick(&self) {
        if let Some(kick) = self.0.kick {
            // SAFETY: By `copy`.
            unsafe { kick(self.0.ctx) };
        }
    }
}

impl Host for Callbacks {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        let ctx = self.0.ctx;
        match *action {
            Action::SetAttributes { range, to } => {
                let callback = self.0.set_attributes.ok_or(Errno::EOPNOTSUPP)?;
                let to_private = to == PageState::Private;
                // SAFETY: By `copy`.
                returned(unsafe { callback(ctx, range.gpa().0, range.bytes(), to_private) })
            }
            Action::Discard { range, backing } => {
                let callback = self.0.discard.ok_or(Errno::EOPNOTSUPP)?;
                let private_memory = backing == Backing::Private;
                // SAFETY: By `copy`.
                returned(unsafe { callback(ctx, range.gpa().0, range.bytes(), private_memory) })
            }
            Action::WriteGuest { gpa, bytes } => {
                let callback = self.0.write_guest.ok_or(Errno::EOPNOTSUPP)?;
                // SAFETY: By `copy`; the bytes are there for as long as the call.
                returned(unsafe { callback(ctx, gpa.0, bytes.as_ptr(), bytes.len()) })
            }
            Action::Prefault { range } => {
                let callback = self.0.prefault.ok_or(Errno::EOPNOTSUPP)?;
                // SAFETY: By `copy`.
                returned(unsafe { callback(ctx, range.gpa().0, range.bytes()) })
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn before_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        let Some(callback) = self.0.before_conversion else { return Ok(()) };
        let (gpa, bytes, to_private) = parts(conversion);
        // SAFETY: By `copy`.
        returned(unsafe { callback(self.0.ctx, gpa, bytes, to_private) })
    }

    fn after_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        let Some(callback) = self.0.after_conversion else { return Ok(()) };
        let (gpa, bytes, to_private) = parts(conversion);
        // SAFETY: By `copy`.
        returned(unsafe { callback(self.0.ctx, gpa, bytes, to_private) })
    }

    fn undo_conversion(&mut self, conversion: Conversion) {
        let Some(callback) = self.0.undo_conversion else { return };
        let (gpa, bytes, to_private) = parts(conversion);
        // SAFETY: By `copy`.
        unsafe { callback(self.0.ctx, gpa, bytes, to_private) };
    }

    fn dump(&mut self, _: &Exit) {
        if let Some(dump) = self.0.dump {
            // SAFETY: By `copy`.
            unsafe { dump(self.0.ctx) };
        }
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        let callback = self.0.read_guest.ok_or(Errno::EOPNOTSUPP)?;
        // SAFETY: By `copy`; the bytes are there, and nobody else's, for as long as the call.
        returned(unsafe { callback(self.0.ctx, gpa.0, bytes.as_mut_ptr(), bytes.len()) })
    }
}

/// A conversion as callbacks take it.
fn parts(conversion: Conversion) -> (u64, u64, bool) {
    let Conversion { range, to } = conversion;
    (range.gpa().0, range.bytes(), to == PageState::Private)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// # Safety
    ///
    /// It uses nothing.
    unsafe extern "C" fn busy(_: *mut c_void, _: u64, _: u64, _: bool) -> c_int {
        -16
    }

    #[test]
    fn members_behind_the_size_count_as_null_and_a_null_callback_is_not_supported() {
        let mut host = exeunt_host {
            size: offset_of!(exeunt_host, discard),
            set_attributes: Some(busy),
            discard: Some(busy),
            ..exeunt_host::without_callbacks(0)
        };
        let range = exeunt_proto::conversion::PageRange::new(exeunt_abi::Gfn(1), 1).unwrap();
        let set = Action::SetAttributes { range, to: PageState::Private };
        let discard = Action::Discard { range, backing: Backing::Shared };
        for (size, results) in [
            (usize::MAX, [Errno::EBUSY, Errno::EBUSY]),
            (16, [Errno::EOPNOTSUPP, Errno::EOPNOTSUPP]),
            (23, [Errno::EOPNOTSUPP, Errno::EOPNOTSUPP]),
            (24, [Errno::EBUSY, Errno::EOPNOTSUPP]),
            (32, [Errno::EBUSY, Errno::EBUSY]),
        ] {
            host.size = size;
            // SAFETY: The struct has more bytes than its size says.
            let mut copy = unsafe { Callbacks::copy(&raw const host) }.unwrap();
            assert_eq!([copy.apply(&set), copy.apply(&discard)], results.map(Err), "{size}");
            assert_eq!(copy.read_guest(Gpa(0), &mut [0]), Err(Errno::EOPNOTSUPP));
        }
        host.size = 15;
        // SAFETY: As above.
        assert_eq!(unsafe { Callbacks::copy(&raw const host) }.unwrap_err(), Errno::EINVAL);
        // SAFETY: Null is allowed.
        assert_eq!(unsafe { Callbacks::copy(ptr::null()) }.unwrap_err(), Errno::EINVAL);
    }
}
