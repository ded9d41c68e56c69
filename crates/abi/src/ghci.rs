//! The guest-hypervisor communication interface of TDX: leaves, states and the buffer of a quote.
//!
//! Sources: Intel 348552 "Guest-Host-Communication Interface for Intel TDX", version 1.5; Linux v7.2
//! `arch/x86/include/asm/shared/tdx.h` and `arch/x86/kvm/vmx/tdx.c`.

use core::fmt;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// R11 of a `TDG.VP.VMCALL` with R10 = 0.
pub mod leaf {
    crate::named::named! {
        u64;
        CPUID = 10, "`CPUID`, a VMX exit reason.";
        HLT = 12, "`HLT`, a VMX exit reason.";
        IO = 30, "Port I/O, a VMX exit reason.";
        RDMSR = 31, "`RDMSR`, a VMX exit reason.";
        WRMSR = 32, "`WRMSR`, a VMX exit reason.";
        MMIO = 48, "Memory-mapped I/O, the VMX exit reason of an EPT violation.";
        GET_TD_VM_CALL_INFO = 0x10000, "Which leaves there are. KVM forwards R12 = 1 and answers R12 = 0.";
        MAP_GPA = 0x10001, "Make a range shared or private. KVM forwards it as `KVM_HC_MAP_GPA_RANGE`.";
        GET_QUOTE = 0x10002, "Fetch a quote. KVM forwards it.";
        REPORT_FATAL_ERROR = 0x10003, "End the TD. KVM forwards it as `KVM_SYSTEM_EVENT_TDX_FATAL`.";
        SETUP_EVENT_NOTIFY_INTERRUPT = 0x10004, "Choose the vector that says that a quote is ready. KVM forwards it.";
    }
}

/// R10 after a `TDG.VP.VMCALL`. Names are without `TDVMCALL_STATUS_`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u64);

crate::named::named_newtype! {
    Status;
    SUCCESS = 0, "Done.";
    RETRY = 1, "Ask again: for `MAP_GPA`, from the address in R11 on.";
    INVALID_OPERAND = 1 << 63, "An argument is wrong.";
    GPA_INUSE = 1 << 63 | 1, "The address is in use. KVM does not make this status, but passes it on.";
    ALIGN_ERROR = 1 << 63 | 2, "An address or size is not aligned.";
    SUBFUNC_UNSUPPORTED = 1 << 63 | 3, "There is no such leaf.";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "status {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// [`QuoteHeader::status`].
pub mod quote_status {
    crate::named::named! {
        u64;
        SUCCESS = 0, "The quote is there. The guest writes 0 too when it asks.";
        IN_FLIGHT = u64::MAX, "The request was taken and is being worked on.";
        ERROR = 1 << 63, "There will be no quote.";
        SERVICE_UNAVAILABLE = 1 << 63 | 1, "The quoting service cannot be reached.";
    }
}

/// [`QuoteHeader::version`].
pub const QUOTE_VERSION: u64 = 1;

/// The head of the buffer of `GET_QUOTE`, in shared memory. The data follows: the TD's report, then the quote.
///
/// Layout: Intel 348552 version 1.5, section 3.3 "`TDG.VP.VMCALL<GetQuote>`"; Linux v7.2
/// `drivers/virt/coco/tdx-guest/tdx-guest.c`, `struct tdx_quote_buf`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QuoteHeader {
    /// [`QUOTE_VERSION`], by the guest.
    pub version: u64,
    /// As in [`quote_status`], by the host.
    pub status: u64,
    /// Bytes of the report behind the header, by the guest.
    pub in_len: u32,
    /// Bytes of the quote behind the header, by the host.
    pub out_len: u32,
}
const _: () = assert!(size_of::<QuoteHeader>() == 24 && offset_of!(QuoteHeader, status) == 8);
const _: () = assert!(offset_of!(QuoteHeader, in_len) == 16 && offset_of!(QuoteHeader, out_len) == 20);

/// Where the registers of a `REPORT_FATAL_ERROR` lie in `system_event.data`.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_report_fatal_error`.
pub mod fatal_error {
    /// R12: the error code in bits 31:0; see [`GPA_VALID`].
    pub const ERROR: usize = 12;
    /// R13: an address with more of the story, with [`GPA_VALID`].
    pub const GPA: usize = 13;
    /// R14, R15, RBX, RDI, RSI, R8, R9 and RDX: 64 bytes of text, in this order.
    pub const MESSAGE: [usize; 8] = [14, 15, 3, 7, 6, 8, 9, 2];
    /// Bit 63 of the error: R13 is an address.
    pub const GPA_VALID: u64 = 1 << 63;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_status_leads_back_from_its_name_and_the_unknown_prints_its_number() {
        for status in Status::ALL {
            assert_eq!(status.name().and_then(Status::from_name), Some(*status));
        }
        assert_eq!(Status(2).to_string(), "status 0x2");
        assert_eq!(Status::SUBFUNC_UNSUPPORTED.to_string(), "SUBFUNC_UNSUPPORTED");
    }

    #[test]
    fn the_message_of_a_fatal_error_takes_eight_different_registers() {
        for index in 0..16 {
            let uses = fatal_error::MESSAGE.iter().filter(|at| **at == index).count();
            assert!(uses <= 1 && (uses == 0 || ![fatal_error::ERROR, fatal_error::GPA].contains(&index)));
        }
    }
}
