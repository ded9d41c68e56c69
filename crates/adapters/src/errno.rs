//! Errors as the callers of VMMs know them.

use std::fmt;
use std::io;

use exeunt::Stop;
use exeunt::terminate::StopKind;
use exeunt_abi::Errno;
use exeunt_proto::exit::DecodeError;

/// `ESHUTDOWN`: the other side is gone. Source: Linux `include/uapi/asm-generic/errno.h`.
const ESHUTDOWN: Errno = Errno(108);

/// A [`Stop`] as an error: for a VMM whose loop ends with `?`.
///
/// | what happened | errno |
/// |---|---|
/// | the guest ended itself, in whatever way | `ESHUTDOWN` |
/// | a memory fault, or one that comes back | `EFAULT` |
/// | a poisoned page | `EHWPOISON` |
/// | `KVM_RUN` failed | what it failed with |
/// | an unknown event or exit | `EOPNOTSUPP` |
/// | anything else | `EIO` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitError(pub Stop);

impl ExitError {
    /// The error number that comes nearest.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self.0.kind() {
            kind if kind.severity() <= exeunt::terminate::Severity::Warning => ESHUTDOWN,
            StopKind::MemoryFault | StopKind::NoProgress => Errno::EFAULT,
            StopKind::Poisoned => Errno::EHWPOISON,
            StopKind::UnknownEvent | StopKind::UnknownExit => Errno::EOPNOTSUPP,
            _ => match self.0 {
                Stop::Enter(DecodeError::Failed { errno, .. }) => errno,
                _ => Errno::EIO,
            },
        }
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.log_line().fmt(f)
    }
}

impl std::error::Error for ExitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl From<Stop> for ExitError {
    fn from(stop: Stop) -> Self {
        Self(stop)
    }
}

impl From<ExitError> for Errno {
    fn from(error: ExitError) -> Self {
        error.errno()
    }
}

impl From<ExitError> for io::Error {
    /// The kind is that of the error number, the text is the line for the log.
    fn from(error: ExitError) -> Self {
        Self::new(Self::from_raw_os_error(error.errno().0).kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::kvm::run::ExitReason;
    use exeunt_proto::exit::FailEntry;

    #[test]
    fn a_stop_becomes_an_errno_and_keeps_its_text() {
        let failed = |errno| Stop::Enter(DecodeError::Failed { errno, stale: ExitReason(0) });
        for (stop, errno) in [
            (Stop::Shutdown, 108),
            (Stop::Halted, 108),
            (failed(Errno::EBADF), 9),
            (failed(Errno::EHWPOISON), 133),
            (Stop::Enter(DecodeError::IoSize { size: 9 }), 5),
            (Stop::FailEntry(FailEntry { reason: 1, cpu: 0 }), 5),
        ] {
            let error = ExitError::from(stop);
            assert_eq!(Errno::from(error.clone()), Errno(errno), "{error}");
            let io = io::Error::from(error.clone());
            assert_eq!(io.kind(), io::Error::from_raw_os_error(errno).kind());
            assert_eq!(io.to_string(), error.to_string());
        }
    }
}
