//! The parts of a VM's board that KVM keeps and that never exit: which interrupt controllers are in the kernel, the
//! timer, the clock, the tables of routes. The model stores them and checks what KVM checks.

/// Which interrupt controllers are in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Irqchip {
    /// None: the VMM has them all.
    #[default]
    None,
    /// The local APICs only.
    Split,
    /// The local APICs, both PICs and the I/O APIC.
    Kernel,
}

impl Irqchip {
    /// `irqchip_in_kernel`, which is `lapic_in_kernel` of each vCPU made after it.
    pub(crate) const fn has_lapic(self) -> bool {
        !matches!(self, Self::None)
    }

    /// `pic_in_kernel`.
    pub(crate) const fn has_pic(self) -> bool {
        matches!(self, Self::Kernel)
    }
}

/// What a VM of x86 is told before its vCPUs are made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Platform {
    pub(crate) irqchip: Irqchip,
    /// Pins of an I/O APIC in userspace that routes can have.
    pub(crate) reserved_pins: u64,
    /// `KVM_CAP_MAX_VCPU_ID`, 0 until it or a vCPU sets it.
    pub(crate) max_vcpu_ids: u64,
    /// The vCPU that starts.
    pub(crate) bsp_vcpu_id: u64,
    /// Old faults that are switched off.
    pub(crate) disabled_quirks: u64,
    /// Nanoseconds of a tick of the APIC's bus, 0 for the default.
    pub(crate) apic_bus_cycle_ns: u64,
}
