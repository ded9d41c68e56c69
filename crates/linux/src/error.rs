//! Why the device, a VM or a vCPU could not be had.

use std::fmt;

use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};
use thiserror::Error;

/// Why something about `/dev/kvm` did not work. Each message ends with what to do next, where there is something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KvmError {
    /// There is no `/dev/kvm`, or no KVM module behind it.
    #[error(
        "/dev/kvm is missing: load kvm_amd or kvm_intel (a virtual machine needs nested virtualization for it)"
    )]
    DeviceMissing,
    /// `/dev/kvm` is there and belongs to others.
    #[error(
        "no permission to open /dev/kvm: add yourself to the group kvm (`sudo usermod -aG kvm $USER`) and log in \
         again"
    )]
    NoPermission,
    /// `/dev/kvm` cannot be opened for another reason.
    #[error("/dev/kvm cannot be opened: {errno}")]
    Open {
        /// The error of `open`.
        errno: Errno,
    },
    /// `KVM_GET_API_VERSION` is not 12, the only version since Linux 2.6.22.
    #[error("/dev/kvm speaks API version {found} and not 12: check what stands behind /dev/kvm")]
    ApiVersion {
        /// What the ioctl returned; negative if it failed.
        found: i32,
    },
    /// The host does not offer a capability.
    #[error("this host lacks {cap}, which {needed_for} needs: use a newer kernel, or the model")]
    MissingCapability {
        /// The capability.
        cap: Cap,
        /// What was asked for.
        needed_for: &'static str,
    },
    /// The host does not create VMs of this type.
    #[error(
        "this host creates no {} VM, since {cap} offers only the types of mask {offered:#x}: choose another type, \
         or the model",
        vm_type.name()
    )]
    VmTypeNotOffered {
        /// The type.
        vm_type: VmType,
        /// The capability that tells the types.
        cap: Cap,
        /// Its value: bit n set means that type n is offered.
        offered: u32,
    },
    /// The memory cannot be a slot.
    #[error("{bytes:#x} bytes of memory at {gpa} are refused: {flaw}")]
    BadMemory {
        /// The start.
        gpa: Gpa,
        /// The length in bytes.
        bytes: u64,
        /// What is wrong.
        flaw: MemoryFlaw,
    },
    /// The memory, or a vCPU's run area, cannot be mapped.
    #[error("mmap of {bytes:#x} bytes failed with {errno}")]
    Map {
        /// The length in bytes.
        bytes: u64,
        /// The error of `mmap`.
        errno: Errno,
    },
    /// A system call on a file that backs guest memory failed.
    #[error("{call} on a file for guest memory failed with {errno}")]
    File {
        /// The system call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// A vCPU's run area has no port page.
    #[error("KVM_GET_VCPU_MMAP_SIZE is {bytes:#x}, too small for the run page and the port page")]
    RunArea {
        /// Its length in bytes.
        bytes: u64,
    },
    /// The guest has turned on machine checks, so that an error is delivered to it.
    #[error(
        "the guest handles machine checks (CR4.MCE is 1), so that an error of its CPU is no triple fault"
    )]
    MachineChecksOn,
    /// There is no `/dev/sev` to be had.
    #[error("/dev/sev cannot be opened: {errno}")]
    OpenSev {
        /// The error of `open`.
        errno: Errno,
    },
    /// The firmware of the secure processor refused a command.
    #[error("{name} failed with {errno}: the firmware says {firmware:#x}")]
    Firmware {
        /// The command.
        name: &'static str,
        /// The error of the ioctl.
        errno: Errno,
        /// The status of the firmware.
        firmware: u32,
    },
    /// An ioctl failed.
    #[error("{name} failed with {errno}")]
    Ioctl {
        /// The ioctl.
        name: &'static str,
        /// Its error.
        errno: Errno,
    },
}

/// What is wrong with a range of memory. The checks are made in the order of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryFlaw {
    /// Its length is 0.
    Empty,
    /// Its start or its length is not a multiple of 4096.
    Unaligned,
    /// Its end is above 2^64.
    Wraps,
    /// It shares a page with memory that is there already.
    Overlaps,
    /// The host memory behind it ends before it does.
    PastEnd,
    /// The host memory behind it consists of larger pages, and it does not start and end with one.
    PartialPage {
        /// The length of such a page.
        page_bytes: u64,
    },
}

impl fmt::Display for MemoryFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PartialPage { page_bytes } => {
                return write!(
                    f,
                    "the host memory has pages of {page_bytes:#x} bytes, and it is not whole ones"
                );
            }
            Self::PastEnd => "the host memory ends before it does",
            Self::Empty => "the length is 0",
            Self::Unaligned => "start and length must be multiples of 4096",
            Self::Wraps => "the end lies above 2^64",
            Self::Overlaps => "it overlaps memory that was added before",
        })
    }
}

impl KvmError {
    /// Makes the error of a named ioctl out of what kvm-ioctls reports.
    pub(crate) fn ioctl(name: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Ioctl { name, errno: Errno(error.errno()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_one_line_and_names_what_it_is_about() {
        let cap = Cap::MEMORY_ATTRIBUTES;
        let errno = Errno::ENOTTY;
        let flaw = MemoryFlaw::Unaligned;
        let messages = [
            (KvmError::DeviceMissing, "kvm_amd"),
            (KvmError::NoPermission, "add yourself to the group kvm"),
            (KvmError::Open { errno }, "ENOTTY"),
            (KvmError::ApiVersion { found: 11 }, "11"),
            (KvmError::MissingCapability { cap, needed_for: "x" }, "memory-attributes (233)"),
            (
                KvmError::VmTypeNotOffered { vm_type: VmType::Snp, cap: Cap::VM_TYPES, offered: 1 },
                "no snp VM, since vm-types (235) offers only the types of mask 0x1",
            ),
            (
                KvmError::BadMemory { gpa: Gpa(0x1001), bytes: 0x1000, flaw },
                "0x1000 bytes of memory at 0x1001",
            ),
            (KvmError::Map { bytes: 0x1000, errno }, "ENOTTY"),
            (KvmError::File { call: "fstat", errno }, "fstat on a file for guest memory failed with ENOTTY"),
            (
                KvmError::BadMemory {
                    gpa: Gpa(0),
                    bytes: 0x1000,
                    flaw: MemoryFlaw::PartialPage { page_bytes: 0x20_0000 },
                },
                "pages of 0x200000 bytes",
            ),
            (KvmError::BadMemory { gpa: Gpa(0), bytes: 0x1000, flaw: MemoryFlaw::PastEnd }, "ends before"),
            (KvmError::RunArea { bytes: 0x1000 }, "0x1000"),
            (KvmError::MachineChecksOn, "CR4.MCE"),
            (KvmError::Ioctl { name: "KVM_CREATE_VM", errno }, "KVM_CREATE_VM failed with ENOTTY"),
        ];
        for (error, part) in messages {
            let message = error.to_string();
            assert!(message.contains(part) && !message.contains('\n'), "{message}");
            assert!(!message.contains("  "), "{message}");
        }
    }
}
