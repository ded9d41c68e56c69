//! Encrypted memory regions, and contexts that two VMs share or hand over.

use super::{Sev, pin};
use crate::vm::Vm;
use exeunt_abi::Errno;

/// Regions that a VM can register. The kernel's limit is the memory that a process may lock.
const REGIONS_MAX: usize = 1 << 16;

impl Vm {
    /// `KVM_MEMORY_ENCRYPT_REG_REGION`: pins memory of the process.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_mem_enc_register_region`.
    ///
    /// # Errors
    ///
    /// `ENOTTY` on a VM that is no SEV guest, `EINVAL` on a mirror, for no bytes or a range that wraps, `ENOMEM` where
    /// nothing is mapped for writing or the process may not lock as much.
    pub fn register_enc_region(&self, uaddr: u64, bytes: u64) -> Result<(), Errno> {
        let mut state = self.lock();
        state.sev.check_guest()?;
        if state.sev.is_mirror {
            return Err(Errno::EINVAL);
        }
        if state.sev.regions.len() >= REGIONS_MAX {
            return Err(Errno::ENOMEM);
        }
        pin::check_writable(state.memory.user().as_ref(), uaddr, bytes)?;
        state.sev.regions.push((uaddr, bytes));
        Ok(())
    }

    /// `KVM_MEMORY_ENCRYPT_UNREG_REGION`: the last one that was registered with exactly these numbers.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_mem_enc_unregister_region`.
    ///
    /// # Errors
    ///
    /// `EINVAL` on a mirror, `ENOTTY` on a VM that is no SEV guest, `EINVAL` for a region that is not registered.
    pub fn unregister_enc_region(&self, uaddr: u64, bytes: u64) -> Result<(), Errno> {
        let sev = &mut self.lock().sev;
        if sev.is_mirror {
            return Err(Errno::EINVAL);
        }
        sev.check_guest()?;
        let at = sev.regions.iter().position(|region| *region == (uaddr, bytes)).ok_or(Errno::EINVAL)?;
        sev.regions.remove(at);
        Ok(())
    }

    /// `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`: this VM becomes a mirror of another, with the same key.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_vm_copy_enc_context_from`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if both are the same, this VM is a guest already or has vCPUs, or the other is no guest or is a mirror.
    pub fn copy_enc_context_from(&self, source: &Self) -> Result<(), Errno> {
        if self.is_same(source) {
            return Err(Errno::EINVAL);
        }
        let owner = {
            let other = source.lock();
            if !other.sev.active || other.sev.is_mirror {
                return Err(Errno::EINVAL);
            }
            (other.sev.host.clone(), other.sev.is_es, other.sev.file, other.sev.number(), other.sev.policy)
        };
        let mut state = self.lock();
        if state.sev.active || state.vcpus > 0 {
            return Err(Errno::EINVAL);
        }
        let sev = &mut state.sev;
        (sev.host, sev.is_es, sev.file, sev.mirrored, sev.policy) = owner;
        (sev.active, sev.need_init, sev.is_mirror) = (true, false, true);
        // The owner's context outlives its mirrors.
        sev.owner = Some(source.clone());
        state.initialised = true;
        Ok(())
    }

    /// `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`: the guest of another VM moves here, and that is none any more.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_vm_move_enc_context_from` and `sev_check_source_vcpus`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if both are the same or of different types, this VM is a guest already, the other is none, or the vCPUs of
    /// an SEV-ES guest are not as many or not yet encrypted.
    pub fn move_enc_context_from(&self, source: &Self) -> Result<(), Errno> {
        if self.is_same(source) {
            return Err(Errno::EINVAL);
        }
        // The two locks are never held together, so no order of them can be wrong.
        let (vm_type, vcpus) = {
            let state = self.lock();
            if state.sev.active {
                return Err(Errno::EINVAL);
            }
            (state.vm_type, state.sev.vcpus.len())
        };
        let (moved, launched, version) = {
            let mut other = source.lock();
            let protected = other.sev.vcpus.values().all(|vcpu| vcpu.protected);
            let fits = !other.sev.is_es || (other.sev.vcpus.len() == vcpus && protected);
            if other.vm_type != vm_type || !other.sev.active || !fits {
                return Err(Errno::EINVAL);
            }
            let mut left = Sev::new(vm_type);
            left.vcpus.clone_from(&other.sev.vcpus);
            left.host = other.sev.host.clone();
            (std::mem::replace(&mut other.sev, left), other.launched, other.ghcb_version)
        };
        let mut state = self.lock();
        state.memory.asid =
            moved.asid.as_ref().map_or(0, |asid| u16::try_from(asid.number).unwrap_or(u16::MAX));
        (state.sev, state.launched, state.ghcb_version, state.initialised) = (moved, launched, version, true);
        Ok(())
    }
}
