//! The ioctls that read and write registers of a vCPU, and their gate: once a guest's registers are encrypted, KVM has
//! only stale copies of them.

use super::call::Call;
use crate::vcpu::Vcpu;
use crate::vcpu::xstate::{HOST_XCR0, xcr0_is_valid};
use exeunt_abi::Errno;
use exeunt_abi::kvm::debug::GuestDebug;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::regs::{DebugRegs, Fpu, Regs, Sregs, Sregs2, SregsHead, XSAVE_BYTES, Xcr, Xcrs};
use zerocopy::FromZeros;

/// `KVM_GUESTDBG_INJECT_DB` and `KVM_GUESTDBG_INJECT_BP`.
const GUESTDBG_INJECT: u32 = 0xc_0000;
/// `KVM_MAX_XCRS`.
const MAX_XCRS: u32 = 16;
/// Where the header of an XSAVE area is: `XSTATE_BV`, `XCOMP_BV` and 48 reserved bytes.
const XSAVE_HEADER: usize = 512;
/// Bits of MXCSR that a processor has.
const MXCSR_MASK: u32 = 0xffff;

impl Call<'_> {
    /// The ioctls of registers; `None` is another ioctl.
    pub(super) fn on_registers(&self, vcpu: &mut Vcpu) -> Option<Result<u32, Errno>> {
        Some(match self.request {
            nr::KVM_GET_REGS => self.give(vcpu, |vcpu| Ok(vcpu.general_registers())),
            nr::KVM_SET_REGS => self.take(vcpu, |vcpu, regs: &Regs| {
                vcpu.set_general_registers(regs);
                Ok(())
            }),
            nr::KVM_GET_SREGS => self.give(vcpu, |vcpu| Ok(vcpu.readable_sregs())),
            nr::KVM_SET_SREGS => self.take(vcpu, |vcpu, sregs: &Sregs| vcpu.set_sregs(sregs)),
            nr::KVM_GET_SREGS2 => self.give(vcpu, |vcpu| Ok(vcpu.readable_sregs2())),
            // The gate is before the copy here.
            nr::KVM_SET_SREGS2 => vcpu
                .check_open_state()
                .and_then(|()| self.take(vcpu, |vcpu, sregs: &Sregs2| vcpu.set_sregs2(sregs))),
            nr::KVM_GET_FPU => {
                self.give(vcpu, |vcpu| Ok(if vcpu.is_stale() { Fpu::new_zeroed() } else { vcpu.fpu() }))
            }
            nr::KVM_SET_FPU => self.take(vcpu, |vcpu, fpu: &Fpu| {
                vcpu.set_fpu(fpu);
                Ok(())
            }),
            nr::KVM_GET_XSAVE => self.give(vcpu, |vcpu| Ok(vcpu.readable_xsave())),
            nr::KVM_GET_XSAVE2 if self.device.kernel.dialect.has_xsave2() => {
                self.give(vcpu, |vcpu| Ok(vcpu.readable_xsave()))
            }
            nr::KVM_SET_XSAVE => self.take(vcpu, |vcpu, area: &[u8; XSAVE_BYTES]| vcpu.set_xsave(area)),
            nr::KVM_GET_XCRS => self.give(vcpu, |vcpu| Ok(vcpu.xcrs())),
            nr::KVM_SET_XCRS => self.take(vcpu, |vcpu, xcrs: &Xcrs| vcpu.set_xcrs(xcrs)),
            nr::KVM_GET_DEBUGREGS => self.give(vcpu, |vcpu| Ok(vcpu.debug_registers())),
            nr::KVM_SET_DEBUGREGS => {
                self.take(vcpu, |vcpu, debug: &DebugRegs| vcpu.set_debug_registers(debug))
            }
            nr::KVM_SET_GUEST_DEBUG => {
                self.take(vcpu, |vcpu, debug: &GuestDebug| vcpu.set_guest_debug(debug))
            }
            _ => return None,
        })
    }

    /// A read: the gate, then the registers, then the copy.
    fn give<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        vcpu: &mut Vcpu,
        read: impl FnOnce(&mut Vcpu) -> Result<T, Errno>,
    ) -> Result<u32, Errno> {
        vcpu.check_open_state()?;
        let value = read(vcpu)?;
        self.put(&value).map(|()| 0)
    }

    /// A write: the copy, then the gate, then the registers' own checks.
    fn take<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        vcpu: &mut Vcpu,
        write: impl FnOnce(&mut Vcpu, &T) -> Result<(), Errno>,
    ) -> Result<u32, Errno> {
        let value: T = self.get()?;
        vcpu.check_open_state()?;
        write(vcpu, &value)?;
        vcpu.publish_registers();
        Ok(0)
    }
}

impl Vcpu {
    /// The gate: `has_protected_state` and `guest_state_protected`. The guests of `KVM_SEV_ES_INIT` are VMs of the
    /// default type, of which KVM gives out what it has.
    pub(crate) fn check_open_state(&mut self) -> Result<(), Errno> {
        let is_shut = self.vm_type.has_protected_state() && self.state_is_protected();
        if is_shut { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// The registers of a guest of `KVM_SEV_ES_INIT` are encrypted: a write has no effect, and what cannot be read is 0.
    pub(crate) fn is_stale(&mut self) -> bool {
        !self.vm_type.has_protected_state() && self.state_is_protected()
    }

    pub(crate) fn readable_xsave(&mut self) -> [u8; XSAVE_BYTES] {
        if self.is_stale() { [0; XSAVE_BYTES] } else { *self.registers.xsave }
    }

    /// Of encrypted registers KVM knows those whose writes it intercepts.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/regs.c`, `__get_sregs_common`.
    pub(crate) fn readable_sregs(&mut self) -> Sregs {
        let all = self.sregs();
        if !self.is_stale() {
            return all;
        }
        let SregsHead { cr0, cr4, cr8, efer, apic_base, .. } = all.head;
        Sregs {
            head: SregsHead { cr0, cr4, cr8, efer, apic_base, ..SregsHead::default() },
            ..Sregs::default()
        }
    }

    fn readable_sregs2(&mut self) -> Sregs2 {
        if self.is_stale() {
            return Sregs2 { head: self.readable_sregs().head, ..Sregs2::default() };
        }
        self.sregs2()
    }

    /// The part of the XSAVE area that x87 and SSE share.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_get_fpu`.
    fn fpu(&self) -> Fpu {
        let area = &*self.registers.xsave;
        let mut fpu = Fpu::new_zeroed();
        fpu.fcw = u16::from_le_bytes(bytes_at(area, 0));
        fpu.fsw = u16::from_le_bytes(bytes_at(area, 2));
        [fpu.ftwx] = bytes_at(area, 4);
        fpu.last_opcode = u16::from_le_bytes(bytes_at(area, 6));
        fpu.last_ip = u64::from_le_bytes(bytes_at(area, 8));
        fpu.last_dp = u64::from_le_bytes(bytes_at(area, 16));
        for (at, register) in (32..).step_by(16).zip(&mut fpu.fpr) {
            *register = bytes_at(area, at);
        }
        for (at, register) in (160..).step_by(16).zip(&mut fpu.xmm) {
            *register = bytes_at(area, at);
        }
        fpu
    }

    /// MXCSR is left alone.
    fn set_fpu(&mut self, fpu: &Fpu) {
        if self.is_stale() {
            return;
        }
        let area = &mut *self.registers.xsave;
        put_bytes(area, 0, &fpu.fcw.to_le_bytes());
        put_bytes(area, 2, &fpu.fsw.to_le_bytes());
        // The tag word has a reserved byte behind it.
        put_bytes(area, 4, &u16::from(fpu.ftwx).to_le_bytes());
        put_bytes(area, 6, &fpu.last_opcode.to_le_bytes());
        put_bytes(area, 8, &fpu.last_ip.to_le_bytes());
        put_bytes(area, 16, &fpu.last_dp.to_le_bytes());
        for (at, register) in (32..).step_by(16).zip(&fpu.fpr) {
            put_bytes(area, at, register);
        }
        for (at, register) in (160..).step_by(16).zip(&fpu.xmm) {
            put_bytes(area, at, register);
        }
    }

    /// Source: Linux v7.2 `arch/x86/kernel/fpu/core.c`, `fpu_copy_uabi_to_guest_fpstate`, and `xstate.c`,
    /// `validate_user_xstate_header`.
    pub(crate) fn set_xsave(&mut self, area: &[u8; XSAVE_BYTES]) -> Result<(), Errno> {
        if self.is_stale() {
            return Ok(());
        }
        let features = u64::from_le_bytes(bytes_at(area, XSAVE_HEADER));
        let reserved: [u8; 56] = bytes_at(area, XSAVE_HEADER.saturating_add(8));
        let mxcsr = u32::from_le_bytes(bytes_at(area, 24));
        let has_sse_or_avx = features & 6 != 0;
        if features & !HOST_XCR0 != 0
            || reserved.iter().any(|byte| *byte != 0)
            || (has_sse_or_avx && mxcsr & !MXCSR_MASK != 0)
        {
            return Err(Errno::EINVAL);
        }
        self.registers.xsave.copy_from_slice(area);
        Ok(())
    }

    pub(crate) fn xcrs(&self) -> Xcrs {
        let mut xcrs = Xcrs { nr_xcrs: 1, ..Xcrs::default() };
        if let Some(first) = xcrs.xcrs.first_mut() {
            *first = Xcr { xcr: 0, reserved: 0, value: self.xcr0 };
        }
        xcrs
    }

    /// Only the first XCR0 of the list is looked at.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_xcrs` and `__kvm_set_xcr`.
    pub(crate) fn set_xcrs(&mut self, xcrs: &Xcrs) -> Result<(), Errno> {
        if xcrs.nr_xcrs > MAX_XCRS || xcrs.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let count = usize::try_from(xcrs.nr_xcrs).unwrap_or(usize::MAX);
        let Some(given) = xcrs.xcrs.iter().take(count).find(|xcr| xcr.xcr == 0) else { return Ok(()) };
        let [low, high] = [0, 3].map(|register| u64::from(self.cpuid.register(0xd, 0, register)));
        if !xcr0_is_valid(given.value, high << 32 | low) {
            return Err(Errno::EINVAL);
        }
        self.xcr0 = given.value;
        Ok(())
    }

    pub(crate) fn debug_registers(&self) -> DebugRegs {
        DebugRegs { dr6: self.events.dr6, ..self.registers.debug }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_vcpu_ioctl_x86_set_debugregs`.
    pub(crate) fn set_debug_registers(&mut self, debug: &DebugRegs) -> Result<(), Errno> {
        if debug.flags != 0 || debug.dr6 >> 32 != 0 || debug.dr7 >> 32 != 0 {
            return Err(Errno::EINVAL);
        }
        self.events.dr6 = debug.dr6;
        self.registers.debug = DebugRegs { reserved: [0; 9], ..*debug };
        Ok(())
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_set_guest_debug`.
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Errno> {
        if self.state_is_protected() {
            return Err(Errno::EINVAL);
        }
        let inject = debug.control & GUESTDBG_INJECT;
        if inject != 0 {
            let events = &mut self.events;
            if events.exception.pending || events.exception.injected || events.exiting.pending {
                return Err(Errno::EBUSY);
            }
            // `#DB` if asked for, else `#BP`.
            let nr = if inject & 0x4_0000 != 0 { 1 } else { 3 };
            events.exception = crate::events::Exception { pending: true, nr, ..events.exception };
        }
        // KVM_GUESTDBG_ENABLE.
        self.registers.guest_debug = if debug.control & 1 == 0 { 0 } else { debug.control };
        Ok(())
    }
}

/// Bytes at an offset; outside of the area they are 0.
fn bytes_at<const N: usize>(area: &[u8], at: usize) -> [u8; N] {
    area.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn put_bytes(area: &mut [u8], at: usize, bytes: &[u8]) {
    area.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}
