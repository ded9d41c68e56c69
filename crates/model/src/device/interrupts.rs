//! The ioctls of a vCPU that have to do with interrupts, machine checks, time and its local APIC.

use super::board::{MAX_TSC_KHZ, TSC_KHZ};
use super::call::Call;
use crate::events::{Interrupt, MachineCheck, request};
use crate::vcpu::Vcpu;
use exeunt_abi::kvm::debug::X86Mce;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::regs::LAPIC_BYTES;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};

/// `KVM_NR_INTERRUPTS`.
const INTERRUPTS: u32 = 256;
/// `MCG_CTL_P` and `MCG_SER_P`, which KVM supports on every host; `MCG_CMCI_P` and `MCG_LMCE_P`, on Intel too.
const MCE_CAP: u64 = 1 << 8 | 1 << 24;
const MCE_CAP_INTEL: u64 = 1 << 10 | 1 << 27;

/// What the ioctls of this file keep of a vCPU.
#[derive(Clone, Debug)]
pub(crate) struct VcpuBoard {
    pub(crate) pic_in_kernel: bool,
    /// `guest_state_protected`, once it was seen.
    pub(crate) state_protected: bool,
    pub(crate) lapic: Box<[u8; LAPIC_BYTES]>,
    /// An interrupt from a PIC in userspace.
    external_vector: Option<u32>,
    tsc_khz: u32,
    pub(super) tsc_offset: u64,
}

impl VcpuBoard {
    pub(crate) fn new(id: u64, is_bsp: bool, pic_in_kernel: bool) -> Self {
        let mut lapic = Box::new([0; LAPIC_BYTES]);
        let id = u32::try_from(id & 0xff).unwrap_or(0) << 24;
        // Id, version with six local vectors, destination format, spurious vector; the local vectors are masked.
        let registers = [(0x20, id), (0x30, 0x5_0014), (0xe0, u32::MAX), (0xf0, 0xff)];
        // The first processor takes the PIC's interrupts through its pin LINT0.
        let vector = |at| if is_bsp && at == 0x350 { 0x700 } else { 0x1_0000 };
        let masked = (0x320..0x380).step_by(16).map(|at| (at, vector(at)));
        for (at, value) in registers.into_iter().chain(masked) {
            lapic.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        Self {
            pic_in_kernel,
            state_protected: false,
            lapic,
            external_vector: None,
            tsc_khz: TSC_KHZ,
            tsc_offset: 0,
        }
    }
}

impl Call<'_> {
    /// The ioctls of interrupts; `None` is another ioctl.
    pub(super) fn on_interrupts(&self, vcpu: &mut Vcpu) -> Option<Result<u32, Errno>> {
        let has_lapic = vcpu.events.apic.in_kernel;
        Some(match self.request {
            nr::KVM_GET_LAPIC | nr::KVM_SET_LAPIC | nr::KVM_SET_VAPIC_ADDR if !has_lapic => {
                Err(Errno::EINVAL)
            }
            nr::KVM_GET_LAPIC => vcpu.check_open_lapic().and_then(|()| {
                vcpu.take_inbox();
                let Vcpu { apic, board, .. } = vcpu;
                apic.write_page(&mut *board.lapic);
                self.put(&*vcpu.board.lapic).map(|()| 0)
            }),
            nr::KVM_SET_LAPIC => self.get::<[u8; LAPIC_BYTES]>().and_then(|lapic| {
                vcpu.check_open_lapic()?;
                *vcpu.board.lapic = lapic;
                let is_enabled = vcpu.apic.read_page(&lapic);
                vcpu.peer.enable_apic(is_enabled);
                Ok(0)
            }),
            nr::KVM_SET_VAPIC_ADDR => self.set_vapic_addr(vcpu),
            nr::KVM_INTERRUPT => self.get::<u32>().and_then(|irq| vcpu.interrupt(irq)).map(|()| 0),
            nr::KVM_NMI => {
                vcpu.events.nmi.queued = vcpu.events.nmi.queued.saturating_add(1);
                vcpu.events.request(request::NMI);
                Ok(0)
            }
            nr::KVM_SMI if vcpu.events.smm.is_none() => Err(Errno::ENOTTY),
            nr::KVM_SMI => {
                vcpu.events.request(request::SMI);
                Ok(0)
            }
            nr::KVM_TPR_ACCESS_REPORTING => self.tpr_access_reporting(),
            nr::KVM_X86_SETUP_MCE => self.get::<u64>().and_then(|cap| vcpu.setup_mce(cap)).map(|()| 0),
            nr::KVM_X86_SET_MCE => self.set_mce(vcpu),
            // The TDX module has fixed a TD's.
            nr::KVM_SET_TSC_KHZ if vcpu.vm_type == VmType::Tdx => Err(Errno::EINVAL),
            nr::KVM_SET_TSC_KHZ if self.arg_u32() >= MAX_TSC_KHZ => Err(Errno::EINVAL),
            nr::KVM_SET_TSC_KHZ => {
                vcpu.board.tsc_khz = if self.arg_u32() == 0 { TSC_KHZ } else { self.arg_u32() };
                Ok(0)
            }
            nr::KVM_GET_TSC_KHZ => Ok(vcpu.board.tsc_khz),
            nr::KVM_KVMCLOCK_CTRL => vcpu.clock_was_stopped().map(|()| 0),
            nr::KVM_SET_SIGNAL_MASK => self.set_signal_mask(vcpu),
            _ => return None,
        })
    }

    /// `KVM_X86_GET_MCE_CAP_SUPPORTED`.
    pub(super) fn mce_cap_supported(&self) -> Result<u32, Errno> {
        let intel = if self.device.host.is_intel() { MCE_CAP_INTEL } else { 0 };
        self.put(&(MCE_CAP | intel)).map(|()| 0)
    }

    fn set_mce(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let X86Mce { status, addr, misc, mcg_status, bank, .. } = self.get()?;
        vcpu.set_mce(&MachineCheck { status, addr, misc, mcg_status, bank }).map(|()| 0)
    }

    fn set_vapic_addr(&self, vcpu: &Vcpu) -> Result<u32, Errno> {
        let address: u64 = self.get()?;
        let is_memory = vcpu.vm.lock().memory.slot_of(Gpa(address).gfn()).is_some();
        if address == 0 || is_memory { Ok(0) } else { Err(Errno::EINVAL) }
    }

    /// `struct kvm_tpr_access_ctl`: enabled, flags, reserved.
    fn tpr_access_reporting(&self) -> Result<u32, Errno> {
        let control: [u32; 10] = self.get()?;
        let [_, flags, ..] = control;
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        self.put(&control).map(|()| 0)
    }

    /// `KVM_SET_SIGNAL_MASK`.
    fn set_signal_mask(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        if self.arg == 0 {
            vcpu.set_signal_mask(None);
            return Ok(0);
        }
        let bytes: u32 = self.get()?;
        if bytes != 8 {
            return Err(Errno::EINVAL);
        }
        let blocked: u64 = self.get_at(self.arg.wrapping_add(4))?;
        vcpu.set_signal_mask(Some(blocked));
        Ok(0)
    }
}

impl Vcpu {
    /// The local APIC of a TD's vCPU is the TDX module's.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_get_lapic` and `kvm_vcpu_ioctl_set_lapic`.
    fn check_open_lapic(&self) -> Result<(), Errno> {
        if self.vm_type == VmType::Tdx { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// `KVM_INTERRUPT`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_interrupt`.
    fn interrupt(&mut self, irq: u32) -> Result<(), Errno> {
        if irq >= INTERRUPTS {
            return Err(Errno::EINVAL);
        }
        if !self.events.apic.in_kernel {
            let nr = u8::try_from(irq).unwrap_or(u8::MAX);
            self.events.interrupt = Interrupt { injected: true, soft: false, nr };
        } else if self.board.pic_in_kernel {
            return Err(Errno::ENXIO);
        } else if self.board.external_vector.is_some() {
            return Err(Errno::EEXIST);
        } else {
            self.board.external_vector = Some(irq);
        }
        self.events.request(request::EVENT);
        Ok(())
    }

    /// A guest that has no clock of KVM's cannot be told.
    fn clock_was_stopped(&mut self) -> Result<(), Errno> {
        use exeunt_abi::msr_index::{KVM_SYSTEM_TIME, KVM_SYSTEM_TIME_NEW};
        let is_on = [KVM_SYSTEM_TIME, KVM_SYSTEM_TIME_NEW].into_iter().any(|index| {
            let value = self.msr(index).unwrap_or(0);
            value & 1 != 0
        });
        if is_on { Ok(()) } else { Err(Errno::EINVAL) }
    }
}
