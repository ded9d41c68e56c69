//! A script: what a VMM and its guest do, as a seed decides it.

mod generate;

pub use generate::generate;

use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::{Dialect, Gpa};

/// Where the guest's code is.
pub const CODE: Gpa = Gpa(0x1000);
/// The page tables: one page each of the levels 4, 3 and 2.
pub const TABLES: Gpa = Gpa(0x2000);
/// Where the guest leaves what it found in RAX, 8 bytes for each act that finds something.
pub const LOG: Gpa = Gpa(0x5000);
/// Bytes of the log that are compared.
pub const LOG_BYTES: usize = 8 * MAX_ACTS;
/// Bytes of the slot that holds all of the above, from address 0 on.
pub const LOW_BYTES: u64 = 0x1_0000;
/// Acts of a guest at most: its code is to fit into its page.
pub const MAX_ACTS: usize = 16;

/// The memory of the process that slots may lie in.
pub const ARENA_BYTES: usize = 0x4_0000;
/// The end of the arena, which faults when it is touched.
pub const HOLE_BYTES: usize = 0x1_0000;
/// Where the hole begins.
pub const HOLE: u64 = (ARENA_BYTES - HOLE_BYTES) as u64;

/// What a kernel and its CPU offer to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about a kernel")]
pub struct Features {
    /// What the model imitates.
    pub dialect: Dialect,
    /// `KVM_X86_SW_PROTECTED_VM` can be made.
    pub sw_protected: bool,
    /// A hypercall comes to its end. An emulating KVM may know none.
    pub hypercalls: bool,
    /// A guest's write to `HV_X64_MSR_RESET` leads to a system event.
    pub hyperv: bool,
    /// `guest_memfd` and attributes are those of the dialect. A kernel between two dialects may have more or fewer.
    pub private_ioctls: bool,
    /// Slots have a second address space, that of system management mode, which a kernel can be built without.
    pub two_spaces: bool,
    /// A guest that touches memory which its process does not map fails the entry. An emulating KVM may take it for
    /// an address without memory.
    pub hole_faults: bool,
}

/// What one script does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The argument of `KVM_CREATE_VM`.
    pub vm_type: u64,
    /// What the guest does; it halts after that, as often as it is entered.
    pub acts: Vec<Act>,
    /// What the VMM does.
    pub steps: Vec<Step>,
}

/// One thing that a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `OUT` of 1, 2 or 4 bytes.
    Out {
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
        /// The value.
        value: u32,
    },
    /// `IN` of 1, 2 or 4 bytes into a cleared RAX.
    In {
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
    },
    /// `HLT`.
    Hlt,
    /// `VMMCALL`, or `VMCALL`, which KVM patches on an AMD CPU.
    Hypercall {
        /// Intel's instruction.
        vmcall: bool,
        /// RAX.
        nr: u64,
        /// RBX, RCX, RDX, RSI.
        args: [u64; 4],
    },
    /// A store of 1, 2, 4 or 8 bytes.
    Write {
        /// The address.
        gpa: u64,
        /// Bytes.
        size: u8,
        /// The value.
        value: u64,
    },
    /// A load of 1, 2, 4 or 8 bytes into a cleared RAX.
    Read {
        /// The address.
        gpa: u64,
        /// Bytes.
        size: u8,
    },
    /// Writes 1 to `HV_X64_MSR_RESET`.
    HypervReset,
    /// A division by zero with no interrupt table. It is the last act.
    TripleFault,
}

impl Act {
    /// Whether it leaves RAX in the log.
    #[must_use]
    pub const fn is_logged(&self) -> bool {
        matches!(self, Self::In { .. } | Self::Hypercall { .. } | Self::Read { .. })
    }
}

/// One thing that a VMM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `KVM_CHECK_EXTENSION` on the VM.
    CheckExtension {
        /// The capability.
        cap: u32,
    },
    /// `KVM_ENABLE_CAP` on the VM.
    EnableCap {
        /// The capability.
        cap: u32,
        /// `flags`.
        flags: u32,
        /// The first argument.
        argument: u64,
    },
    /// `KVM_SET_USER_MEMORY_REGION`, or its successor.
    SetRegion(Region),
    /// `KVM_CREATE_GUEST_MEMFD`.
    CreateFile {
        /// Bytes.
        size: u64,
        /// `flags`.
        flags: u64,
    },
    /// `close` of a `guest_memfd`.
    CloseFile {
        /// Its number.
        file: u32,
    },
    /// `fallocate` of a `guest_memfd`.
    Fallocate {
        /// Its number.
        file: u32,
        /// Make pages present instead of punching a hole.
        allocate: bool,
        /// From here on.
        offset: u64,
        /// Bytes.
        bytes: u64,
    },
    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    SetAttributes {
        /// From here on.
        address: u64,
        /// Bytes.
        size: u64,
        /// The attributes.
        attributes: u64,
        /// `flags`.
        flags: u64,
    },
    /// The VMM writes a word of its own memory.
    Poke {
        /// Where in the arena.
        offset: u32,
        /// The word.
        value: u64,
    },
    /// The VMM reads a word of its own memory.
    Peek {
        /// Where in the arena.
        offset: u32,
    },
    /// Every byte of the union becomes this.
    Fill(u8),
    /// An answer: 8 bytes of the union.
    PutUnion {
        /// Where in the union.
        offset: u8,
        /// The word.
        value: u64,
    },
    /// An answer: the first bytes of the port page.
    PutPort(u64),
    /// `KVM_RUN`.
    Enter,
    /// `KVM_RUN` with `immediate_exit`.
    EnterImmediately,
    /// `KVM_GET_VCPU_EVENTS`.
    GetEvents,
    /// `KVM_SET_VCPU_EVENTS`.
    SetEvents(VcpuEvents),
    /// `KVM_X86_SET_MCE` with an uncorrected error that the guest does not handle.
    RaiseTripleFault,
    /// `KVM_GET_MP_STATE`.
    GetMpState,
    /// `KVM_SET_MP_STATE`.
    SetMpState(u32),
}

/// The arguments of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// `KVM_SET_USER_MEMORY_REGION2`.
    pub second: bool,
    /// The number.
    pub slot: u32,
    /// `KVM_MEM_*`.
    pub flags: u32,
    /// The guest's address.
    pub gpa: u64,
    /// Bytes.
    pub size: u64,
    /// Where in the arena.
    pub offset: u64,
    /// The number of the `guest_memfd`.
    pub file: u32,
    /// Where in it.
    pub file_offset: u64,
}
