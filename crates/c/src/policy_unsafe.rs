//! What a VM's policy is, member by member.
#![allow(non_camel_case_types, reason = "the names are those of the header")]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::slice;
use std::sync::Arc;

use exeunt::Policy;
use exeunt::certs::{Certificates, CheckedTable, MAX_TABLE_BYTES};
use exeunt::memory::{GuestMemory, MemoryOptions, MemorySlot, Reclaim};
use exeunt::policy::{EventPolicy, FaultPolicy};
use exeunt_abi::{Dialect, Errno, Kernel};
use exeunt_certs::file::FileProvider;

use crate::boundary::{guarded, status};
use crate::vm_unsafe::range;

/// The decisions of a VMM, before its VM is made.
#[derive(Clone, Debug, Default)]
pub struct exeunt_policy {
    slots: Vec<MemorySlot>,
    pub(crate) kernel: Kernel,
    options: MemoryOptions,
    memory_faults: FaultPolicy,
    dumps_failures: bool,
    shutdown: EventPolicy,
    reset: EventPolicy,
    crash: EventPolicy,
    certificates: Certificates,
    pub(crate) has_metrics: bool,
}

/// What a memory fault leads to, for `exeunt_policy_set_memory_faults`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum exeunt_fault_policy {
    /// The end. The default: guests convert explicitly.
    EXEUNT_FAULT_STOP = 0,
    /// The page becomes what the access wants it to be.
    EXEUNT_FAULT_CONVERT = 1,
}

/// Which request of the guest, for `exeunt_policy_set_event`: the numbers of `system_event.type`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum exeunt_event {
    /// `KVM_SYSTEM_EVENT_SHUTDOWN`.
    EXEUNT_EVENT_SHUTDOWN = 1,
    /// `KVM_SYSTEM_EVENT_RESET`.
    EXEUNT_EVENT_RESET = 2,
    /// `KVM_SYSTEM_EVENT_CRASH`.
    EXEUNT_EVENT_CRASH = 3,
}

/// What such a request leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum exeunt_event_policy {
    /// `EXEUNT_STOP`. The default.
    EXEUNT_EVENT_STOP = 0,
    /// The vCPU is entered again.
    EXEUNT_EVENT_IGNORE = 1,
    /// `EXEUNT_STOP`, and the callback `dump` before it.
    EXEUNT_EVENT_DUMP = 2,
}

/// What an SNP guest gets that asks for certificates, for `exeunt_policy_set_no_certificates`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum exeunt_certificates {
    /// An empty table. The default.
    EXEUNT_CERTIFICATES_NONE = 0,
    /// It is to come back.
    EXEUNT_CERTIFICATES_BUSY = 1,
    /// An error. A Linux guest then gives up attestation for good.
    EXEUNT_CERTIFICATES_BROKEN = 2,
}

impl exeunt_policy {
    /// The policy as the service takes it.
    pub(crate) fn build(&self) -> Result<Policy, Errno> {
        let memory = GuestMemory::with_options(self.slots.iter().copied(), self.options);
        let memory = memory.map_err(|_| Errno::EEXIST)?;
        let mut policy = Policy::new(memory);
        policy.memory_faults = self.memory_faults;
        policy.dumps_failures = self.dumps_failures;
        policy.shutdown = self.shutdown;
        policy.reset = self.reset;
        policy.crash = self.crash;
        policy.certificates = self.certificates.clone();
        Ok(policy)
    }
}

/// A policy with the defaults and without memory; null if there is no memory for it. Free it with
/// `exeunt_policy_free`.
#[unsafe(no_mangle)]
pub extern "C" fn exeunt_policy_new() -> *mut exeunt_policy {
    guarded(std::ptr::null_mut(), || Box::into_raw(Box::default()))
}

/// Frees a policy. VMs that were made from it keep what they took.
///
/// # Safety
///
/// `policy` is null or from `exeunt_policy_new`, and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_free(policy: *mut exeunt_policy) {
    if !policy.is_null() {
        // SAFETY: By the contract of this function it came from `Box::into_raw`.
        guarded((), || drop(unsafe { Box::from_raw(policy) }));
    }
}

/// Changes a policy, if it is one.
///
/// # Safety
///
/// `policy` is null or from `exeunt_policy_new`, and no other thread uses it.
unsafe fn change(
    policy: *mut exeunt_policy,
    with: impl FnOnce(&mut exeunt_policy) -> Result<(), Errno>,
) -> c_int {
    // SAFETY: By the contract of this function.
    let policy = unsafe { policy.as_mut() };
    status(|| with(policy.ok_or(Errno::EINVAL)?))
}

/// Adds a memory slot: where it starts and its length, both multiples of 4096. `has_private` says that a `guest_memfd`
/// backs it as well. -EEXIST if it overlaps another.
///
/// # Safety
///
/// `policy` is null or from `exeunt_policy_new`, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_add_slot(
    policy: *mut exeunt_policy,
    gpa: u64,
    size: u64,
    has_private: bool,
) -> c_int {
    let add = |policy: &mut exeunt_policy| {
        let slot = MemorySlot { range: range(gpa, size)?, has_private };
        if policy.slots.iter().any(|other| other.range.intersect(slot.range).is_some()) {
            return Err(Errno::EEXIST);
        }
        policy.slots.push(slot);
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, add) }
}

/// Says which kernel writes the run page, such as "linux-6.12". The default, the newest, is right from Linux 5.18 on.
/// -EINVAL for a name that is none.
///
/// # Safety
///
/// `policy` is as for `exeunt_policy_add_slot`; `dialect` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_kernel(
    policy: *mut exeunt_policy,
    dialect: *const c_char,
) -> c_int {
    if dialect.is_null() {
        return -Errno::EINVAL.0;
    }
    // SAFETY: It is a string, by the contract of this function.
    let name = unsafe { CStr::from_ptr(dialect) };
    let set = |policy: &mut exeunt_policy| {
        let name = name.to_str().map_err(|_| Errno::EINVAL)?;
        policy.kernel.dialect = Dialect::from_name(name).ok_or(Errno::EINVAL)?;
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Says what memory faults lead to: an `exeunt_fault_policy`.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_memory_faults(policy: *mut exeunt_policy, to: u32) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        policy.memory_faults = match to {
            0 => FaultPolicy::Stop,
            1 => FaultPolicy::Convert,
            _ => return Err(Errno::EINVAL),
        };
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Says what a request of the guest, an `exeunt_event`, leads to: an `exeunt_event_policy`.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_event(policy: *mut exeunt_policy, event: u32, to: u32) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        let to = match to {
            0 => EventPolicy::Stop,
            1 => EventPolicy::Ignore,
            2 => EventPolicy::Dump,
            _ => return Err(Errno::EINVAL),
        };
        match event {
            1 => policy.shutdown = to,
            2 => policy.reset = to,
            3 => policy.crash = to,
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Gives SNP guests this table of certificates, in the format of the GHCB specification. It is copied. -EINVAL if it
/// is malformed, -EFBIG above 1 MiB.
///
/// # Safety
///
/// `policy` is as for `exeunt_policy_add_slot`; `table` is null or has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_certificates(
    policy: *mut exeunt_policy,
    table: *const u8,
    length: usize,
) -> c_int {
    if table.is_null() {
        return -Errno::EINVAL.0;
    }
    if length as u64 > MAX_TABLE_BYTES {
        return -Errno::EFBIG.0;
    }
    // SAFETY: By the contract of this function.
    let bytes = unsafe { slice::from_raw_parts(table, length) };
    let set = |policy: &mut exeunt_policy| {
        let table = CheckedTable::new(bytes.to_vec()).map_err(|_| Errno::EINVAL)?;
        policy.certificates = Certificates::Table(table);
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Gives SNP guests the table that is in this file when they ask, under the lock that keeps whoever replaces the file
/// and the firmware's TCB away until KVM has taken the answer. While the file is not there, or holds no table, guests
/// get an empty table; while somebody else has it locked, they are told to come back.
///
/// # Safety
///
/// `policy` is as for `exeunt_policy_add_slot`; `path` is null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_certificates_file(
    policy: *mut exeunt_policy,
    path: *const c_char,
) -> c_int {
    if path.is_null() {
        return -Errno::EINVAL.0;
    }
    // SAFETY: It is a string, by the contract of this function.
    let path = unsafe { CStr::from_ptr(path) };
    let set = |policy: &mut exeunt_policy| {
        let provider = FileProvider::new(OsStr::from_bytes(path.to_bytes()));
        policy.certificates = Certificates::From(Arc::new(provider));
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Gives SNP guests no table but this answer: an `exeunt_certificates`.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_no_certificates(policy: *mut exeunt_policy, answer: u32) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        policy.certificates = match answer {
            0 => Certificates::None,
            1 => Certificates::Busy,
            2 => Certificates::Broken,
            _ => return Err(Errno::EINVAL),
        };
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Counts exits, effects and latencies, for `exeunt_vm_metrics`. Off by default.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_metrics(policy: *mut exeunt_policy, on: bool) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        policy.has_metrics = on;
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Calls the callback `dump` before every stop that is a failure: triple faults, terminations, memory faults. Off by
/// default.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_dump_failures(policy: *mut exeunt_policy, on: bool) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        policy.dumps_failures = on;
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Gives memory that pages no longer use back when more than `budget_pages` of 4 KiB wait for it, and not with each
/// conversion.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_lazy_reclaim(
    policy: *mut exeunt_policy,
    budget_pages: u64,
) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        policy.options.reclaim = Reclaim::Lazily { budget_pages };
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}

/// Calls the callback `prefault` for pages that become private. Off by default.
///
/// # Safety
///
/// As for `exeunt_policy_add_slot`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_policy_set_prefault(policy: *mut exeunt_policy, on: bool) -> c_int {
    let set = |policy: &mut exeunt_policy| {
        policy.options.prefault = on;
        Ok(())
    };
    // SAFETY: By the contract of this function.
    unsafe { change(policy, set) }
}
