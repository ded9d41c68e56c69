//! Bytes to meaning.

use super::{
    Entered, EventType, Exit, FailEntry, Hypercall, InternalError, Io, MemoryFault, Mmio, Other, SnpReqCerts,
    SystemEvent, Words, msr, tdx,
};
use core::fmt;
use exeunt_abi::kvm::run::coco_v1::{COCO, REQ_CERTS};
use exeunt_abi::kvm::run::vmgexit_v10::VMGEXIT;
use exeunt_abi::kvm::run::{self, ExitReason, MAP_GPA_RANGE, PORT_DATA_BYTES, RunPage, sev_term_v4_1};
use exeunt_abi::{CertsForm, ConversionForm, Errno, Gfn, Gpa, Kernel, SystemEventForm};

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
    /// `io.size` is not 1 to 7.
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
            if reason.0 == kernel.dialect.memory_fault_number() && kernel.dialect.has_private_memory() =>
        {
            Ok(Exit::MemoryFault(memory_fault(page.payload(), errno)))
        }
        Err(errno) => Err(DecodeError::Failed { errno, stale: reason }),
    }
}

/// The exits that fill the whole of an [`Exit`] are decoded out of line: a compiler that merges the arms would make
/// every small exit copy 256 bytes, which takes longer than decoding it.
fn decode_union(reason: ExitReason, page: &RunPage, kernel: Kernel) -> Result<Exit, DecodeError> {
    match reason {
        ExitReason::IO => io(page.payload()).map(Exit::Io),
        ExitReason::MMIO => mmio(page.payload()).map(Exit::Mmio),
        ExitReason::HLT => Ok(Exit::Hlt),
        ExitReason::HYPERCALL => Ok(Exit::Hypercall(hypercall(page.payload(), kernel))),
        ExitReason::SHUTDOWN => Ok(Exit::Shutdown),
        ExitReason::AP_RESET_HOLD if kernel.dialect.has_ap_reset_hold() => Ok(Exit::ApResetHold),
        ExitReason::X86_RDMSR => Ok(msr::decode_read(page)),
        ExitReason::X86_WRMSR => Ok(msr::decode_write(page)),
        ExitReason::FAIL_ENTRY => {
            let wire: run::FailEntry = page.payload();
            Ok(Exit::FailEntry(FailEntry { reason: wire.hardware_entry_failure_reason, cpu: wire.cpu }))
        }
        ExitReason::NOTIFY => Ok(Exit::Notify { flags: page.payload::<run::Notify>().flags }),
        ExitReason::SNP_REQ_CERTS if kernel.dialect.certs_form() == CertsForm::SnpReqCerts => {
            let wire: run::SnpReqCerts = page.payload();
            Ok(Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(wire.gpa), pages: wire.npages }))
        }
        COCO if kernel.dialect.certs_form() == CertsForm::Coco && is_req_certs(page) => {
            let wire: run::CocoV1 = page.payload();
            let request = SnpReqCerts { gpa: Gfn(wire.gfn).gpa(), pages: u64::from(wire.npages) };
            Ok(Exit::SnpReqCerts(request))
        }
        VMGEXIT if kernel.dialect.conversion_form() == ConversionForm::Vmgexit => {
            Ok(Exit::Vmgexit { ghcb_msr: page.payload::<run::VmgexitV10>().ghcb_msr })
        }
        _ => decode_large(reason, page, kernel),
    }
}

#[inline(never)]
#[expect(clippy::unnecessary_wraps, reason = "an unwrapped exit would be copied once more")]
fn decode_large(reason: ExitReason, page: &RunPage, kernel: Kernel) -> Result<Exit, DecodeError> {
    Ok(match reason {
        ExitReason::INTERNAL_ERROR => {
            let wire: run::InternalError = page.payload();
            let data = Words::new(wire.ndata, wire.data);
            Exit::InternalError(InternalError { suberror: wire.suberror, data })
        }
        ExitReason::SYSTEM_EVENT => Exit::SystemEvent(system_event(page, kernel)),
        ExitReason::TDX if kernel.dialect.has_tdx() => Exit::Tdx(tdx::decode(page)),
        reason => Exit::Other(Other { reason, bytes: page.exit }),
    })
}

fn io(wire: run::Io) -> Result<Io, DecodeError> {
    let is_out = match wire.direction {
        run::DIRECTION_IN => false,
        run::DIRECTION_OUT => true,
        direction => return Err(DecodeError::IoDirection { direction }),
    };
    // KVM takes the size from three bits that an SEV-ES guest writes, of which more than one may be set.
    if !matches!(wire.size, 1..=7) {
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

fn is_req_certs(page: &RunPage) -> bool {
    page.payload::<run::CocoV1>().nr == REQ_CERTS
}

fn system_event(page: &RunPage, kernel: Kernel) -> SystemEvent {
    let wire: run::SystemEvent = page.payload();
    let form = kernel.dialect.system_event_form();
    if form == SystemEventForm::Shipped {
        let event = EventType::from_number(wire.event_type);
        return SystemEvent { event, data: Words::new(wire.ndata, wire.data) };
    }
    // The word behind the type counts only where arm64 and riscv64 filled it.
    let implicit = if kernel.arch.clears_system_event() { Words::new(1, wire.data) } else { Words::NONE };
    if form == SystemEventForm::Flags {
        return SystemEvent { event: EventType::from_number(wire.event_type), data: implicit };
    }
    // The proposals of 2022: bit 31 says that the data counts, and SEV_TERM, with another number, is the one type that has
    // it. Any other number with the bit is none that they define, and is kept whole.
    let event = match wire.event_type {
        sev_term_v4_1::SEV_TERM_WITH_DATA => EventType::SevTerm,
        sev_term_v4_1::SEV_TERM => EventType::Unknown(wire.event_type),
        number => EventType::from_number(number),
    };
    let data = if wire.event_type & sev_term_v4_1::NDATA_VALID == 0 {
        implicit
    } else if form == SystemEventForm::Queued {
        Words::new(wire.ndata, page.payload::<run::SystemEventQueued>().data)
    } else {
        Words::new(wire.ndata, wire.data)
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
