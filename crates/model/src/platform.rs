//! The parts of a VM's board that KVM keeps: which interrupt controllers are in the kernel.

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
}

/// What a VM of x86 is told before its vCPUs are made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Platform {
    pub(crate) irqchip: Irqchip,
    /// Pins of an I/O APIC in userspace that routes can have.
    pub(crate) reserved_pins: u64,
}
