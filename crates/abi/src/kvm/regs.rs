//! The registers of an x86 vCPU, as the ioctls carry them.
//!
//! Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`. All sizes and offsets are the same for i386, x32 and 64-bit
//! processes.

use super::events::VcpuEvents;
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_GET_REGS`, `KVM_SET_REGS`: the general registers.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_regs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Regs {
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// RSP.
    pub rsp: u64,
    /// RBP.
    pub rbp: u64,
    /// R8 to R15.
    pub r8_to_r15: [u64; 8],
    /// RIP.
    pub rip: u64,
    /// RFLAGS; bit 1 is always set.
    pub rflags: u64,
}
const _: () = assert!(size_of::<Regs>() == 144 && offset_of!(Regs, rsi) == 32);
const _: () = assert!(offset_of!(Regs, r8_to_r15) == 64 && offset_of!(Regs, rip) == 128);

/// A segment register with its hidden part.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_segment`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Segment {
    /// First byte: linear address.
    pub base: u64,
    /// Last byte, relative to the base.
    pub limit: u32,
    /// The visible part.
    pub selector: u16,
    /// The descriptor's type.
    pub segment_type: u8,
    /// 1 if present.
    pub present: u8,
    /// Privilege level.
    pub dpl: u8,
    /// 1 for 32-bit defaults.
    pub db: u8,
    /// 1 for code or data, 0 for a system segment.
    pub s: u8,
    /// 1 for 64-bit code.
    pub l: u8,
    /// 1 if the descriptor's limit counts pages.
    pub g: u8,
    /// The bit for software.
    pub avl: u8,
    /// 1 if the segment cannot be used.
    pub unusable: u8,
    /// Padding.
    pub padding: u8,
}
const _: () = assert!(size_of::<Segment>() == 24 && offset_of!(Segment, selector) == 12);
const _: () = assert!(offset_of!(Segment, s) == 18 && offset_of!(Segment, l) == 19);

/// A descriptor table register.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_dtable`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dtable {
    /// First byte: linear address.
    pub base: u64,
    /// Last byte, relative to the base.
    pub limit: u16,
    /// Padding.
    pub padding: [u16; 3],
}
const _: () = assert!(size_of::<Dtable>() == 16 && offset_of!(Dtable, limit) == 8);

/// The part that [`Sregs`] and [`Sregs2`] share: their first 280 bytes.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sregs` up to `apic_base`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SregsHead {
    /// CS.
    pub cs: Segment,
    /// DS.
    pub ds: Segment,
    /// ES.
    pub es: Segment,
    /// FS.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// SS.
    pub ss: Segment,
    /// The task register.
    pub tr: Segment,
    /// The local descriptor table register.
    pub ldt: Segment,
    /// The global descriptor table register.
    pub gdt: Dtable,
    /// The interrupt descriptor table register.
    pub idt: Dtable,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8.
    pub cr8: u64,
    /// The MSR EFER.
    pub efer: u64,
    /// The MSR `IA32_APIC_BASE`.
    pub apic_base: u64,
}
const _: () = assert!(size_of::<SregsHead>() == 280 && offset_of!(SregsHead, gdt) == 192);
const _: () = assert!(offset_of!(SregsHead, cr0) == 224 && offset_of!(SregsHead, apic_base) == 272);

/// `KVM_GET_SREGS`, `KVM_SET_SREGS`: the special registers.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sregs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sregs {
    /// What [`Sregs2`] has too.
    pub head: SregsHead,
    /// A bit for each vector: the interrupt that was injected and not yet delivered.
    pub interrupt_bitmap: [u64; 4],
}
const _: () = assert!(size_of::<Sregs>() == 312 && offset_of!(Sregs, interrupt_bitmap) == 280);

/// `KVM_SREGS2_FLAGS_PDPTRS_VALID`.
pub const SREGS2_FLAGS_PDPTRS_VALID: u64 = 1;

/// `KVM_GET_SREGS2`, `KVM_SET_SREGS2`: the special registers with the page directory pointers.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_sregs2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sregs2 {
    /// What [`Sregs`] has too.
    pub head: SregsHead,
    /// [`SREGS2_FLAGS_PDPTRS_VALID`].
    pub flags: u64,
    /// The page directory pointers of PAE paging.
    pub pdptrs: [u64; 4],
}
const _: () = assert!(size_of::<Sregs2>() == 320 && offset_of!(Sregs2, flags) == 280);

/// `KVM_GET_FPU`, `KVM_SET_FPU`: the floating point registers.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_fpu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fpu {
    /// ST0 to ST7, 16 bytes each.
    pub fpr: [[u8; 16]; 8],
    /// The control word.
    pub fcw: u16,
    /// The status word.
    pub fsw: u16,
    /// The abridged tag word.
    pub ftwx: u8,
    /// Padding.
    pub pad1: u8,
    /// The last opcode.
    pub last_opcode: u16,
    /// Where the last instruction was.
    pub last_ip: u64,
    /// Where its operand was.
    pub last_dp: u64,
    /// XMM0 to XMM15.
    pub xmm: [[u8; 16]; 16],
    /// MXCSR, which KVM neither reads nor writes here.
    pub mxcsr: u32,
    /// Padding.
    pub pad2: u32,
}
const _: () = assert!(size_of::<Fpu>() == 416 && offset_of!(Fpu, fcw) == 128);
const _: () = assert!(offset_of!(Fpu, xmm) == 152 && offset_of!(Fpu, mxcsr) == 408);

/// `KVM_GET_DEBUGREGS`, `KVM_SET_DEBUGREGS`: the debug registers.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_debugregs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DebugRegs {
    /// DR0 to DR3.
    pub db: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// No flag exists: must be 0.
    pub flags: u64,
    /// Reserved, never checked.
    pub reserved: [u64; 9],
}
const _: () = assert!(size_of::<DebugRegs>() == 128 && offset_of!(DebugRegs, flags) == 48);

/// One extended control register.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_xcr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Xcr {
    /// The number; only 0 is known.
    pub xcr: u32,
    /// Reserved.
    pub reserved: u32,
    /// The value.
    pub value: u64,
}
const _: () = assert!(size_of::<Xcr>() == 16 && offset_of!(Xcr, value) == 8);

/// `KVM_GET_XCRS`, `KVM_SET_XCRS`: the extended control registers.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_xcrs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Xcrs {
    /// How many there are, at most 16.
    pub nr_xcrs: u32,
    /// No flag exists: must be 0.
    pub flags: u32,
    /// The registers.
    pub xcrs: [Xcr; 16],
    /// Padding.
    pub padding: [u64; 16],
}
const _: () = assert!(size_of::<Xcrs>() == 392 && offset_of!(Xcrs, xcrs) == 8);

/// Bytes of `struct kvm_xsave`, which is the XSAVE area as the processor lays it out.
pub const XSAVE_BYTES: usize = 4096;
/// Bytes of `struct kvm_lapic_state`, which is the APIC's page up to its last register.
pub const LAPIC_BYTES: usize = 1024;

/// `KVM_SYNC_X86_REGS`: [`SyncRegs::regs`].
pub const SYNC_REGS: u64 = 1 << 0;
/// `KVM_SYNC_X86_SREGS`: [`SyncRegs::sregs`].
pub const SYNC_SREGS: u64 = 1 << 1;
/// `KVM_SYNC_X86_EVENTS`: [`SyncRegs::events`].
pub const SYNC_EVENTS: u64 = 1 << 2;
/// `KVM_SYNC_X86_VALID_FIELDS`.
pub const SYNC_ALL: u64 = SYNC_REGS | SYNC_SREGS | SYNC_EVENTS;

/// The end of `struct kvm_run`, from offset 288 on: registers that go along with `KVM_RUN`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_run` from `kvm_valid_regs` on, with
/// `struct kvm_sync_regs` of `arch/x86/include/uapi/asm/kvm.h` in its union.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SyncRegs {
    /// Which registers the kernel stores when `KVM_RUN` returns.
    pub kvm_valid_regs: u64,
    /// Which registers the kernel loads when `KVM_RUN` begins; it clears what it has loaded.
    pub kvm_dirty_regs: u64,
    /// The general registers.
    pub regs: Regs,
    /// The special registers.
    pub sregs: Sregs,
    /// The events.
    pub events: VcpuEvents,
    /// The rest of the union, which no kernel touches.
    pub padding: [u8; 1528],
}
const _: () = assert!(size_of::<SyncRegs>() == 2064 && offset_of!(SyncRegs, kvm_dirty_regs) == 8);
const _: () = assert!(offset_of!(SyncRegs, regs) == 16 && offset_of!(SyncRegs, sregs) == 160);
const _: () = assert!(offset_of!(SyncRegs, events) == 472 && offset_of!(SyncRegs, padding) == 536);
