//! Linux error numbers as the boundary carries them.

use core::fmt;

/// A positive Linux error number; names are in capitals. The numbers are those of every architecture that KVM's
/// confidential guests run on.
///
/// Source: Linux `include/uapi/asm-generic/errno-base.h` and `errno.h`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

crate::named::named_newtype! {
    Errno;
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    EINTR = 4, "Interrupted system call: enter again.";
    EIO = 5, "I/O error: on a vCPU, the VM is dead.";
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "Argument list too long.";
    EBADF = 9, "Bad file descriptor.";
    EAGAIN = 11, "Try again.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Device or resource busy.";
    EEXIST = 17, "File exists.";
    ENODEV = 19, "No such device.";
    EINVAL = 22, "Invalid argument.";
    EMFILE = 24, "Too many open files.";
    ENOTTY = 25, "Inappropriate ioctl for device.";
    EFBIG = 27, "File too large.";
    ENOSPC = 28, "No space left on device.";
    EOPNOTSUPP = 95, "Operation not supported.";
    ETIMEDOUT = 110, "Connection timed out.";
    ECANCELED = 125, "Operation canceled.";
    EHWPOISON = 133, "Memory page has a hardware error.";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_number_prints_and_a_name_leads_back_to_it() {
        for number in 0..200 {
            let errno = Errno(number);
            match errno.name() {
                Some(name) => assert_eq!(Errno::from_name(name), Some(errno)),
                None => assert_eq!(errno.to_string(), std::format!("errno {number}")),
            }
        }
        assert_eq!(Errno::EHWPOISON.to_string(), "EHWPOISON");
        assert_eq!(Errno::from_name("EWHATEVER"), None);
    }
}
