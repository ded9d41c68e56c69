//! `struct kvm_run`: the page that both halves write, and one file for each member of its union.
//!
//! `KVM_EXIT_HLT`, `KVM_EXIT_SHUTDOWN` and `KVM_EXIT_AP_RESET_HOLD` have no member: the kernel writes the exit number
//! only, and the union holds what an earlier exit left there. Members of proposals that never shipped are here too,
//! each under the name of its version.

pub mod coco_v1;
mod fail_entry;
mod hypercall;
mod internal_error;
mod io;
mod memory_fault;
mod mmio;
mod notify;
mod reason;
mod riscv_sbi;
mod snp_req_certs;
mod system_event;
mod tdx;
pub mod vmgexit_v10;
mod x86_msr;

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

pub use coco_v1::CocoV1;
pub use fail_entry::FailEntry;
pub use hypercall::{HYPERCALL_LONG_MODE, Hypercall, MAP_GPA_RANGE, map_gpa_range};
pub use internal_error::{EMULATION_FLAG_INSTRUCTION_BYTES, EmulationFailure, InternalError, suberror};
pub use io::{DIRECTION_IN, DIRECTION_OUT, Io};
pub use memory_fault::{MEMORY_EXIT_FLAG_PRIVATE, MemoryFault};
pub use mmio::Mmio;
pub use notify::{NOTIFY_CONTEXT_INVALID, Notify};
pub use reason::ExitReason;
pub use riscv_sbi::RiscvSbi;
pub use snp_req_certs::SnpReqCerts;
pub use system_event::{
    PSCI_OFF2, PSCI_RESET2, SystemEvent, SystemEventQueued, SystemEventV4_1, SystemEventV5_17,
    SystemEventV5_17Ilp32, event_type, sev_term_v4_1,
};
pub use tdx::{Tdx, TdxGetQuote, TdxGetTdVmCallInfo, TdxSetupEventNotify};
pub use vmgexit_v10::VmgexitV10;
pub use x86_msr::{X86Msr, msr_exit_reason};

/// Bytes of the exit union.
pub const UNION_BYTES: usize = 256;

/// Bytes of the page that port I/O data goes through, page 1 of the vCPU's mapping.
pub const PORT_DATA_BYTES: usize = 4096;

/// The head of `struct kvm_run`, up to the end of the exit union, as an owned copy.
///
/// It is a copy and not a view: `immediate_exit` at offset 1 of the live page is written by other threads and by
/// signal handlers, so no reference to the live page exists. The kernel half copies the page out after each
/// `KVM_RUN` and the union back in before the next.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_run`, offsets 0 to 287, on x86-64, i386, arm64 and
/// riscv64 (on s390 the union is elsewhere).
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RunPage {
    /// `request_interrupt_window`, `immediate_exit` and padding: what userspace tells the kernel.
    pub user: [u8; 8],
    /// `exit_reason`: valid only when `KVM_RUN` returned 0, or with -1 in the cases that `exit::decode` knows.
    pub exit_reason: u32,
    /// 1 if an interrupt can be injected now.
    pub ready_for_interrupt_injection: u8,
    /// The guest's `RFLAGS.IF`.
    pub if_flag: u8,
    /// `KVM_RUN_X86_*` and the like; the kernel zeroes it at every `KVM_RUN`.
    pub flags: u16,
    /// The guest's CR8, with a userspace local APIC.
    pub cr8: u64,
    /// The guest's `IA32_APIC_BASE`.
    pub apic_base: u64,
    /// The exit union: what its bytes mean depends on `exit_reason`. Bytes that the kernel did not write are stale.
    pub exit: [u8; UNION_BYTES],
}
const _: () = assert!(size_of::<RunPage>() == 288 && offset_of!(RunPage, exit_reason) == 8);
const _: () = assert!(offset_of!(RunPage, flags) == 14 && offset_of!(RunPage, exit) == 32);

/// A member of the exit union.
pub trait Payload: FromBytes + IntoBytes + Immutable + KnownLayout {}

impl RunPage {
    /// A page as the kernel hands it out first: all zero.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }

    /// Why the vCPU came back.
    #[must_use]
    pub const fn reason(&self) -> ExitReason {
        ExitReason(self.exit_reason)
    }

    /// Reads a member of the union. Which member holds, the reader must know.
    #[must_use]
    #[inline]
    pub fn payload<T: Payload>(&self) -> T {
        const { assert!(size_of::<T>() <= UNION_BYTES) };
        // The size is checked above, so the copy always succeeds; zeroes are the value of the branch never taken.
        T::read_from_prefix(&self.exit).map_or_else(|_| T::new_zeroed(), |(value, _)| value)
    }

    /// Writes a member of the union. Bytes behind it stay as they were.
    #[inline]
    pub fn set_payload<T: Payload>(&mut self, value: &T) {
        const { assert!(size_of::<T>() <= UNION_BYTES) };
        self.set_bytes(0, value.as_bytes());
    }

    /// Writes bytes at an offset in the union; what would lie outside of it is dropped.
    #[inline]
    pub fn set_bytes(&mut self, offset: usize, bytes: &[u8]) {
        let to = self.exit.get_mut(offset..).unwrap_or_default();
        let length = to.len().min(bytes.len());
        if let (Some(to), Some(from)) = (to.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
    }

    /// Reads the little-endian `u32` at an offset in the union; bytes outside of it read as zero.
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> u32 {
        let bytes = self.exit.get(offset..).unwrap_or_default();
        u32::read_from_prefix(bytes).map_or(0, |(value, _)| value)
    }
}

#[cfg(test)]
mod tests;
