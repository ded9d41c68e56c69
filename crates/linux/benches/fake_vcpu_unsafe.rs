//! A vCPU descriptor whose `KVM_RUN` does nothing and succeeds, so that two decoders can be timed on the same page.
//!
//! The descriptor is a memfd, and a seccomp filter answers `ioctl(_, KVM_RUN)` with success. The filter stays for the
//! life of the process.

use kvm_ioctls::{VcpuFd, VmFd};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// `KVM_RUN`.
const KVM_RUN: u32 = 0xae80;

/// A vCPU of kvm-ioctls over a memfd.
pub(crate) fn vcpu(vm: &VmFd, bytes: u64) -> Result<VcpuFd, String> {
    let fd: OwnedFd = rustix::fs::memfd_create("kvm_run", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|error| format!("memfd_create: {error}"))?;
    rustix::fs::ftruncate(&fd, bytes).map_err(|error| format!("ftruncate: {error}"))?;
    // SAFETY: the descriptor is ours and is given away; it is large enough for the mapping that the vCPU makes of it.
    unsafe { vm.create_vcpu_from_rawfd(fd.into_raw_fd()) }.map_err(|error| error.to_string())
}

/// `ioctl(fd, KVM_RUN, 0)`.
pub(crate) fn enter(fd: &impl AsRawFd) -> i32 {
    let fd: RawFd = fd.as_raw_fd();
    // SAFETY: `KVM_RUN` takes no pointer; on anything but a vCPU it fails.
    unsafe { libc::ioctl(fd, libc::c_ulong::from(KVM_RUN), 0) }
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    // The codes have 16 bits, and none of them is a whole one.
    libc::sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

/// Lets `KVM_RUN` succeed without being run, in this process and for good.
pub(crate) fn install_filter() -> Result<(), String> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    /// Offset of the number in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    /// Offset of the low half of the second argument.
    const REQUEST: u32 = 24;
    let ioctl = u32::try_from(libc::SYS_ioctl).map_err(|error| error.to_string())?;
    let mut program = [
        statement(LOAD, NUMBER, 0, 0),
        statement(EQUALS, ioctl, 0, 3),
        statement(LOAD, REQUEST, 0, 0),
        statement(EQUALS, KVM_RUN, 0, 1),
        // Error number 0: the call returns 0.
        statement(RETURN, libc::SECCOMP_RET_ERRNO, 0, 0),
        statement(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let length = u16::try_from(program.len()).map_err(|error| error.to_string())?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the flag takes no pointer.
    let no_new_privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if no_new_privileges != 0 {
        return Err(format!("PR_SET_NO_NEW_PRIVS: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the program outlives the call, which copies it.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if installed == 0 { Ok(()) } else { Err(format!("seccomp: {}", std::io::Error::last_os_error())) }
}
