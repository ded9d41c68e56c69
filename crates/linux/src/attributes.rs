//! Which pages of a VM are private.

use std::os::fd::BorrowedFd;

use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::KVM_SET_MEMORY_ATTRIBUTES;
use exeunt_abi::kvm::memory::{MEMORY_ATTRIBUTE_PRIVATE, MemoryAttributes};
use exeunt_proto::conversion::{PageRange, PageState};
use zerocopy::IntoBytes;

use crate::ioctl_unsafe;

/// `KVM_SET_MEMORY_ATTRIBUTES`, once for the whole range.
///
/// # Errors
///
/// The error of the ioctl; a host without memory attributes says `ENOTTY`.
pub(crate) fn set_attributes(vm: BorrowedFd<'_>, range: PageRange, to: PageState) -> Result<(), Errno> {
    let attributes = match to {
        PageState::Shared => 0,
        PageState::Private => MEMORY_ATTRIBUTE_PRIVATE,
    };
    let mut argument = MemoryAttributes { address: range.gpa().0, size: range.bytes(), attributes, flags: 0 };
    ioctl_unsafe::plain(vm, KVM_SET_MEMORY_ATTRIBUTES, argument.as_mut_bytes()).map(drop)
}
