//! The ioctls that kvm-ioctls lacks, or makes with references into the live run page.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use exeunt_abi::kvm::device_attr::{X86_GRP_SEV, sev_attr};
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl::{self, Ioctl};
use exeunt_abi::kvm::memory::UserspaceMemoryRegion2;
use exeunt_abi::{Errno, PAGE_SIZE};
use kvm_bindings::{kvm_device_attr, kvm_x86_mce};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::mapping_unsafe::Mapping;

/// `KVM_RUN`. Source for this and the next five: Linux v7.2 `include/uapi/linux/kvm.h`.
const KVM_RUN: libc::c_ulong = 0xae80;
const KVM_X86_SET_MCE: libc::c_ulong = 0x4040_ae9e;
const KVM_GET_VCPU_EVENTS: libc::c_ulong = 0x8040_ae9f;
const KVM_SET_VCPU_EVENTS: libc::c_ulong = 0x4040_aea0;
const KVM_GET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee2;
const KVM_HAS_DEVICE_ATTR: libc::c_ulong = 0x4018_aee3;

// The size that a request number carries is what the kernel copies.
const _: () = assert!(size_of::<kvm_x86_mce>() == 0x40 && size_of::<VcpuEvents>() == 0x40);
const _: () = assert!(size_of::<kvm_device_attr>() == 0x18);

/// Makes an ioctl that reads its argument, and perhaps writes it, and reaches no memory beyond it.
///
/// `EFAULT` for one that is not among those, or whose argument has another length than its number says.
pub(crate) fn plain(fd: BorrowedFd<'_>, request: Ioctl, argument: &mut [u8]) -> Result<u64, Errno> {
    const PLAIN: [Ioctl; 6] = [
        ioctl::KVM_ENABLE_CAP,
        ioctl::KVM_SET_MEMORY_ATTRIBUTES,
        ioctl::KVM_CREATE_GUEST_MEMFD,
        ioctl::KVM_GET_MP_STATE,
        ioctl::KVM_SET_MP_STATE,
        ioctl::KVM_PRE_FAULT_MEMORY,
    ];
    if !PLAIN.contains(&request) || usize::from(request.parts().size_bytes) != argument.len() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: The kernel reads and writes at most the bytes that the request number says, which are as many as
    // `argument` has. None of these structs holds an address.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.0.into(), argument.as_mut_ptr()) };
    checked(result)?;
    Ok(u64::try_from(result).unwrap_or_default())
}

/// `KVM_SET_USER_MEMORY_REGION`, or with `second` its successor, with the backing inside of `arena`: the
/// `userspace_addr` that is given counts from its start.
///
/// `EFAULT` where the kernel could take a slot that ends outside of it. Lengths that no kernel takes are handed on.
pub(crate) fn region(
    vm: BorrowedFd<'_>,
    arena: &Mapping,
    region: &UserspaceMemoryRegion2,
    second: bool,
) -> Result<(), Errno> {
    let inside = region.userspace_addr.checked_add(region.memory_size);
    let is_refused = (region.memory_size | region.userspace_addr) % PAGE_SIZE != 0
        || region.guest_phys_addr.checked_add(region.memory_size).is_none()
        || region.memory_size > i64::MAX as u64;
    if inside.is_none_or(|end| end > arena.bytes() as u64) && !is_refused {
        return Err(Errno::EFAULT);
    }
    let mut region = *region;
    region.userspace_addr = region.userspace_addr.wrapping_add(arena.address());
    let request = if second { ioctl::KVM_SET_USER_MEMORY_REGION2 } else { ioctl::KVM_SET_USER_MEMORY_REGION };
    // SAFETY: The kernel reads 160 bytes for the second form and the first 32 of the same for the first; the struct
    // has 160. The slot's memory is inside of the arena, which is never borrowed and outlives the VM, because the
    // `Machine` keeps it for longer than its descriptor; or the kernel refuses the slot.
    let result = unsafe { libc::ioctl(vm.as_raw_fd(), request.0.into(), &raw const region) };
    checked(result)
}

/// Takes ownership of a descriptor that an ioctl of this file has just made.
pub(crate) fn made(descriptor: u64) -> Result<OwnedFd, Errno> {
    let descriptor = i32::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: The kernel has just made it for this process, and only the caller has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The descriptor of a VM.
pub(crate) fn borrowed(vm: &VmFd) -> BorrowedFd<'_> {
    // SAFETY: It is open for as long as `vm` is borrowed.
    unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) }
}

/// The descriptor of a vCPU.
pub(crate) fn borrowed_vcpu(vcpu: &VcpuFd) -> BorrowedFd<'_> {
    // SAFETY: It is open for as long as `vcpu` is borrowed.
    unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) }
}

/// Enters the guest. The exit is in the run page then.
pub(crate) fn run(vcpu: &VcpuFd) -> Result<(), Errno> {
    // SAFETY: The request takes no pointer. It writes the run page, which no Rust reference points to, and guest
    // memory, which is mapped for as long as the VM lives and is never borrowed either.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_RUN, 0) };
    checked(result)
}

/// Tells the vCPU that its CPU found an error.
pub(crate) fn set_mce(vcpu: &VcpuFd, mce: &kvm_x86_mce) -> Result<(), Errno> {
    // SAFETY: The kernel reads the 64 bytes that the request number says, and the struct has as many.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_X86_SET_MCE, &raw const *mce) };
    checked(result)
}

/// Reads the events of the vCPU, as bytes of the kernel.
pub(crate) fn events(vcpu: &VcpuFd) -> Result<VcpuEvents, Errno> {
    let mut events = zerocopy::FromZeros::new_zeroed();
    let to: *mut VcpuEvents = &raw mut events;
    // SAFETY: The kernel writes the 64 bytes that the request number says, the struct has as many, and any bytes are
    // a value of it.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_VCPU_EVENTS, to) };
    checked(result).map(|()| events)
}

/// Writes the events of the vCPU.
pub(crate) fn set_events(vcpu: &VcpuFd, events: &VcpuEvents) -> Result<(), Errno> {
    // SAFETY: The kernel reads the 64 bytes that the request number says, and the struct has as many.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_VCPU_EVENTS, &raw const *events) };
    checked(result)
}

/// Whether this kernel knows the attribute that says if an SNP guest's requests for certificates can exit.
pub(crate) fn has_snp_req_certs(kvm: &Kvm) -> bool {
    let attribute =
        kvm_device_attr { group: X86_GRP_SEV, attr: sev_attr::SEV_SNP_REQ_CERTS, ..Default::default() };
    // SAFETY: The kernel reads the 24 bytes that the request number says, and the struct has as many. Asking whether
    // an attribute is there does not follow the address in it.
    let result = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_HAS_DEVICE_ATTR, &raw const attribute) };
    result == 0
}

/// Reads an attribute of the device, in the group of SEV.
pub(crate) fn sev_attribute(kvm: &Kvm, attr: u64) -> Result<u64, Errno> {
    let mut value = 0_u64;
    let addr = (&raw mut value).addr() as u64;
    let attribute = kvm_device_attr { group: X86_GRP_SEV, attr, addr, flags: 0 };
    // SAFETY: The kernel reads the 24 bytes that the request number says, and the struct has as many. It writes the
    // value, which has 8 bytes as all attributes of this group do.
    let result = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_DEVICE_ATTR, &raw const attribute) };
    checked(result).map(|()| value)
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result >= 0 {
        return Ok(());
    }
    Err(Errno(io::Error::last_os_error().raw_os_error().unwrap_or_default()))
}
