//! The one ioctl of SEV launches, whose structs hold addresses.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl;
use exeunt_abi::kvm::memory::EncRegion;
use exeunt_abi::kvm::sev::{LaunchMeasure, SevCmd, id};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::mapping_unsafe::Mapping;

/// Why a command failed: the error of the ioctl, and what the firmware said, 0 where it was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) errno: Errno,
    pub(crate) firmware: u32,
}

impl Refused {
    /// What the ioctl refused without the firmware.
    pub(crate) const fn of(errno: Errno) -> Self {
        Self { errno, firmware: 0 }
    }
}

/// The descriptors of a command: the VM, and the `/dev/sev` whose number goes along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) vm: BorrowedFd<'a>,
    pub(crate) sev: BorrowedFd<'a>,
}

/// A command whose struct makes the kernel write to no memory but the struct itself.
///
/// `EFAULT` for one that is not among those, or for a struct of another length.
pub(crate) fn plain(pair: Pair<'_>, number: u32, data: &mut [u8]) -> Result<(), Refused> {
    const PLAIN: [u32; 8] = [
        id::ES_INIT,
        id::INIT2,
        id::LAUNCH_START,
        id::LAUNCH_UPDATE_VMSA,
        id::LAUNCH_FINISH,
        id::SNP_LAUNCH_START,
        id::SNP_LAUNCH_FINISH,
        id::SNP_ENABLE_REQ_CERTS,
    ];
    if !PLAIN.contains(&number) || id::data_bytes(number) != Some(data.len()) {
        return Err(Refused::of(Errno::EFAULT));
    }
    // SAFETY: The kernel reads and writes the struct, which has the length of the command. Addresses in the structs of
    // these commands are read from only, and an address that is not mapped is `EFAULT`.
    unsafe { issue(pair, number, data.as_mut_ptr().addr()) }
}

/// A command that encrypts guest memory: `range` counts from the start of the mapping, and `data` is the command's
/// struct for the address where it is then.
///
/// `EFAULT` if a byte is outside of the mapping, or for another command.
pub(crate) fn update<T: FromBytes + IntoBytes + Immutable + KnownLayout>(
    pair: Pair<'_>,
    number: u32,
    (mapping, offset, bytes): (&Mapping, u64, u64),
    data: impl FnOnce(u64) -> T,
) -> Result<T, Refused> {
    let is_update = matches!(number, id::LAUNCH_UPDATE_DATA | id::SNP_LAUNCH_UPDATE);
    let is_inside = offset.checked_add(bytes).is_some_and(|end| end <= mapping.bytes() as u64);
    if !is_update || !is_inside || id::data_bytes(number) != Some(size_of::<T>()) {
        return Err(Refused::of(Errno::EFAULT));
    }
    let mut data = data(mapping.address().saturating_add(offset));
    // SAFETY: The kernel reads and writes the struct, which has the length of the command, and the memory that it names,
    // which is inside of a mapping that nobody borrows.
    unsafe { issue(pair, number, data.as_mut_bytes().as_mut_ptr().addr()) }?;
    Ok(data)
}

/// `KVM_SEV_LAUNCH_MEASURE`.
pub(crate) fn measure(pair: Pair<'_>) -> Result<Vec<u8>, Refused> {
    let mut bytes = vec![0; MEASUREMENT_BYTES];
    let uaddr = bytes.as_mut_ptr().addr() as u64;
    let len = u32::try_from(bytes.len()).unwrap_or(0);
    let mut data = LaunchMeasure { uaddr, len, pad0: 0 };
    // SAFETY: The kernel writes the struct, and at most as many bytes to the buffer as the struct says that it has.
    unsafe { issue(pair, id::LAUNCH_MEASURE, data.as_mut_bytes().as_mut_ptr().addr()) }?;
    bytes.truncate(usize::try_from(data.len).unwrap_or(0));
    Ok(bytes)
}

/// A keyed hash of 32 bytes and a nonce of 16.
const MEASUREMENT_BYTES: usize = 48;

/// Registers memory of a slot that will hold what the guest has encrypted.
pub(crate) fn register(vm: BorrowedFd<'_>, mapping: &Mapping, offset: u64, size: u64) -> Result<(), Errno> {
    let region = EncRegion { addr: mapping.address().saturating_add(offset), size };
    // SAFETY: The kernel reads the 16 bytes that the request number says, and the struct has as many. It pins memory
    // and does not write to it.
    let result = unsafe {
        libc::ioctl(vm.as_raw_fd(), ioctl::KVM_MEMORY_ENCRYPT_REG_REGION.0.into(), &raw const region)
    };
    if result < 0 { Err(last()) } else { Ok(()) }
}

/// # Safety
///
/// What the command makes the kernel write through `data` belongs to the caller or is never borrowed.
unsafe fn issue(pair: Pair<'_>, number: u32, data: usize) -> Result<(), Refused> {
    let descriptor = |fd: RawFd| u32::try_from(fd).unwrap_or(u32::MAX);
    let sev_fd = descriptor(pair.sev.as_raw_fd());
    let mut cmd = SevCmd { id: number, pad0: 0, data: data as u64, error: 0, sev_fd };
    // SAFETY: The kernel reads and writes the 24 bytes of the command; the rest is the promise of the caller.
    let result =
        unsafe { libc::ioctl(pair.vm.as_raw_fd(), ioctl::KVM_MEMORY_ENCRYPT_OP.0.into(), &raw mut cmd) };
    if result < 0 { Err(Refused { errno: last(), firmware: cmd.error }) } else { Ok(()) }
}

fn last() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    const REFUSED: Refused = Refused::of(Errno::EFAULT);

    #[test]
    fn commands_that_write_elsewhere_and_structs_of_another_length_reach_no_kernel() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let pair = Pair { vm: null.as_fd(), sev: null.as_fd() };
        for number in [id::LAUNCH_UPDATE_DATA, id::LAUNCH_MEASURE, id::SNP_LAUNCH_UPDATE, id::DBG_DECRYPT, 99]
        {
            let bytes = id::data_bytes(number).unwrap_or(0);
            assert_eq!(plain(pair, number, &mut vec![0; bytes]), Err(REFUSED), "{number}");
        }
        assert_eq!(plain(pair, id::INIT2, &mut [0; 47]), Err(REFUSED));
        // A command that is as it should be does reach the kernel, which has no such ioctl on this file.
        assert_eq!(plain(pair, id::INIT2, &mut [0; 48]), Err(Refused::of(Errno::ENOTTY)));
    }

    #[test]
    fn memory_behind_the_end_of_a_mapping_is_not_handed_to_the_firmware() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let pair = Pair { vm: null.as_fd(), sev: null.as_fd() };
        let mapping = Mapping::anonymous(0x4000).unwrap();
        let data = |uaddr| exeunt_abi::kvm::sev::LaunchUpdateData { uaddr, len: 0x1000, pad0: 0 };
        let update = |offset, bytes| {
            update(pair, id::LAUNCH_UPDATE_DATA, (&mapping, offset, bytes), data).unwrap_err()
        };
        for (offset, bytes) in [(0x4000, 0x1000), (0x3000, 0x2000), (u64::MAX, 2), (0, u64::MAX)] {
            assert_eq!(update(offset, bytes), REFUSED, "{offset:#x} {bytes:#x}");
        }
        assert_eq!(update(0x3000, 0x1000).errno, Errno::ENOTTY);
    }
}
