//! `KVM_GET_NESTED_STATE` and `KVM_SET_NESTED_STATE`: L2 moves with its vCPU.
//!
//! The bytes are the kernel's: a header of 128 bytes, and a page that holds the control block as the vendor lays it
//! out. The model fills what it knows of a control block and what the checks ask for.

use super::{Active, Intercepts, NestedExit};
use crate::vcpu::Vcpu;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};

/// Bytes of `struct kvm_nested_state` without its data.
const HEADER_BYTES: usize = 128;
/// `KVM_STATE_NESTED_SVM_VMCB_SIZE` and `KVM_STATE_NESTED_VMX_VMCS_SIZE`.
const BLOCK_BYTES: usize = 4096;
/// `KVM_STATE_NESTED_FORMAT_*`.
const FORMAT_VMX: u16 = 0;
const FORMAT_SVM: u16 = 1;
/// `KVM_STATE_NESTED_*`.
const GUEST_MODE: u16 = 1 << 0;
const RUN_PENDING: u16 = 1 << 1;
const EVMCS: u16 = 1 << 2;
const MTF_PENDING: u16 = 1 << 3;
const GIF_SET: u16 = 1 << 8;
/// `KVM_STATE_NESTED_SMM_GUEST_MODE` and `KVM_STATE_NESTED_SMM_VMXON`.
const SMM_GUEST_MODE: u64 = 1 << 0;
const SMM_VMXON: u64 = 1 << 1;
/// `KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE`.
const TIMER_DEADLINE: u64 = 1 << 0;
/// `INVALID_GPA`.
const INVALID_GPA: u64 = u64::MAX;

/// Offsets in the header.
mod header {
    pub(super) const FLAGS: usize = 0;
    pub(super) const FORMAT: usize = 2;
    pub(super) const SIZE: usize = 4;
    /// `hdr.svm.vmcb_pa` and `hdr.vmx.vmxon_pa`.
    pub(super) const FIRST: usize = 8;
    /// `hdr.vmx.vmcs12_pa`.
    pub(super) const VMCS12: usize = 16;
    pub(super) const SMM_FLAGS: usize = 24;
    pub(super) const VMX_FLAGS: usize = 28;
}

/// Offsets in a VMCB: AMD 24593 "APM volume 2", appendix B.
mod vmcb {
    pub(super) const EXCEPTIONS: usize = 0x8;
    pub(super) const INTERCEPTS_3: usize = 0xc;
    pub(super) const INTERCEPTS_4: usize = 0x10;
    pub(super) const ASID: usize = 0x58;
    pub(super) const EFER: usize = 0x4d0;
    pub(super) const CR4: usize = 0x548;
    pub(super) const CR3: usize = 0x550;
    pub(super) const CR0: usize = 0x558;
    pub(super) const RFLAGS: usize = 0x570;
    pub(super) const SHUTDOWN: u64 = 1 << 31;
    pub(super) const VMRUN_AND_VMMCALL: u64 = 3;
    pub(super) const VMRUN: u64 = 1;
    /// A CR3 that cannot be loaded: it has a bit that no address has.
    pub(super) const BAD_CR3: u64 = 1 << 63;
}

/// Offsets in KVM's own VMCS12: Linux v7.2 `arch/x86/kvm/vmx/vmcs12.h`, `vmx_check_vmcs12_offsets`.
mod vmcs12 {
    pub(super) const REVISION: usize = 0;
    pub(super) const EXCEPTION_BITMAP: usize = 752;
    pub(super) const PAGE_FAULT_MASK: usize = 756;
    pub(super) const PAGE_FAULT_MATCH: usize = 760;
    /// Entries of the area of MSRs that are loaded when L2 exits. The model has no such area: one entry is one that
    /// cannot be loaded.
    pub(super) const EXIT_MSR_LOADS: usize = 776;
    /// `VMCS12_REVISION`.
    pub(super) const REVISION_NUMBER: u64 = 0x11e5_7ed0;
}

const CR0_PE_AND_PG: u64 = 1 << 31 | 1;
const CR4_PAE: u64 = 1 << 5;
/// `EFER.SVME`, `LMA` and `LME`.
const L1_EFER: u64 = 1 << 12 | 1 << 10 | 1 << 8;
const EFER_SVME: u64 = 1 << 12;
const RFLAGS_FIXED: u64 = 1 << 1;
const RFLAGS_VM: u64 = 1 << 17;

/// What `KVM_GET_NESTED_STATE` does to the caller's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedStateRead {
    /// Where bytes were written, and which.
    pub writes: Vec<(usize, Vec<u8>)>,
    /// How the ioctl ended: `E2BIG` for a buffer that is too small, with the size that is needed at offset 4.
    pub result: Result<(), Errno>,
}

fn put(bytes: &mut [u8], at: usize, value: u64, width: usize) {
    let from = value.to_le_bytes();
    bytes.iter_mut().skip(at).zip(from.iter().take(width)).for_each(|(to, from)| *to = *from);
}

fn get(bytes: &[u8], at: usize, width: usize) -> u64 {
    let taken = bytes.iter().skip(at).take(width).enumerate();
    taken.fold(0, |value, (index, byte)| {
        value | u64::from(*byte) << u32::try_from(index).unwrap_or(0).saturating_mul(8)
    })
}

impl Vcpu {
    /// `KVM_GET_NESTED_STATE` with a buffer that says it has `bytes`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `svm_get_nested_state`, and `vmx/nested.c`,
    /// `vmx_get_nested_state`.
    #[must_use]
    pub fn nested_state(&self, bytes: u32) -> NestedStateRead {
        let (mut head, block) = if self.is_intel() { self.vmx_state() } else { self.svm_state() };
        let needed = HEADER_BYTES.saturating_add(block.len());
        put(&mut head, header::SIZE, needed as u64, 4);
        let has = usize::try_from(bytes).unwrap_or(0);
        let mut writes = Vec::new();
        // SVM looks at the size of its header only, and writes the block behind a buffer that is too small for it.
        let fits = if self.is_intel() { has >= needed } else { has >= HEADER_BYTES };
        if fits {
            writes.push((0, head));
            if !block.is_empty() {
                writes.push((HEADER_BYTES, block));
            }
        }
        let result = if needed > has { Err(Errno::E2BIG) } else { Ok(()) };
        if result.is_err() {
            let size = u32::try_from(needed).unwrap_or(u32::MAX);
            writes.push((header::SIZE, size.to_le_bytes().to_vec()));
        }
        NestedStateRead { writes, result }
    }

    fn state_flags(&self) -> u16 {
        match self.nested.active {
            Some(Active { run_pending: true, .. }) => GUEST_MODE | RUN_PENDING,
            Some(_) => GUEST_MODE,
            None => 0,
        }
    }

    fn svm_state(&self) -> (Vec<u8>, Vec<u8>) {
        let mut head = vec![0; HEADER_BYTES];
        put(&mut head, header::FLAGS, u64::from(self.state_flags() | GIF_SET), 2);
        put(&mut head, header::FORMAT, u64::from(FORMAT_SVM), 2);
        let Some(Active { control, .. }) = self.nested.active else { return (head, Vec::new()) };
        put(&mut head, header::FIRST, control.0, 8);
        let Intercepts { exceptions, shutdown, host_state_fails, .. } = self.nested.intercepts;
        let mut block = vec![0; BLOCK_BYTES];
        put(&mut block, vmcb::EXCEPTIONS, u64::from(exceptions), 4);
        put(&mut block, vmcb::INTERCEPTS_3, if shutdown { vmcb::SHUTDOWN } else { 0 }, 4);
        put(&mut block, vmcb::INTERCEPTS_4, vmcb::VMRUN_AND_VMMCALL, 4);
        put(&mut block, vmcb::ASID, 1, 4);
        put(&mut block, vmcb::EFER, L1_EFER, 8);
        put(&mut block, vmcb::CR4, CR4_PAE, 8);
        put(&mut block, vmcb::CR3, if host_state_fails { vmcb::BAD_CR3 } else { 0 }, 8);
        put(&mut block, vmcb::CR0, CR0_PE_AND_PG, 8);
        put(&mut block, vmcb::RFLAGS, RFLAGS_FIXED, 8);
        (head, block)
    }

    fn vmx_state(&self) -> (Vec<u8>, Vec<u8>) {
        let mut head = vec![0; HEADER_BYTES];
        let address = |gpa: Option<Gpa>| gpa.map_or(INVALID_GPA, |gpa| gpa.0);
        put(&mut head, header::FLAGS, u64::from(self.state_flags()), 2);
        put(&mut head, header::FORMAT, u64::from(FORMAT_VMX), 2);
        put(&mut head, header::FIRST, address(self.nested.vmxon), 8);
        put(&mut head, header::VMCS12, address(self.nested.current), 8);
        if self.nested.vmxon.is_none() || self.nested.current.is_none() {
            return (head, Vec::new());
        }
        let Intercepts { exceptions, page_fault_mask, page_fault_match, host_state_fails, .. } =
            self.nested.intercepts;
        let mut block = vec![0; BLOCK_BYTES];
        put(&mut block, vmcs12::REVISION, vmcs12::REVISION_NUMBER, 4);
        put(&mut block, vmcs12::EXCEPTION_BITMAP, u64::from(exceptions), 4);
        put(&mut block, vmcs12::PAGE_FAULT_MASK, u64::from(page_fault_mask), 4);
        put(&mut block, vmcs12::PAGE_FAULT_MATCH, u64::from(page_fault_match), 4);
        put(&mut block, vmcs12::EXIT_MSR_LOADS, u64::from(host_state_fails), 4);
        (head, block)
    }

    /// `KVM_SET_NESTED_STATE` of a structure with its data.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl`.
    ///
    /// # Errors
    ///
    /// `EFAULT` for fewer bytes than the structure says it has, `EINVAL` for what the checks of the vendor refuse. On
    /// VMX, L2 and VMX operation may have been left by then.
    pub fn set_nested_state(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() < HEADER_BYTES {
            return Err(Errno::EFAULT);
        }
        let flags = u16::try_from(get(bytes, header::FLAGS, 2)).unwrap_or(u16::MAX);
        if !self.is_plain_x86() || get(bytes, header::SIZE, 4) < HEADER_BYTES as u64 {
            return Err(Errno::EINVAL);
        }
        let is_known = flags & !(RUN_PENDING | GUEST_MODE | EVMCS | MTF_PENDING | GIF_SET) == 0;
        if !is_known || flags & (RUN_PENDING | GUEST_MODE) == RUN_PENDING {
            return Err(Errno::EINVAL);
        }
        let format = if self.is_intel() { FORMAT_VMX } else { FORMAT_SVM };
        if get(bytes, header::FORMAT, 2) != u64::from(format) {
            return Err(Errno::EINVAL);
        }
        if self.is_intel() { self.set_vmx_state(bytes, flags) } else { self.set_svm_state(bytes, flags) }
    }

    /// Source: Linux v7.2 `arch/x86/kvm/svm/nested.c`, `svm_set_nested_state`.
    fn set_svm_state(&mut self, bytes: &[u8], flags: u16) -> Result<(), Errno> {
        if flags & !(GUEST_MODE | RUN_PENDING | GIF_SET) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & GUEST_MODE == 0 {
            self.leave_nested_silently();
            return Ok(());
        }
        let control = self.page_address(get(bytes, header::FIRST, 8))?;
        if self.events.blocks_init() {
            return Err(Errno::EINVAL);
        }
        let block = block(bytes)?;
        let cr0 = get(block, vmcb::CR0, 8);
        let is_valid = get(block, vmcb::INTERCEPTS_4, 4) & vmcb::VMRUN != 0
            && get(block, vmcb::ASID, 4) != 0
            && cr0 & CR0_PE_AND_PG == CR0_PE_AND_PG
            && cr0 >> 32 == 0
            && get(block, vmcb::RFLAGS, 8) & RFLAGS_VM == 0
            && get(block, vmcb::EFER, 8) & EFER_SVME != 0;
        if !is_valid {
            return Err(Errno::EINVAL);
        }
        self.nested.intercepts = Intercepts {
            exceptions: low(get(block, vmcb::EXCEPTIONS, 4)),
            shutdown: get(block, vmcb::INTERCEPTS_3, 4) & vmcb::SHUTDOWN != 0,
            host_state_fails: get(block, vmcb::CR3, 8) & vmcb::BAD_CR3 != 0,
            ..Intercepts::default()
        };
        self.nested.exit = None;
        self.nested.active = Some(Active { control, run_pending: flags & RUN_PENDING != 0 });
        Ok(())
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/nested.c`, `vmx_set_nested_state`.
    fn set_vmx_state(&mut self, bytes: &[u8], flags: u16) -> Result<(), Errno> {
        let [vmxon, vmcs12] = [header::FIRST, header::VMCS12].map(|at| get(bytes, at, 8));
        let smm_flags = get(bytes, header::SMM_FLAGS, 2);
        if vmxon == INVALID_GPA {
            if smm_flags != 0 || vmcs12 != INVALID_GPA || flags & !EVMCS != 0 {
                return Err(Errno::EINVAL);
            }
        } else {
            self.page_address(vmxon)?;
        }
        let in_guest = flags & GUEST_MODE != 0;
        let smm_only =
            if self.events.blocks_init() { flags & (GUEST_MODE | RUN_PENDING) != 0 } else { smm_flags != 0 };
        let is_refused = smm_flags & SMM_GUEST_MODE != 0 && in_guest
            || smm_flags & !(SMM_GUEST_MODE | SMM_VMXON) != 0
            || get(bytes, header::VMX_FLAGS, 4) & !TIMER_DEADLINE != 0
            || smm_only
            || smm_flags & (SMM_GUEST_MODE | SMM_VMXON) == SMM_GUEST_MODE
            // The guests of the model have no enlightened VMCS.
            || flags & EVMCS != 0;
        if is_refused {
            return Err(Errno::EINVAL);
        }
        self.leave_nested_silently();
        (self.nested.vmxon, self.nested.current) = (None, None);
        if vmxon == INVALID_GPA {
            return Ok(());
        }
        self.nested.vmxon = Some(Gpa(vmxon));
        if get(bytes, header::SIZE, 4) < (HEADER_BYTES as u64).saturating_add(BLOCK_BYTES as u64) {
            return if in_guest || vmcs12 != INVALID_GPA { Err(Errno::EINVAL) } else { Ok(()) };
        }
        let control = self.page_address(vmcs12)?;
        if vmcs12 == vmxon {
            return Err(Errno::EINVAL);
        }
        self.nested.current = Some(control);
        let block = block(bytes)?;
        if get(block, vmcs12::REVISION, 4) != vmcs12::REVISION_NUMBER {
            return Err(Errno::EINVAL);
        }
        self.nested.intercepts = Intercepts {
            exceptions: low(get(block, vmcs12::EXCEPTION_BITMAP, 4)),
            shutdown: false,
            page_fault_mask: low(get(block, vmcs12::PAGE_FAULT_MASK, 4)),
            page_fault_match: low(get(block, vmcs12::PAGE_FAULT_MATCH, 4)),
            host_state_fails: get(block, vmcs12::EXIT_MSR_LOADS, 4) != 0,
        };
        if in_guest {
            let run_pending = flags & RUN_PENDING != 0;
            self.nested.active = Some(Active { control, run_pending });
        }
        Ok(())
    }

    /// L1 is back because userspace says so: its program hears of nothing.
    fn leave_nested_silently(&mut self) {
        let exit: Option<NestedExit> = self.nested.exit;
        self.leave_nested();
        self.nested.exit = exit;
    }

    /// `page_address_valid`.
    fn page_address(&self, gpa: u64) -> Result<Gpa, Errno> {
        let is_legal = gpa & self.cpuid.reserved_guest_address_bits() == 0;
        if gpa & (PAGE_SIZE - 1) == 0 && is_legal { Ok(Gpa(gpa)) } else { Err(Errno::EINVAL) }
    }
}

/// The control block behind the header.
fn block(bytes: &[u8]) -> Result<&[u8], Errno> {
    if get(bytes, header::SIZE, 4) < (HEADER_BYTES as u64).saturating_add(BLOCK_BYTES as u64) {
        return Err(Errno::EINVAL);
    }
    let end = HEADER_BYTES.saturating_add(BLOCK_BYTES);
    bytes.get(HEADER_BYTES..end).ok_or(Errno::EFAULT)
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}
