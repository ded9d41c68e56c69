//! Interrupts, timers and the devices in the kernel: structs of their ioctls.
//!
//! Source: Linux v7.2 `include/uapi/linux/kvm.h` and `arch/x86/include/uapi/asm/kvm.h`.

use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KVM_IRQ_LINE`, `KVM_IRQ_LINE_STATUS`: a pin of an interrupt controller.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_irq_level`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IrqLevel {
    /// In: the interrupt's number. Out of `KVM_IRQ_LINE_STATUS`: to how many vCPUs it went.
    pub irq: u32,
    /// 1 if the line is active.
    pub level: u32,
}
const _: () = assert!(size_of::<IrqLevel>() == 8 && offset_of!(IrqLevel, level) == 4);

/// `KVM_IRQFD`: an event file that raises an interrupt.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_irqfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Irqfd {
    /// The event file.
    pub fd: u32,
    /// The interrupt's number.
    pub gsi: u32,
    /// [`IRQFD_FLAG_DEASSIGN`] and [`IRQFD_FLAG_RESAMPLE`].
    pub flags: u32,
    /// The event file that is signalled when the interrupt is acknowledged.
    pub resamplefd: u32,
    /// Padding.
    pub pad: [u8; 16],
}
const _: () = assert!(size_of::<Irqfd>() == 32 && offset_of!(Irqfd, flags) == 8);

/// `KVM_IRQFD_FLAG_DEASSIGN`.
pub const IRQFD_FLAG_DEASSIGN: u32 = 1;
/// `KVM_IRQFD_FLAG_RESAMPLE`.
pub const IRQFD_FLAG_RESAMPLE: u32 = 2;

/// `KVM_IOEVENTFD`: an event file that a write of the guest signals.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_ioeventfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ioeventfd {
    /// The value to wait for, with [`IOEVENTFD_FLAG_DATAMATCH`].
    pub datamatch: u64,
    /// The address: guest physical address or port.
    pub addr: u64,
    /// Bytes of the write: 1, 2, 4, 8, or 0 for any.
    pub len: u32,
    /// The event file.
    pub fd: i32,
    /// `KVM_IOEVENTFD_FLAG_*`.
    pub flags: u32,
    /// Padding.
    pub pad: [u8; 36],
}
const _: () = assert!(size_of::<Ioeventfd>() == 64 && offset_of!(Ioeventfd, flags) == 24);

/// `KVM_IOEVENTFD_FLAG_DATAMATCH`.
pub const IOEVENTFD_FLAG_DATAMATCH: u32 = 1;
/// `KVM_IOEVENTFD_FLAG_PIO`: the address is a port.
pub const IOEVENTFD_FLAG_PIO: u32 = 2;
/// `KVM_IOEVENTFD_FLAG_DEASSIGN`.
pub const IOEVENTFD_FLAG_DEASSIGN: u32 = 4;

/// `KVM_SIGNAL_MSI`: a message-signalled interrupt.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_msi`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Msi {
    /// Bits 31:0 of the message's address.
    pub address_lo: u32,
    /// Bits 63:32 of the message's address.
    pub address_hi: u32,
    /// The message.
    pub data: u32,
    /// `KVM_MSI_*`; x86 knows none.
    pub flags: u32,
    /// The device's id, for arm64.
    pub devid: u32,
    /// Padding.
    pub pad: [u8; 12],
}
const _: () = assert!(size_of::<Msi>() == 32 && offset_of!(Msi, flags) == 12);

/// Before the entries of `KVM_SET_GSI_ROUTING`.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_irq_routing` up to its entries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IrqRouting {
    /// How many entries follow, at most 4096.
    pub nr: u32,
    /// No flag exists: must be 0.
    pub flags: u32,
}
const _: () = assert!(size_of::<IrqRouting>() == 8 && offset_of!(IrqRouting, flags) == 4);

/// One route.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_irq_routing_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IrqRoutingEntry {
    /// The interrupt's number, below 4096.
    pub gsi: u32,
    /// `KVM_IRQ_ROUTING_*`: 1 for a pin, 2 for a message, 4 for Hyper-V, 5 for Xen.
    pub entry_type: u32,
    /// `KVM_MSI_VALID_DEVID`, for messages.
    pub flags: u32,
    /// Padding.
    pub pad: u32,
    /// The union: for a pin the controller's number and the pin's, for a message address and data.
    pub to: [u32; 8],
}
const _: () = assert!(size_of::<IrqRoutingEntry>() == 48 && offset_of!(IrqRoutingEntry, to) == 16);

/// `KVM_IRQ_ROUTING_IRQCHIP`.
pub const IRQ_ROUTING_IRQCHIP: u32 = 1;
/// `KVM_IRQ_ROUTING_MSI`.
pub const IRQ_ROUTING_MSI: u32 = 2;

/// `KVM_REGISTER_COALESCED_MMIO`, `KVM_UNREGISTER_COALESCED_MMIO`: writes that gather in a ring.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_coalesced_mmio_zone`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CoalescedMmioZone {
    /// First byte: guest physical address or port.
    pub addr: u64,
    /// Bytes.
    pub size: u32,
    /// 1 for ports, else 0.
    pub pio: u32,
}
const _: () = assert!(size_of::<CoalescedMmioZone>() == 16 && offset_of!(CoalescedMmioZone, pio) == 12);

/// `KVM_SET_CLOCK`, `KVM_GET_CLOCK`: the guest's clock.
///
/// Layout: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`, `struct kvm_clock_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ClockData {
    /// The clock in nanoseconds.
    pub clock: u64,
    /// [`CLOCK_VALID_FLAGS`].
    pub flags: u32,
    /// Padding.
    pub pad0: u32,
    /// The host's time in nanoseconds at that moment.
    pub realtime: u64,
    /// The host's time stamp counter at that moment.
    pub host_tsc: u64,
    /// Padding.
    pub pad: [u32; 4],
}
const _: () = assert!(size_of::<ClockData>() == 48 && offset_of!(ClockData, realtime) == 16);

/// `KVM_CLOCK_TSC_STABLE` (2), `KVM_CLOCK_REALTIME` (4) and `KVM_CLOCK_HOST_TSC` (8). The last two came with Linux 5.16.
pub const CLOCK_VALID_FLAGS: u32 = 2 | 4 | 8;

/// `KVM_CREATE_DEVICE`: a device in the kernel.
///
/// Layout: Linux v7.2 `include/uapi/linux/kvm.h`, `struct kvm_create_device`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CreateDevice {
    /// `KVM_DEV_TYPE_*`.
    pub device_type: u32,
    /// Out: the device's descriptor.
    pub fd: u32,
    /// [`CREATE_DEVICE_TEST`].
    pub flags: u32,
}
const _: () = assert!(size_of::<CreateDevice>() == 12 && offset_of!(CreateDevice, fd) == 4);

/// `KVM_CREATE_DEVICE_TEST`: only ask whether the type exists.
pub const CREATE_DEVICE_TEST: u32 = 1;
/// `KVM_DEV_TYPE_VFIO`.
pub const DEV_TYPE_VFIO: u32 = 4;
