//! What is said of `/dev/kvm` and `/dev/sev` to who asks before opening them.
//!
//! Both are character devices that everybody may read and write, whatever the host has.

use exeunt_abi::Errno;
use exeunt_model::UserMemory;
use exeunt_model::device::Path;
use std::mem::offset_of;

/// Of every device that is not of a bus. Source: Linux v7.2 `Documentation/admin-guide/devices.txt`.
const MISC_MAJOR: u32 = 10;
const KVM_MINOR: u32 = 232;
/// `/dev/sev` has one that is given out at boot.
const SEV_MINOR: u32 = 124;

/// `S_IFCHR`, mode 0666.
const MODE: u16 = 0o20_666;

const fn minor(device: Path) -> u32 {
    match device {
        Path::Kvm => KVM_MINOR,
        Path::Sev => SEV_MINOR,
    }
}

/// Answers `stat`, `lstat` and `fstatat`.
pub(super) fn write_stat(device: Path, memory: &dyn UserMemory, uaddr: u64) -> Result<(), Errno> {
    let mut stat = [0; size_of::<libc::stat>()];
    let minor = minor(device);
    put(&mut stat, offset_of!(libc::stat, st_ino), &u64::from(minor).to_ne_bytes());
    put(&mut stat, offset_of!(libc::stat, st_nlink), &1_u64.to_ne_bytes());
    put(&mut stat, offset_of!(libc::stat, st_mode), &u32::from(MODE).to_ne_bytes());
    let rdev = rustix::fs::makedev(MISC_MAJOR, minor);
    put(&mut stat, offset_of!(libc::stat, st_rdev), &rdev.to_ne_bytes());
    put(&mut stat, offset_of!(libc::stat, st_blksize), &4096_u64.to_ne_bytes());
    memory.write(uaddr, &stat)
}

/// Answers `statx`.
pub(super) fn write_statx(device: Path, memory: &dyn UserMemory, uaddr: u64) -> Result<(), Errno> {
    let mut stat = [0; size_of::<libc::statx>()];
    let minor = minor(device);
    put(&mut stat, offset_of!(libc::statx, stx_mask), &libc::STATX_BASIC_STATS.to_ne_bytes());
    put(&mut stat, offset_of!(libc::statx, stx_blksize), &4096_u32.to_ne_bytes());
    put(&mut stat, offset_of!(libc::statx, stx_nlink), &1_u32.to_ne_bytes());
    put(&mut stat, offset_of!(libc::statx, stx_mode), &MODE.to_ne_bytes());
    put(&mut stat, offset_of!(libc::statx, stx_ino), &u64::from(minor).to_ne_bytes());
    put(&mut stat, offset_of!(libc::statx, stx_rdev_major), &MISC_MAJOR.to_ne_bytes());
    put(&mut stat, offset_of!(libc::statx, stx_rdev_minor), &minor.to_ne_bytes());
    memory.write(uaddr, &stat)
}

fn put(to: &mut [u8], offset: usize, bytes: &[u8]) {
    to.iter_mut().skip(offset).zip(bytes).for_each(|(to, from)| *to = *from);
}
