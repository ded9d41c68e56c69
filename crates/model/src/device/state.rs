//! The ioctls of a vCPU that look at its memory, and the older form of CPUID.

use super::call::Call;
use crate::vcpu::Vcpu;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::debug::Translation;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::memory::PreFaultMemory;
use exeunt_abi::{Errno, Gpa};

/// Bytes of an entry of `KVM_SET_CPUID`: leaf, EAX to EDX, padding.
const OLD_ENTRY_WORDS: usize = 6;
const MAX_OLD_ENTRIES: u32 = 256;
/// An address of nothing.
const NOWHERE: u64 = u64::MAX;

impl Call<'_> {
    /// The ioctls of this file; `None` is another ioctl.
    pub(super) fn on_state(&self, vcpu: &mut Vcpu) -> Option<Result<u32, Errno>> {
        Some(match self.request {
            nr::KVM_TRANSLATE => self.translate(vcpu),
            nr::KVM_SET_CPUID => self.set_cpuid(vcpu),
            nr::KVM_PRE_FAULT_MEMORY if self.device.kernel.dialect.has_pre_fault_memory() => {
                self.pre_fault_memory(vcpu)
            }
            _ => return None,
        })
    }

    /// What is left is written back after a failure, too.
    fn pre_fault_memory(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let mut range: PreFaultMemory = self.get()?;
        let result = vcpu.pre_fault_memory(&mut range);
        self.put(&range)?;
        result.map(|()| 0)
    }

    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl_translate`.
    fn translate(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let mut translation: Translation = self.get()?;
        let gpa = vcpu.translate(translation.linear_address);
        translation.physical_address = gpa.map_or(NOWHERE, |gpa| gpa.0);
        translation.valid = u8::from(gpa.is_some());
        (translation.writeable, translation.usermode) = (1, 0);
        self.put(&translation).map(|()| 0)
    }

    /// `KVM_SET_CPUID`, the older form without sub-leaves.
    fn set_cpuid(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let [nent, _]: [u32; 2] = self.get()?;
        if nent > MAX_OLD_ENTRIES {
            return Err(Errno::E2BIG);
        }
        let entries: Vec<[u32; OLD_ENTRY_WORDS]> = self.get_array(8, nent)?;
        let entries: Vec<CpuidEntry2> = entries
            .into_iter()
            .map(|[function, eax, ebx, ecx, edx, _]| CpuidEntry2 {
                function,
                eax,
                ebx,
                ecx,
                edx,
                ..CpuidEntry2::default()
            })
            .collect();
        vcpu.set_cpuid2(&entries).map(|()| 0)
    }
}

/// How a paging mode walks its tables: bits of the address that choose an entry of the topmost table, further levels with
/// 512 entries (1024 without PAE), bytes of an entry.
struct Walk {
    top_shift: u32,
    top_bits: u32,
    index_bits: u32,
    entry_bytes: u64,
}

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Address bits of an entry.
const ENTRY_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl Vcpu {
    /// Walks the guest's page tables in shared memory, as KVM does for a guest that is not encrypted.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/mmu/paging_tmpl.h`, `walk_addr_generic`.
    fn translate(&mut self, linear: u64) -> Option<Gpa> {
        let sregs = self.sregs().head;
        if sregs.cr0 >> 31 & 1 == 0 {
            return Some(Gpa(linear));
        }
        let is_long = sregs.efer >> 10 & 1 == 1;
        let (pae, la57, pse) = (sregs.cr4 >> 5 & 1 == 1, sregs.cr4 >> 12 & 1 == 1, sregs.cr4 >> 4 & 1 == 1);
        let walk = match (is_long, pae) {
            (true, _) if la57 => Walk { top_shift: 48, top_bits: 9, index_bits: 9, entry_bytes: 8 },
            (true, _) => Walk { top_shift: 39, top_bits: 9, index_bits: 9, entry_bytes: 8 },
            (false, true) => Walk { top_shift: 30, top_bits: 2, index_bits: 9, entry_bytes: 8 },
            (false, false) => Walk { top_shift: 22, top_bits: 10, index_bits: 10, entry_bytes: 4 },
        };
        let has_large = |shift: u32| match (is_long, pae) {
            (true, _) => shift == 21 || shift == 30,
            (false, true) => shift == 21,
            (false, false) => shift == 22 && pse,
        };
        let linear = if is_long { linear } else { linear & 0xffff_ffff };
        let mut table = sregs.cr3 & if is_long { ENTRY_ADDRESS } else { 0xffff_ffe0 };
        let (mut shift, mut bits) = (walk.top_shift, walk.top_bits);
        loop {
            let index = linear >> shift & (1u64 << bits).saturating_sub(1);
            let at = Gpa(table.wrapping_add(index.saturating_mul(walk.entry_bytes)));
            let entry = self.read_entry(at, walk.entry_bytes)?;
            if entry & PRESENT == 0 {
                return None;
            }
            let is_large = has_large(shift) && entry & LARGE != 0;
            if is_large || shift == 12 {
                let offset = (1u64 << shift).saturating_sub(1);
                return Some(Gpa(entry & ENTRY_ADDRESS & !offset | linear & offset));
            }
            table = entry & ENTRY_ADDRESS;
            bits = walk.index_bits;
            shift = shift.checked_sub(bits)?;
        }
    }

    fn read_entry(&self, at: Gpa, bytes: u64) -> Option<u64> {
        let mut entry = [0; 8];
        let to = entry.get_mut(..usize::try_from(bytes).ok()?)?;
        self.vm.read_shared(at, to).ok()?;
        Some(u64::from_le_bytes(entry))
    }
}
