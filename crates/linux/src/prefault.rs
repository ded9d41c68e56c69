//! Mapping pages into the guest before it touches them.

use std::os::fd::AsFd;

use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::KVM_PRE_FAULT_MEMORY;
use exeunt_abi::kvm::memory::PreFaultMemory;
use exeunt_proto::conversion::PageRange;
use zerocopy::IntoBytes;

use crate::ioctl_unsafe;

/// Calls in a row that may map nothing.
const TRIES: u32 = 16;

/// Maps pages into the guest before it touches them: `KVM_PRE_FAULT_MEMORY` on the descriptor of a vCPU, which waits until
/// that is out of `KVM_RUN`. Private pages get memory in the `guest_memfd` by it, and shared ones in the mapping.
///
/// The ioctl does a part at a time and says what is left. A signal stops it, and so does another thread that changes the
/// same pages: then it is called again, up to 16 times without a page in between.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/api.rst`, `KVM_PRE_FAULT_MEMORY`.
///
/// # Errors
///
/// `EOPNOTSUPP` where the kernel, or a guest of this kind at this time, has no such thing; `EIO` if the kernel says that
/// something else is left than a part of the range; else the error of the ioctl. Pages may have been mapped. It is never
/// wrong to go on, because the guest's own accesses map what is missing.
pub fn prefault(vcpu: impl AsFd, range: PageRange) -> Result<(), Errno> {
    prefault_with(range, |left| {
        ioctl_unsafe::plain(vcpu.as_fd(), KVM_PRE_FAULT_MEMORY, left.as_mut_bytes()).map(drop)
    })
}

fn prefault_with(
    range: PageRange,
    mut call: impl FnMut(&mut PreFaultMemory) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut left = PreFaultMemory { gpa: range.gpa().0, size: range.bytes(), flags: 0, padding: [0; 5] };
    let end = left.gpa.checked_add(left.size);
    let mut tries = TRIES;
    while left.size > 0 {
        let before = left.size;
        let result = call(&mut left);
        if left.gpa.checked_add(left.size) != end || left.size > before {
            return Err(Errno::EIO);
        }
        if left.size < before {
            tries = TRIES;
            continue;
        }
        tries = tries.saturating_sub(1);
        match result {
            Ok(()) | Err(Errno::EINTR | Errno::EAGAIN) if tries > 0 => {}
            Ok(()) => return Err(Errno::EAGAIN),
            // A kernel before 6.11: on x86 an unknown ioctl of a vCPU is `EINVAL`, and nothing else is wrong with a range of
            // whole pages without flags.
            Err(Errno::ENOTTY | Errno::EINVAL) => return Err(Errno::EOPNOTSUPP),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::Gfn;

    /// What becomes of a range of 8 pages if the calls do so many pages and return so.
    fn after(calls: &[(u64, Result<(), Errno>)]) -> (Result<(), Errno>, usize) {
        let mut made = 0;
        let range = PageRange::new(Gfn(0x10), 8).unwrap();
        let result = prefault_with(range, |left| {
            let (pages, result) = calls.get(made).or(calls.last()).copied().unwrap();
            made += 1;
            left.gpa += pages << 12;
            left.size -= pages << 12;
            result
        });
        (result, made)
    }

    #[test]
    fn what_is_left_is_asked_for_again_until_nothing_is() {
        assert_eq!(after(&[(8, Ok(()))]), (Ok(()), 1));
        assert_eq!(after(&[(3, Ok(())), (1, Ok(())), (4, Ok(()))]), (Ok(()), 3));
    }

    #[test]
    fn signals_and_races_are_tried_again_so_often_and_no_more() {
        for errno in [Errno::EINTR, Errno::EAGAIN] {
            assert_eq!(after(&[(0, Err(errno)), (2, Ok(())), (0, Err(errno)), (6, Ok(()))]), (Ok(()), 4));
            assert_eq!(after(&[(0, Err(errno))]), (Err(errno), 16), "{errno}");
        }
        assert_eq!(after(&[(0, Ok(()))]), (Err(Errno::EAGAIN), 16));
    }

    #[test]
    fn a_kernel_without_it_is_told_from_one_that_fails() {
        for unknown in [Errno::ENOTTY, Errno::EINVAL] {
            assert_eq!(after(&[(0, Err(unknown))]), (Err(Errno::EOPNOTSUPP), 1), "{unknown}");
        }
        assert_eq!(after(&[(0, Err(Errno::EOPNOTSUPP))]), (Err(Errno::EOPNOTSUPP), 1));
        assert_eq!(after(&[(2, Ok(())), (0, Err(Errno::ENOENT))]), (Err(Errno::ENOENT), 2));
    }

    #[test]
    fn a_kernel_that_leaves_something_else_is_not_asked_again() {
        let range = PageRange::new(Gfn(0x10), 8).unwrap();
        let kernels: [fn(&mut PreFaultMemory); 3] =
            [|left| left.gpa = 0, |left| left.size += 0x1000, |left| (left.gpa, left.size) = (0, 0x18000)];
        for kernel in kernels {
            let mut calls = 0;
            let result = prefault_with(range, |left| {
                calls += 1;
                kernel(left);
                Ok(())
            });
            assert_eq!((result, calls), (Err(Errno::EIO), 1));
        }
    }
}
