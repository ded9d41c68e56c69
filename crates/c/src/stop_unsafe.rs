//! The end of a run, for C.
#![allow(non_camel_case_types, reason = "the names are those of the header")]

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write;
use std::slice;

use exeunt::Stop;
use exeunt::terminate::{Field, Next, Severity, StopKind};

use crate::boundary::{Text, guarded};

/// Why a vCPU is not to be entered again.
#[derive(Clone, Debug)]
pub struct exeunt_stop(pub(crate) Stop);

/// What to do with the VM, by `exeunt_stop_next`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum exeunt_next {
    /// End it.
    EXEUNT_NEXT_END = 0,
    /// Start it anew, with a new launch.
    EXEUNT_NEXT_RESTART = 1,
    /// Keep it, and enter the vCPU again when something wakes it.
    EXEUNT_NEXT_SUSPEND = 2,
    /// Make this vCPU runnable and enter it again.
    EXEUNT_NEXT_WAKE = 3,
}

/// How loud to say it, by `exeunt_stop_severity`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum exeunt_severity {
    /// The guest did what guests do.
    EXEUNT_SEVERITY_INFO = 0,
    /// The guest is gone, by its own decision or fault.
    EXEUNT_SEVERITY_WARNING = 1,
    /// The guest was ended by something that should not be.
    EXEUNT_SEVERITY_ERROR = 2,
    /// The host is at fault.
    EXEUNT_SEVERITY_CRITICAL = 3,
}

/// The word for what happened: "`triple_fault`", "`sev_term`", "`memory_fault`" and so on. It is static; "" for null.
///
/// # Safety
///
/// `stop` is null or from this library, and alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_stop_name(stop: *const exeunt_stop) -> *const c_char {
    // SAFETY: By the contract of this function.
    let stop = unsafe { stop.as_ref() };
    guarded(c"".as_ptr(), || stop.map_or(c"", |stop| name(stop.0.kind())).as_ptr())
}

/// The exit status that a process should end with: 0 only if the guest asked to be shut down. -EINVAL for null.
///
/// # Safety
///
/// As for `exeunt_stop_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_stop_exit_status(stop: *const exeunt_stop) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { number(stop, |stop| stop.kind().exit_status().into()) }
}

/// How loud to say it: an `exeunt_severity`. -EINVAL for null.
///
/// # Safety
///
/// As for `exeunt_stop_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_stop_severity(stop: *const exeunt_stop) -> c_int {
    let severity = |stop: &Stop| match stop.kind().severity() {
        Severity::Info => exeunt_severity::EXEUNT_SEVERITY_INFO as c_int,
        Severity::Warning => exeunt_severity::EXEUNT_SEVERITY_WARNING as c_int,
        Severity::Error => exeunt_severity::EXEUNT_SEVERITY_ERROR as c_int,
        Severity::Critical => exeunt_severity::EXEUNT_SEVERITY_CRITICAL as c_int,
    };
    // SAFETY: By the contract of this function.
    unsafe { number(stop, severity) }
}

/// What to do with the VM: an `exeunt_next`. -EINVAL for null.
///
/// # Safety
///
/// As for `exeunt_stop_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_stop_next(stop: *const exeunt_stop) -> c_int {
    let next = |stop: &Stop| match stop.kind().next() {
        Next::End => exeunt_next::EXEUNT_NEXT_END as c_int,
        Next::Restart => exeunt_next::EXEUNT_NEXT_RESTART as c_int,
        Next::Suspend => exeunt_next::EXEUNT_NEXT_SUSPEND as c_int,
        Next::Wake => exeunt_next::EXEUNT_NEXT_WAKE as c_int,
    };
    // SAFETY: By the contract of this function.
    unsafe { number(stop, next) }
}

/// Writes the line for the log, without a line break and with all that the guest chose escaped, and a null behind it.
/// As snprintf: what does not fit is cut, and the length of the whole is returned, without the null.
///
/// # Safety
///
/// `stop` is as for `exeunt_stop_name`; `buffer` is null or has `length` bytes for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_stop_message(
    stop: *const exeunt_stop,
    buffer: *mut c_char,
    length: usize,
) -> usize {
    // SAFETY: By the contract of this function.
    let stop = unsafe { stop.as_ref() };
    // SAFETY: By the contract of this function.
    let buffer = unsafe { writable(buffer, length) };
    guarded(0, || {
        Text::print(buffer, |to| match stop {
            Some(stop) => write!(to, "{}", stop.0.log_line()),
            None => Ok(()),
        })
    })
}

/// Reads one number of the stop: "`reason_set`" and "code" of a termination, "gpa", "size" and "private" of a memory
/// fault, "data0" to "data15" of a system event, "errno" of a `KVM_RUN` that failed, and so on. False if it has none of
/// this name, and then `value` is as it was.
///
/// # Safety
///
/// `stop` is as for `exeunt_stop_name`; `field` is null or a string; `value` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exeunt_stop_field(
    stop: *const exeunt_stop,
    field: *const c_char,
    value: *mut u64,
) -> bool {
    // SAFETY: By the contract of this function.
    let stop = unsafe { stop.as_ref() };
    // SAFETY: By the contract of this function.
    let value = unsafe { value.as_mut() };
    if field.is_null() {
        return false;
    }
    // SAFETY: By the contract of this function.
    let field = unsafe { CStr::from_ptr(field) };
    guarded(false, || {
        let Some((stop, value)) = stop.zip(value) else { return false };
        let mut is_found = false;
        stop.0.fields(|name, content| {
            let number = match content {
                Field::Number(number) | Field::Hex(number) => number,
                Field::Flag(flag) => flag.into(),
                Field::Text(_) | Field::GuestText(_) => return,
            };
            if name.as_bytes() == field.to_bytes() {
                (*value, is_found) = (number, true);
            }
        });
        is_found
    })
}

/// A number out of a stop.
///
/// # Safety
///
/// As for `exeunt_stop_name`.
unsafe fn number(stop: *const exeunt_stop, read: impl FnOnce(&Stop) -> c_int) -> c_int {
    const EINVAL: c_int = -exeunt_abi::Errno::EINVAL.0;
    // SAFETY: By the contract of this function.
    let stop = unsafe { stop.as_ref() };
    guarded(EINVAL, || stop.map_or(EINVAL, |stop| read(&stop.0)))
}

/// A buffer of the caller; empty for null.
///
/// # Safety
///
/// `buffer` is null or has `length` bytes for writing, for as long as the result lives.
pub(crate) unsafe fn writable<'a>(buffer: *mut c_char, length: usize) -> &'a mut [u8] {
    if buffer.is_null() || isize::try_from(length).is_err() {
        return &mut [];
    }
    // SAFETY: By the contract of this function.
    unsafe { slice::from_raw_parts_mut(buffer.cast(), length) }
}

/// The names of `StopKind`, with the null that C wants.
fn name(kind: StopKind) -> &'static CStr {
    match kind {
        StopKind::Halted => c"halted",
        StopKind::Shutdown => c"shutdown",
        StopKind::Reset => c"reset",
        StopKind::Suspend => c"suspend",
        StopKind::Wakeup => c"wakeup",
        StopKind::TripleFault => c"triple_fault",
        StopKind::Crash => c"crash",
        StopKind::SevTerm => c"sev_term",
        StopKind::TdxFatal => c"tdx_fatal",
        StopKind::MemoryFault => c"memory_fault",
        StopKind::NoProgress => c"no_progress",
        StopKind::Poisoned => c"poisoned",
        StopKind::RunFailed => c"run_failed",
        StopKind::FailEntry => c"fail_entry",
        StopKind::InternalError => c"internal_error",
        StopKind::ContextInvalid => c"context_invalid",
        StopKind::UnknownEvent => c"unknown_event",
        StopKind::UnknownExit => c"unknown_exit",
        StopKind::BadPage => c"bad_page",
        StopKind::Undrained => c"undrained",
        _ => c"unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_proto::termination::SevTermination;

    #[test]
    fn every_kind_has_its_name() {
        for kind in StopKind::ALL {
            assert_eq!(name(*kind).to_str(), Ok(kind.name()));
        }
    }

    #[test]
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one contract for all of these calls")]
    fn a_stop_tells_its_numbers_and_null_tells_nothing() {
        let stop = exeunt_stop(Stop::Terminated(SevTermination::Reason { set: 1, code: 2 }));
        let stop = &raw const stop;
        let null = std::ptr::null();
        let mut value = 7;
        // SAFETY: The stop is alive, null is allowed, and so are these strings.
        unsafe {
            assert_eq!(exeunt_stop_exit_status(stop), 22);
            assert_eq!(exeunt_stop_severity(stop), 1);
            assert_eq!(exeunt_stop_next(stop), 0);
            assert!(exeunt_stop_field(stop, c"code".as_ptr(), &raw mut value));
            assert_eq!(value, 2);
            assert!(!exeunt_stop_field(stop, c"gpa".as_ptr(), &raw mut value));
            assert!(!exeunt_stop_field(stop, c"code".as_ptr(), std::ptr::null_mut()));
            assert!(!exeunt_stop_field(null, c"code".as_ptr(), &raw mut value));
            assert!(!exeunt_stop_field(stop, null.cast(), &raw mut value));
            assert_eq!(value, 2);
            assert_eq!(exeunt_stop_exit_status(null), -22);
            assert_eq!(CStr::from_ptr(exeunt_stop_name(null)), c"");
            assert_eq!(exeunt_stop_message(null, std::ptr::null_mut(), 0), 0);
        }
    }
}
