//! Bytes to meaning.

use super::{
    Entered, EventType, Exit, FailEntry, Hypercall, InternalError, Io, MemoryFault, Mmio, Other, SnpReqCerts,
    SystemEvent, Words, msr, tdx,
};
use core::fmt;
use exeunt_abi::kvm::run::{self, ExitReason, MAP_GPA_RANGE, PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Arch, Errno, Gpa, Kernel};

/// Why what the kernel handed out has no meaning. None of these is an answer to the guest: the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// `KVM_RUN` failed with an error that brings no exit.
    Failed {
        /// The error.
        errno: Errno,
        /// `exit_reason`, which is stale with most errors.
        stale: ExitReason,
    },
    /// `io.direction` is neither in nor out.
    IoDirection {
        /// The byte.
        direction: u8,
    },
    /// `io.size` is not 1, 2 or 4.
    IoSize {
        /// The byte.
        size: u8,
    },
    /// The data of a port I/O exit lies outside the port page.
    IoData {
        /// `io.data_offset`.
        offset: u64,
        /// Bytes of data.
        bytes: u64,
    },
    /// `mmio.len` is not 1 to 8.
    MmioLen {
        /// The length.
        len: u32,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { errno, stale } => write!(f, "KVM_RUN failed with {errno} (stale: {stale})"),
            Self::IoDirection { direction } => write!(f, "io.direction is {direction}"),
            Self::IoSize { size } => write!(f, "io.size is {size}"),
            Self::IoData { offset, bytes } => {
                write!(f, "{bytes} bytes of port data at {offset:#x} lie outside the port page")
            }
            Self::MmioLen { len } => write!(f, "mmio.len is {len}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Decodes an exit.
///
/// `entered` is the result of `KVM_RUN`, `page` what the kernel left in the run page, `kernel` which kernel it was.
/// `exit_reason` is looked at only when `KVM_RUN` returned 0, or for the one documented pair: `EFAULT` or `EHWPOISON`
/// with `KVM_EXIT_MEMORY_FAULT`. `EFAULT` alone is not enough, since the run loop also fails with it.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/api.rst`, section 5 "The `kvm_run` structure", and
/// `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_run`.
///
/// # Errors
///
/// What the kernel wrote contradicts its own interface, or `KVM_RUN` failed for good.
pub fn decode(entered: Entered, page: &RunPage, kernel: Kernel) -> Result<Exit, DecodeError> {
    let reason = page.reason();
    match entered {
        Ok(()) => decode_union(reason, page, kernel),
        Err(errno @ (Errno::EINTR | Errno::EAGAIN)) => Ok(Exit::Again(errno)),
        Err(errno @ (Errno::EFAULT | Errno::EHWPOISON))
            if reason == ExitReason::MEMORY_FAULT && kernel.dialect.has_private_memory() =>
        {
            Ok(Exit::MemoryFault(memory_fault(page.payload(), errno)))
        }
        Err(errno) => Err(DecodeError::Failed { errno, stale: reason }),
    }
}

fn decode_union(reason: ExitReason, page: &RunPage, kernel: Kernel) -> Result<Exit, DecodeError> {
    Ok(match reason {
        ExitReason::IO => Exit::Io(io(page.payload())?),
        ExitReason::MMIO => Exit::Mmio(mmio(page.payload())?),
        ExitReason::HLT => Exit::Hlt,
        ExitReason::HYPERCALL => Exit::Hypercall(hypercall(page.payload(), kernel)),
        ExitReason::SHUTDOWN => Exit::Shutdown,
        ExitReason::FAIL_ENTRY => {
            let wire: run::FailEntry = page.payload();
            Exit::FailEntry(FailEntry { reason: wire.hardware_entry_failure_reason, cpu: wire.cpu })
        }
        ExitReason::INTERNAL_ERROR => {
            let wire: run::InternalError = page.payload();
            let data = Words::new(wire.ndata, wire.data);
            Exit::InternalError(InternalError { suberror: wire.suberror, data })
        }
        ExitReason::SYSTEM_EVENT => Exit::SystemEvent(system_event(page.payload(), kernel)),
        ExitReason::NOTIFY => Exit::Notify { flags: page.payload::<run::Notify>().flags },
        ExitReason::SNP_REQ_CERTS if kernel.dialect.has_snp_req_certs() => {
            let wire: run::SnpReqCerts = page.payload();
            Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(wire.gpa), pages: wire.npages })
        }
        ExitReason::AP_RESET_HOLD if kernel.dialect.has_ap_reset_hold() => Exit::ApResetHold,
        ExitReason::TDX if kernel.dialect.has_tdx() => Exit::Tdx(tdx::decode(page)),
        ExitReason::X86_RDMSR => msr::decode_read(page),
        ExitReason::X86_WRMSR => msr::decode_write(page),
        reason => Exit::Other(Other { reason, bytes: page.exit }),
    })
}

fn io(wire: run::Io) -> Result<Io, DecodeError> {
    let is_out = match wire.direction {
        run::DIRECTION_IN => false,
        run::DIRECTION_OUT => true,
        direction => return Err(DecodeError::IoDirection { direction }),
    };
    if !matches!(wire.size, 1 | 2 | 4) {
        return Err(DecodeError::IoSize { size: wire.size });
    }
    let bytes = u64::from(wire.count).saturating_mul(u64::from(wire.size));
    let outside = DecodeError::IoData { offset: wire.data_offset, bytes };
    // Page 1 of the mapping, straight after `kvm_run`, is the port page.
    let port_page = PORT_DATA_BYTES as u64;
    let start = wire.data_offset.checked_sub(port_page).ok_or(outside)?;
    if start.checked_add(bytes).is_none_or(|end| end > port_page) {
        return Err(outside);
    }
    let start = u16::try_from(start).map_err(|_| outside)?;
    Ok(Io { is_out, size: wire.size, port: wire.port, count: wire.count, start })
}

fn mmio(wire: run::Mmio) -> Result<Mmio, DecodeError> {
    match u8::try_from(wire.len) {
        Ok(len @ 1..=8) => {
            Ok(Mmio { gpa: Gpa(wire.phys_addr), data: wire.data, len, is_write: wire.is_write != 0 })
        }
        _ => Err(DecodeError::MmioLen { len: wire.len }),
    }
}

fn hypercall(wire: run::Hypercall, kernel: Kernel) -> Hypercall {
    let mut args = wire.args;
    if wire.nr == MAP_GPA_RANGE {
        // No kernel writes these for this hypercall.
        let [gpa, pages, attributes, ..] = args;
        args = [gpa, pages, attributes, 0, 0, 0];
    }
    let flags = match kernel.dialect.hypercall_flags_bytes() {
        8 => wire.flags,
        _ => wire.flags & 0xffff_ffff,
    };
    Hypercall { nr: wire.nr, args, flags }
}

fn system_event(wire: run::SystemEvent, kernel: Kernel) -> SystemEvent {
    let event = EventType::from_number(wire.event_type);
    let data = if kernel.dialect.has_system_event_data() {
        Words::new(wire.ndata, wire.data)
    } else {
        // `ndata` was padding then, and only arm64 and riscv64 filled the word behind it.
        match kernel.arch {
            Arch::Arm64 => Words::new(1, wire.data),
            _ => Words::NONE,
        }
    };
    SystemEvent { event, data }
}

fn memory_fault(wire: run::MemoryFault, errno: Errno) -> MemoryFault {
    MemoryFault {
        gpa: Gpa(wire.gpa),
        size: wire.size,
        private: wire.flags & run::MEMORY_EXIT_FLAG_PRIVATE != 0,
        unknown_flags: wire.flags & !run::MEMORY_EXIT_FLAG_PRIVATE,
        poisoned: errno == Errno::EHWPOISON,
    }
}
