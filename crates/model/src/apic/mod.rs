//! The local APIC in the kernel, as far as confidential guests and the vCPUs that they start need it: INIT and startup
//! interrupts, interrupts that wake a processor up, and the registers of x2APIC mode. There is no timer.

mod deliver;
mod registers;
mod startup;

pub(crate) use deliver::Ipi;
pub(crate) use registers::ApicRegisters;

use crate::platform::Irqchip;
use crate::state::VmState;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno};

/// `KVM_MAX_IRQ_ROUTES`: the most pins that an I/O APIC in userspace can have.
const MAX_RESERVED_PINS: u64 = 4096;

/// What others have sent to a processor that has not looked at it yet. It is a part of [`crate::vcpu::peer::Waiting`].
#[expect(clippy::struct_excessive_bools, reason = "requests of KVM, each for itself")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    /// INIT. It takes back a startup interrupt that came before it.
    pub(crate) init: bool,
    /// A startup interrupt with its vector; the last one counts.
    pub(crate) sipi: Option<u8>,
    /// Interrupts, a bit for each vector.
    pub(crate) interrupts: [u64; 4],
    pub(crate) nmis: u32,
    pub(crate) smi: bool,
    /// `KVM_HC_KICK_CPU`.
    pub(crate) unhalted: bool,
    /// `KVM_REQ_UPDATE_PROTECTED_GUEST_STATE`.
    pub(crate) update_vmsa: bool,
}

impl Vm {
    /// `KVM_CREATE_IRQCHIP`. The interrupt controllers of the model have no pins.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vm_ioctl`.
    ///
    /// # Errors
    ///
    /// `EEXIST` the second time and after a split one; `ENOTTY` for a TD; `EINVAL` after the first vCPU and outside of x86.
    pub fn create_irqchip(&self) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.kernel.arch != Arch::X86 {
            return Err(Errno::EINVAL);
        }
        if state.platform.irqchip != Irqchip::None {
            return Err(Errno::EEXIST);
        }
        // KVM cannot see the end of an interrupt of a TD, which its I/O APIC would have to.
        if state.vm_type == VmType::Tdx {
            return Err(Errno::ENOTTY);
        }
        if state.vcpus > 0 {
            return Err(Errno::EINVAL);
        }
        state.platform.irqchip = Irqchip::Kernel;
        Ok(())
    }

    /// `KVM_CAP_SPLIT_IRQCHIP`: the local APICs are in the kernel, the rest is not. `pins` are those of the I/O APIC.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vm_ioctl_enable_cap`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for more than 4096 pins and outside of x86; `EEXIST` the second time, after the other kind, and after
    /// the first vCPU.
    pub fn split_irqchip(&self, pins: u64) -> Result<(), Errno> {
        self.lock().split_irqchip(pins)
    }
}

impl VmState {
    /// `KVM_CAP_SPLIT_IRQCHIP`, as [`Vm::split_irqchip`].
    pub(crate) fn split_irqchip(&mut self, pins: u64) -> Result<(), Errno> {
        if pins > MAX_RESERVED_PINS || self.kernel.arch != Arch::X86 {
            return Err(Errno::EINVAL);
        }
        if self.platform.irqchip != Irqchip::None || self.vcpus > 0 {
            return Err(Errno::EEXIST);
        }
        self.platform.irqchip = Irqchip::Split;
        self.platform.reserved_pins = pins;
        Ok(())
    }
}

impl Vcpu {
    /// `lapic_in_kernel`.
    pub(crate) const fn has_apic(&self) -> bool {
        self.events.apic.in_kernel
    }

    /// The processor that the others are started by.
    pub(crate) const fn is_bsp(&self) -> bool {
        self.registers.is_bsp
    }
}
