//! Calls of a TD that userspace answers.

use core::fmt;
use exeunt_abi::Gpa;
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::kvm::run::{self, RunPage};

/// A `TDG.VP.VMCALL` that KVM forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tdx {
    /// `tdx.flags`: no flag exists yet.
    pub flags: u64,
    /// What the TD wants.
    pub call: TdxCall,
}

/// What a TD wants.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/api.rst`, `KVM_EXIT_TDX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TdxCall {
    /// `GetQuote`. It is answered at once; the quote follows when it is ready, see [`crate::ghci::Quote`].
    GetQuote {
        /// The shared buffer, without the shared bit. Unchecked.
        gpa: Gpa,
        /// Its length in bytes. Unchecked.
        size_bytes: u64,
    },
    /// `GetTdVmCallInfo`.
    GetTdVmCallInfo {
        /// What is asked for; KVM forwards leaf 1 only.
        leaf: u64,
    },
    /// `SetupEventNotifyInterrupt`.
    SetupEventNotify {
        /// The vector, 32 to 255.
        vector: u64,
    },
    /// A call that is not known here. KVM has put a safe answer in place: it is enough to enter again.
    Unknown {
        /// The leaf.
        nr: u64,
        /// The arguments. Which of them the kernel wrote is not known.
        data: [u64; 5],
    },
}

impl TdxCall {
    /// The leaf of the call.
    #[must_use]
    pub const fn nr(self) -> u64 {
        match self {
            Self::GetQuote { .. } => leaf::GET_QUOTE,
            Self::GetTdVmCallInfo { .. } => leaf::GET_TD_VM_CALL_INFO,
            Self::SetupEventNotify { .. } => leaf::SETUP_EVENT_NOTIFY_INTERRUPT,
            Self::Unknown { nr, .. } => nr,
        }
    }
}

impl fmt::Display for Tdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.call {
            TdxCall::GetQuote { gpa, size_bytes } => write!(f, "GetQuote into {size_bytes} bytes at {gpa}"),
            TdxCall::GetTdVmCallInfo { leaf } => write!(f, "GetTdVmCallInfo of leaf {leaf}"),
            TdxCall::SetupEventNotify { vector } => {
                write!(f, "SetupEventNotifyInterrupt with vector {vector}")
            }
            TdxCall::Unknown { nr, data } => write!(f, "TDVMCALL {nr:#x} with {data:x?}"),
        }
    }
}

/// Decodes the union of a `KVM_EXIT_TDX`.
pub(super) fn decode(page: &RunPage) -> Tdx {
    let wire: run::Tdx = page.payload();
    let [first, second, ..] = wire.data;
    let call = match wire.nr {
        leaf::GET_QUOTE => TdxCall::GetQuote { gpa: Gpa(first), size_bytes: second },
        leaf::GET_TD_VM_CALL_INFO => TdxCall::GetTdVmCallInfo { leaf: first },
        leaf::SETUP_EVENT_NOTIFY_INTERRUPT => TdxCall::SetupEventNotify { vector: first },
        nr => TdxCall::Unknown { nr, data: wire.data },
    };
    Tdx { flags: wire.flags, call }
}

/// Writes the union as KVM does, with the answer that it presets.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_get_quote`, `tdx_get_td_vm_call_info` and
/// `tdx_setup_event_notify_interrupt`.
pub(super) fn encode(tdx: &Tdx, page: &mut RunPage) {
    let (flags, nr) = (tdx.flags, tdx.call.nr());
    let refused = Status::SUBFUNC_UNSUPPORTED.0;
    match tdx.call {
        TdxCall::GetQuote { gpa, size_bytes } => {
            page.set_payload(&run::TdxGetQuote { flags, nr, ret: refused, gpa: gpa.0, size: size_bytes });
        }
        TdxCall::GetTdVmCallInfo { leaf } => {
            let ret = Status::SUCCESS.0;
            page.set_payload(&run::TdxGetTdVmCallInfo {
                flags,
                nr,
                ret,
                leaf,
                r11: 0,
                r12: 0,
                r13: 0,
                r14: 0,
            });
        }
        TdxCall::SetupEventNotify { vector } => {
            page.set_payload(&run::TdxSetupEventNotify { flags, nr, ret: refused, vector });
        }
        TdxCall::Unknown { data, .. } => page.set_payload(&run::Tdx { flags, nr, ret: refused, data }),
    }
}
