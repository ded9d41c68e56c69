//! `KVM_GET_MSRS`, `KVM_SET_MSRS`, and the lists of registers.

use super::call::Call;
use crate::events::MachineChecks;
use crate::vcpu::Vcpu;
use crate::vcpu::msr_store::MsrStore;
use exeunt_abi::Errno;
use exeunt_abi::kvm::msr::{MsrEntry, MsrList, Msrs};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::msr_index::EFER;
use std::mem::size_of;

/// `MAX_IO_MSRS`.
const MAX_IO_MSRS: u32 = 256;

/// What `KVM_GET_MSR_INDEX_LIST` lists: the registers of the processor, then those that KVM emulates.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `msrs_to_save_base` and `emulated_msrs_all`, as far as an AMD processor without
/// a performance monitor has them. Of these the model lists what it keeps, so that all that is listed can be read.
const TO_SAVE: [u32; 46] = [
    0x174,
    0x175,
    0x176, // SYSENTER
    0xc000_0081,
    0xc000_0083,
    0xc000_0102,
    0xc000_0084,
    0xc000_0082, // STAR, CSTAR, KERNEL_GS_BASE, SFMASK, LSTAR
    0x10,
    0x277,
    0xc001_0117,
    0xc000_0103,
    0x48, // TSC, PAT, VM_HSAVE_PA, TSC_AUX, SPEC_CTRL
    0x1d9,
    0x1db,
    0x1dc,
    0x1dd,
    0x1de, // DEBUGCTL, last branch and interrupt
    0x12,
    0x11,
    0x4b56_4d01,
    0x4b56_4d00, // KVM's clock
    0x4000_0000,
    0x4000_0001,
    0x4000_0020,
    0x4000_0021,
    0x4000_0002,
    0x4000_0003,
    0x4000_0073, // Hyper-V
    0x4b56_4d02,
    0x4b56_4d03,
    0x4b56_4d04,
    0x4b56_4d06,
    0x4b56_4d07,
    0x4b56_4d05, // KVM's notices
    0x3b,
    0x6e0,
    0x10a,
    0x1a0,
    0x17a,
    0x17b,
    0x9e,
    0x34,
    0xce, // TSC_ADJUST to PLATFORM_INFO
    0x8b,
    0xc001_0015, // HWCR
];

/// What `KVM_GET_MSR_FEATURE_INDEX_LIST` lists, and the model's host answers: `DE_CFG` with a serialising `LFENCE`, the
/// microcode's revision, no capabilities.
const FEATURES: [(u32, u64); 3] = [(0xc001_1029, 2), (0x8b, 0x0100_0065), (0x10a, 0)];

/// Registers that a guest with encrypted registers reads and writes without KVM.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `svm_recalc_msr_intercepts`, and `sev.c`, `sev_es_init_vmcb`.
const PASSED_THROUGH: [u32; 13] = [
    0xc000_0081,
    0x174,
    0x175,
    0x176,
    0xc000_0101,
    0xc000_0100,
    0xc000_0102,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0080,
    0x277,
    0x1d9,
];

impl Call<'_> {
    /// `KVM_GET_MSR_INDEX_LIST`, `KVM_GET_MSR_FEATURE_INDEX_LIST`: how many there are is written before the buffer's size
    /// is judged.
    pub(super) fn msr_index_list(&self, features: bool) -> Result<u32, Errno> {
        let room: MsrList = self.get()?;
        let list: Vec<u32> = if features {
            FEATURES.iter().map(|(index, _)| *index).collect()
        } else {
            TO_SAVE
                .into_iter()
                .filter(|index| MsrStore::knows(*index) || MachineChecks::has(*index))
                .collect()
        };
        let nmsrs = u32::try_from(list.len()).unwrap_or(u32::MAX);
        self.put(&MsrList { nmsrs })?;
        if room.nmsrs < nmsrs {
            return Err(Errno::E2BIG);
        }
        self.put_array(size_of::<MsrList>(), &list).map(|()| 0)
    }

    /// `KVM_GET_MSRS` on `/dev/kvm`.
    pub(super) fn feature_msrs(&self) -> Result<u32, Errno> {
        self.msr_io(true, |entry| {
            let (_, value) = FEATURES.iter().find(|(index, _)| *index == entry.index)?;
            entry.data = *value;
            Some(())
        })
    }

    /// `KVM_GET_MSRS` on a vCPU.
    pub(super) fn get_msrs(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        self.msr_io(true, |entry| vcpu.read_msr_entry(entry))
    }

    /// `KVM_SET_MSRS`.
    pub(super) fn set_msrs(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        self.msr_io(false, |entry| vcpu.write_msr_entry(entry))
    }

    /// Returns how many registers were done: the first that fails ends it, and is no error.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `msr_io`.
    fn msr_io(
        &self,
        write_back: bool,
        mut access: impl FnMut(&mut MsrEntry) -> Option<()>,
    ) -> Result<u32, Errno> {
        let head: Msrs = self.get()?;
        if head.nmsrs >= MAX_IO_MSRS {
            return Err(Errno::E2BIG);
        }
        let mut entries: Vec<MsrEntry> = self.get_array(size_of::<Msrs>(), head.nmsrs)?;
        let done = entries.iter_mut().map_while(&mut access).count();
        if write_back {
            self.put_array(size_of::<Msrs>(), &entries)?;
        }
        Ok(u32::try_from(done).unwrap_or(u32::MAX))
    }
}

impl Vcpu {
    /// Whether KVM cannot reach a register, because the processor keeps it with the guest's encrypted ones. A TD has its
    /// own list.
    fn is_out_of_reach(&mut self, index: u32) -> bool {
        self.vm_type != VmType::Tdx && PASSED_THROUGH.contains(&index) && self.state_is_protected()
    }

    /// The register into the entry. Of a guest of `KVM_SEV_ES_INIT` an unreachable one is left as it is given.
    fn read_msr_entry(&mut self, entry: &mut MsrEntry) -> Option<()> {
        if self.is_out_of_reach(entry.index) {
            return self.is_stale().then_some(());
        }
        entry.data = match entry.index {
            EFER if self.vm_type != VmType::Tdx => self.registers.sregs.efer,
            index => self.msr(index).ok()?,
        };
        Some(())
    }

    fn write_msr_entry(&mut self, entry: &MsrEntry) -> Option<()> {
        if self.is_out_of_reach(entry.index) {
            return self.is_stale().then_some(());
        }
        self.set_msr(entry.index, entry.data).ok()?;
        if entry.index == EFER {
            self.registers.sregs.efer = entry.data;
        }
        Some(())
    }
}
