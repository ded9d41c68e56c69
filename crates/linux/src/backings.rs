//! The memory of a VMM that makes its VM and its slots by itself.

use std::os::fd::AsFd;

use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::{Action, Backing};

use crate::attributes::set_attributes;
use crate::error::KvmError;
use crate::host_memory::Half;
use crate::memory::Memory;
use crate::slot_unsafe::Slot;

/// What stands behind the slots that a VMM has given to KVM by itself, so that conversions find the memory to give back.
///
/// All methods take `&self` and may be called by all vCPUs at once: no lock is held across a system call, and a slot
/// that is added or removed meanwhile is seen by the next call. Memory that was removed is kept until the calls that
/// use it have returned.
///
/// ```no_run
/// # use exeunt_abi::Gpa;
/// # use exeunt_linux::{Backings, HostMemory, KvmError};
/// # fn main() -> Result<(), KvmError> {
/// # let (memfd, guest_memfd) = (std::fs::File::open("/").unwrap(), std::fs::File::open("/").unwrap());
/// let backings = Backings::default();
/// let (shared, private) = (HostMemory::file(&memfd)?, HostMemory::file(&guest_memfd)?);
/// backings.add(Gpa(0), 3 << 30, shared.at(0), Some(private.at(0)))?;
/// backings.add(Gpa(4 << 30), 1 << 30, shared.at(3 << 30), Some(private.at(3 << 30)))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Backings {
    memory: Memory,
}

impl Backings {
    /// Adds the memory behind a slot: for its shared pages, and for its private pages if it has any.
    ///
    /// # Errors
    ///
    /// The range cannot be a slot beside those that are there, or the memory does not fit it.
    pub fn add(&self, gpa: Gpa, bytes: u64, shared: Half, private: Option<Half>) -> Result<(), KvmError> {
        self.memory.add(gpa, bytes, |_| Slot::new(gpa, bytes, shared, private))
    }

    /// Forgets the slot that starts at an address. `false` if there is none.
    pub fn remove(&self, gpa: Gpa) -> bool {
        self.memory.remove(gpa)
    }

    /// Applies what a conversion consists of: `KVM_SET_MEMORY_ATTRIBUTES` on the VM's descriptor, and discards.
    ///
    /// # Errors
    ///
    /// The error of the system call. `EFAULT` for memory that was not added and `EOPNOTSUPP` for other actions, which
    /// are the VMM's: nothing has been changed then.
    pub fn apply(&self, vm: impl AsFd, action: &Action<'_>) -> Result<(), Errno> {
        match *action {
            Action::SetAttributes { range, to } => set_attributes(vm.as_fd(), range, to),
            Action::Discard { range, backing } => self.discard(range, backing),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Gives back one of the two memories behind the pages. Where it consists of huge pages, those that the range
    /// covers in part are left as they are.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page lies in no slot, `EOPNOTSUPP` if a slot has no such memory, and then nothing is given back;
    /// else the error of the system call, and a part may have been given back. `EOPNOTSUPP`, too, if huge pages were left:
    /// `GuestMemory` knows then that they still hold something, and `reclaim_down_to` gives them back once all of one is idle.
    pub fn discard(&self, range: PageRange, backing: Backing) -> Result<(), Errno> {
        self.memory.table().discard(range, backing)
    }

    /// Gets memory for shared pages before anyone touches them. What they hold stays.
    ///
    /// # Errors
    ///
    /// `EFAULT` if a page lies in no slot, `EOPNOTSUPP` where the kernel cannot do so, else the error of the system call.
    pub fn populate(&self, range: PageRange) -> Result<(), Errno> {
        self.memory.table().populate(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_memory::HostMemory;
    use exeunt_abi::Gfn;
    use exeunt_proto::conversion::PageState;
    use std::fs::File;

    #[test]
    fn attributes_go_to_the_given_descriptor_and_what_is_no_conversion_to_nobody() {
        let backings = Backings::default();
        let file = File::open("/dev/null").unwrap();
        let range = PageRange::new(Gfn(0), 1).unwrap();
        let attributes = Action::SetAttributes { range, to: PageState::Private };
        assert_eq!(backings.apply(&file, &attributes), Err(Errno::ENOTTY));
        let write = Action::WriteGuest { gpa: Gpa(0), bytes: &[7] };
        assert_eq!(backings.apply(&file, &write), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn memory_that_was_removed_is_not_there_any_more() {
        let backings = Backings::default();
        let memory = HostMemory::memfd(0x1000).unwrap();
        let add = || backings.add(Gpa(0x1000), 0x1000, memory.at(0), None);
        add().unwrap();
        assert!(add().is_err());
        let range = PageRange::new(Gfn(1), 1).unwrap();
        let discard = Action::Discard { range, backing: Backing::Shared };
        assert_eq!(backings.apply(File::open("/dev/null").unwrap(), &discard), Ok(()));
        assert!(backings.remove(Gpa(0x1000)));
        assert!(!backings.remove(Gpa(0x1000)));
        assert_eq!(backings.discard(range, Backing::Shared), Err(Errno::EFAULT));
        add().unwrap();
    }
}
