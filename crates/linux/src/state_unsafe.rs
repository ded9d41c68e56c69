//! The ioctls that read and write the registers of a vCPU, by their bytes.

use std::io;
use std::os::fd::AsRawFd;

use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::{self, Ioctl};
use kvm_ioctls::VcpuFd;

/// The ioctls whose argument is a struct of the length that their number says, and which reach no memory beyond it.
const READING: [Ioctl; 5] = [
    ioctl::KVM_GET_REGS,
    ioctl::KVM_GET_SREGS,
    ioctl::KVM_GET_XCRS,
    ioctl::KVM_GET_XSAVE,
    ioctl::KVM_GET_DEBUGREGS,
];
/// Likewise, and they only read it.
const WRITING: [Ioctl; 4] =
    [ioctl::KVM_SET_REGS, ioctl::KVM_SET_SREGS, ioctl::KVM_SET_XCRS, ioctl::KVM_SET_DEBUGREGS];
/// Bytes before the entries of `struct kvm_cpuid2`: their count, and padding.
const CPUID_HEAD: usize = 8;
const CPUID_ENTRY: usize = 40;
/// The most entries that any kernel takes, `KVM_MAX_CPUID_ENTRIES`.
const CPUID_ENTRIES: usize = 256;

/// Reads a struct.
///
/// `EFAULT` for an ioctl that is not among those, or for another length than its number says.
pub(crate) fn read(vcpu: &VcpuFd, request: Ioctl, to: &mut [u8]) -> Result<(), Errno> {
    if !READING.contains(&request) || usize::from(request.parts().size_bytes) != to.len() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: The kernel writes at most the bytes that the request number says, which are as many as `to` has.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), request.0.into(), to.as_mut_ptr()) };
    checked(result)
}

/// Writes a struct. The same lengths are refused.
pub(crate) fn write(vcpu: &VcpuFd, request: Ioctl, from: &[u8]) -> Result<(), Errno> {
    if !WRITING.contains(&request) || usize::from(request.parts().size_bytes) != from.len() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: The kernel reads at most the bytes that the request number says, which are as many as `from` has.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), request.0.into(), from.as_ptr()) };
    checked(result)
}

/// `KVM_SET_XSAVE`, of which the kernel reads `needs_bytes`: what `KVM_CHECK_EXTENSION` says of `KVM_CAP_XSAVE2`.
pub(crate) fn set_xsave(vcpu: &VcpuFd, from: &[u8], needs_bytes: usize) -> Result<(), Errno> {
    let request = ioctl::KVM_SET_XSAVE;
    if usize::from(request.parts().size_bytes) != from.len() || needs_bytes > from.len() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: The kernel reads the larger of the bytes that the request number says and of the guest's area, which is
    // what the caller was told by the kernel, and `from` has no fewer than either.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), request.0.into(), from.as_ptr()) };
    checked(result)
}

/// `KVM_GET_CPUID2`: the entries, without their count. `to` has room for 256.
pub(crate) fn cpuid(vcpu: &VcpuFd, to: &mut [u8]) -> Result<usize, Errno> {
    let mut table = vec![0; CPUID_HEAD + CPUID_ENTRY * CPUID_ENTRIES];
    set_count(&mut table, CPUID_ENTRIES);
    // SAFETY: The kernel writes at most as many entries as the count says there is room for, and the table has it.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), ioctl::KVM_GET_CPUID2.0.into(), table.as_mut_ptr()) };
    checked(result)?;
    let count = table.first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
    let bytes = usize::try_from(count).unwrap_or(CPUID_ENTRIES).min(CPUID_ENTRIES) * CPUID_ENTRY;
    let entries = table.get(CPUID_HEAD..CPUID_HEAD + bytes).ok_or(Errno::EFAULT)?;
    to.get_mut(..bytes).ok_or(Errno::EFAULT)?.copy_from_slice(entries);
    Ok(bytes)
}

/// `KVM_SET_CPUID2` with these entries.
pub(crate) fn set_cpuid(vcpu: &VcpuFd, entries: &[u8]) -> Result<(), Errno> {
    let count = entries.len() / CPUID_ENTRY;
    if entries.len() % CPUID_ENTRY != 0 || count > CPUID_ENTRIES {
        return Err(Errno::EINVAL);
    }
    let mut table = vec![0; CPUID_HEAD];
    set_count(&mut table, count);
    table.extend(entries);
    // SAFETY: The kernel reads as many entries as the count says, and they follow it.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), ioctl::KVM_SET_CPUID2.0.into(), table.as_ptr()) };
    checked(result)
}

fn set_count(table: &mut [u8], count: usize) {
    let count = u32::try_from(count).unwrap_or(0).to_le_bytes();
    table.iter_mut().zip(count).for_each(|(to, from)| *to = from);
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result >= 0 {
        return Ok(());
    }
    Err(Errno(io::Error::last_os_error().raw_os_error().unwrap_or_default()))
}
