//! The ioctls that kvm-ioctls lacks, or makes with references into the live run page.

use std::io;
use std::os::fd::AsRawFd;

use exeunt_abi::Errno;
use exeunt_abi::kvm::device_attr::{X86_GRP_SEV, sev_attr};
use exeunt_abi::kvm::events::VcpuEvents;
use kvm_bindings::{kvm_device_attr, kvm_x86_mce};
use kvm_ioctls::{Kvm, VcpuFd};

/// `KVM_RUN`. Source for this and the next four: Linux v7.2 `include/uapi/linux/kvm.h`.
const KVM_RUN: libc::c_ulong = 0xae80;
const KVM_X86_SET_MCE: libc::c_ulong = 0x4040_ae9e;
const KVM_GET_VCPU_EVENTS: libc::c_ulong = 0x8040_ae9f;
const KVM_SET_VCPU_EVENTS: libc::c_ulong = 0x4040_aea0;
const KVM_HAS_DEVICE_ATTR: libc::c_ulong = 0x4018_aee3;

// The size that a request number carries is what the kernel copies.
const _: () = assert!(size_of::<kvm_x86_mce>() == 0x40 && size_of::<VcpuEvents>() == 0x40);
const _: () = assert!(size_of::<kvm_device_attr>() == 0x18);

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

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result >= 0 {
        return Ok(());
    }
    Err(Errno(io::Error::last_os_error().raw_os_error().unwrap_or_default()))
}
