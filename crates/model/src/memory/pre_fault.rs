//! `KVM_PRE_FAULT_MEMORY`.

use crate::faults::{Fault, Point};
use crate::memory::fault::Miss;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use exeunt_abi::kvm::memory::PreFaultMemory;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;

/// Pages or runs that one call maps. Then it ends as if a signal had come, so that no call lasts for ever.
const MAX_STEPS: u32 = 1 << 16;

impl Vm {
    /// What `KVM_PRE_FAULT_MEMORY` does on whichever vCPU, for a VMM that asks through the port. It ends at the first page
    /// that cannot be had.
    pub(crate) fn prefault(&self, range: PageRange) -> Result<(), Errno> {
        let kernel = self.lock().memory.kernel;
        if !kernel.dialect.has_pre_fault_memory() || kernel.arch != Arch::X86 {
            return Err(Errno::EOPNOTSUPP);
        }
        let (mut gfn, end) = (range.gfn().0, range.end().0);
        while gfn < end {
            match self.faults.at(Point::PreFault) {
                Some(Fault::Signal) => return Err(Errno::EINTR),
                Some(Fault::Fails(errno)) => return Err(errno),
                _ => {}
            }
            let mapped = self.lock().memory.faultin_run(Gfn(gfn), Gfn(end));
            gfn = match mapped {
                Ok(pages) => gfn.saturating_add(pages.max(1)),
                Err(Miss::Host { errno, .. } | Miss::Failed(errno)) => return Err(errno),
                Err(Miss::Emulate { .. }) => return Err(Errno::ENOENT),
                // A fault of the guest's own is none of the mapping.
                Err(Miss::Guest(_) | Miss::Npf { .. } | Miss::Unaccepted { .. }) => gfn.saturating_add(1),
            };
        }
        Ok(())
    }
}

impl Vcpu {
    /// `KVM_PRE_FAULT_MEMORY`: maps a range as reads of the guest would, privately where the attributes say so. `range` is
    /// advanced by what was done. KVM does not look at the padding.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vcpu_pre_fault_memory`, and `arch/x86/kvm/mmu/mmu.c`,
    /// `kvm_arch_vcpu_pre_fault_memory`.
    ///
    /// # Errors
    ///
    /// Only if not one page was mapped: `ENOTTY` where the kernel lacks it, `EINVAL` for flags or a range that is empty,
    /// wraps or is not aligned, `EOPNOTSUPP` before the launch is finished, `ENOENT` without a slot, `EINTR` and
    /// `EAGAIN` by the fault plan, and what a fault of the guest would fail `KVM_RUN` with. The run page then says where,
    /// as it does for `KVM_RUN`.
    pub fn pre_fault_memory(&mut self, range: &mut PreFaultMemory) -> Result<(), Errno> {
        if !self.kernel.dialect.has_pre_fault_memory() || self.kernel.arch != Arch::X86 {
            return Err(Errno::ENOTTY);
        }
        let end = range.gpa.checked_add(range.size).filter(|end| *end > range.gpa);
        let is_aligned = Gpa(range.gpa).is_page_aligned() && range.size & (PAGE_SIZE - 1) == 0;
        let (Some(end), 0, true) = (end, range.flags, is_aligned) else {
            return Err(Errno::EINVAL);
        };
        let full = range.size;
        let mut result = Ok(());
        let mut steps = MAX_STEPS;
        while range.size > 0 {
            steps = steps.saturating_sub(1);
            let mapped = if steps == 0 { Err(Errno::EINTR) } else { self.pre_fault_run(range.gpa, end) };
            match mapped {
                Ok(bytes) => {
                    range.gpa = range.gpa.saturating_add(bytes);
                    range.size = range.size.saturating_sub(bytes);
                }
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
        }
        if range.size < full { Ok(()) } else { result }
    }

    /// Maps at least one page from an address on. Returns how many bytes.
    fn pre_fault_run(&mut self, gpa: u64, end: u64) -> Result<u64, Errno> {
        let vm = self.vm.clone();
        match vm.faults.at(Point::PreFault) {
            Some(Fault::Signal) => return Err(Errno::EINTR),
            Some(Fault::Fails(errno)) => return Err(errno),
            _ => {}
        }
        let mut state = vm.lock();
        let needs_launch = state.vm_type.has_private_memory() && state.vm_type != VmType::SwProtected;
        if needs_launch && !state.launched {
            return Err(Errno::EOPNOTSUPP);
        }
        let mapped = state.memory.faultin_run(Gpa(gpa).gfn(), Gpa(end).gfn());
        drop(state);
        match mapped {
            Ok(pages) => Ok(pages.saturating_mul(PAGE_SIZE)),
            Err(Miss::Host { gfn, private, errno }) => {
                self.memory_fault(gfn, private, errno)?;
                Err(errno)
            }
            Err(Miss::Emulate { .. }) => Err(Errno::ENOENT),
            Err(Miss::Failed(errno)) => Err(errno),
            // A fault of the guest's own is none of the mapping.
            Err(Miss::Guest(_) | Miss::Npf { .. } | Miss::Unaccepted { .. }) => Ok(PAGE_SIZE),
        }
    }
}
