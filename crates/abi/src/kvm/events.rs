//! `struct kvm_vcpu_events` of x86.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_VCPUEVENT_VALID_NMI_PENDING`.
pub const VALID_NMI_PENDING: u32 = 0x01;
/// `KVM_VCPUEVENT_VALID_SIPI_VECTOR`.
pub const VALID_SIPI_VECTOR: u32 = 0x02;
/// `KVM_VCPUEVENT_VALID_SHADOW`.
pub const VALID_SHADOW: u32 = 0x04;
/// `KVM_VCPUEVENT_VALID_SMM`.
pub const VALID_SMM: u32 = 0x08;
/// `KVM_VCPUEVENT_VALID_PAYLOAD`, with capability 164.
pub const VALID_PAYLOAD: u32 = 0x10;
/// `KVM_VCPUEVENT_VALID_TRIPLE_FAULT`, with capability 218. The proposal of 2022 called it
/// `KVM_VCPUEVENT_SHUTDOWN` and made it one-way.
pub const VALID_TRIPLE_FAULT: u32 = 0x20;
/// `KVM_X86_SHADOW_INT_MOV_SS`: interrupts wait for the instruction after `MOV SS`.
pub const SHADOW_INT_MOV_SS: u8 = 0x01;
/// `KVM_X86_SHADOW_INT_STI`: interrupts wait for the instruction after `STI`.
pub const SHADOW_INT_STI: u8 = 0x02;
/// Every flag that Linux 7.2 knows.
pub const VALID_ALL: u32 = 0x3f;

/// The exceptions, interrupts and requests that a vCPU carries across a snapshot.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_vcpu_events`; the same on i386 and x32.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VcpuEvents {
    /// 1 if an exception was injected and not yet delivered.
    pub exception_injected: u8,
    /// The exception's vector, at most 31 and not 2.
    pub exception_nr: u8,
    /// 1 if the exception pushes an error code.
    pub exception_has_error_code: u8,
    /// 1 if the exception is pending, with capability 164.
    pub exception_pending: u8,
    /// The error code.
    pub exception_error_code: u32,
    /// 1 if an interrupt was injected and not yet delivered.
    pub interrupt_injected: u8,
    /// The interrupt's vector.
    pub interrupt_nr: u8,
    /// 1 for a software interrupt; the kernel never reports it.
    pub interrupt_soft: u8,
    /// `KVM_X86_SHADOW_INT_*`.
    pub interrupt_shadow: u8,
    /// 1 if an NMI was injected and not yet delivered.
    pub nmi_injected: u8,
    /// NMIs that wait.
    pub nmi_pending: u8,
    /// 1 if NMIs are blocked.
    pub nmi_masked: u8,
    /// Padding, never checked.
    pub nmi_pad: u8,
    /// The vector of a startup interrupt, written only.
    pub sipi_vector: u32,
    /// `KVM_VCPUEVENT_VALID_*`.
    pub flags: u32,
    /// 1 in system management mode.
    pub smi_smm: u8,
    /// 1 if an SMI waits.
    pub smi_pending: u8,
    /// 1 if SMM was entered from an NMI handler.
    pub smi_smm_inside_nmi: u8,
    /// 1 if an INIT waits.
    pub smi_latched_init: u8,
    /// 1 if a triple fault is requested and not yet serviced. The first reserved byte before Linux 6.0.
    pub triple_fault_pending: u8,
    /// Reserved, never checked.
    pub reserved: [u8; 26],
    /// 1 if `exception_payload` is valid, with capability 164.
    pub exception_has_payload: u8,
    /// DR6 or CR2 bits of a pending exception.
    pub exception_payload: u64,
}
const _: () = assert!(size_of::<VcpuEvents>() == 64 && offset_of!(VcpuEvents, interrupt_injected) == 8);
const _: () =
    assert!(offset_of!(VcpuEvents, nmi_injected) == 12 && offset_of!(VcpuEvents, sipi_vector) == 16);
const _: () = assert!(offset_of!(VcpuEvents, flags) == 20 && offset_of!(VcpuEvents, smi_smm) == 24);
const _: () = assert!(offset_of!(VcpuEvents, triple_fault_pending) == 28);
const _: () = assert!(offset_of!(VcpuEvents, exception_has_payload) == 55);
