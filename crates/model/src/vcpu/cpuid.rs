//! CPUID as the VMM set it, and as the instruction finds it.

use super::xstate;
use crate::guest::mailbox::Outcome;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::Errno;
use exeunt_abi::kvm::cpuid::{CpuidEntry2, FLAG_SIGNIFICANT_INDEX, MAX_ENTRIES};

/// EAX, EBX, ECX, EDX.
pub(crate) type Registers = [u32; 4];

/// The leaf with the vendor and the highest leaf.
const VENDOR: u32 = 0;
/// The leaf that describes what `XSAVE` saves.
const XSAVE: u32 = 0xd;
/// The two leaves of the topology, whose ECX and EDX are defined for sub-leaves that do not exist.
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];
/// The leaf with the widths of addresses.
const ADDRESS_WIDTHS: u32 = 0x8000_0008;
/// The leaf with the position of the C-bit.
const MEMORY_ENCRYPTION: u32 = 0x8000_001f;
/// EBX, EDX and ECX of leaf 0 on the processors that give zeros for a leaf that does not exist.
const AMD: [[u32; 3]; 3] = [
    // "AuthenticAMD", "AMDisbetter!", "HygonGenuine"
    [0x6874_7541, 0x6974_6e65, 0x444d_4163],
    [0x6944_4d41, 0x7465_6273, 0x2172_6574],
    [0x6f67_7948, 0x6e65_476e, 0x656e_6975],
];

/// The table of `KVM_SET_CPUID2`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpuid {
    entries: Vec<CpuidEntry2>,
}

impl Cpuid {
    /// The entry of a leaf: the first that has no sub-leaves or has this one.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `kvm_find_cpuid_entry2`.
    pub(crate) fn find(&self, function: u32, index: u32) -> Option<&CpuidEntry2> {
        self.entries.iter().find(|entry| {
            let has_index = entry.flags & FLAG_SIGNIFICANT_INDEX != 0;
            entry.function == function && (!has_index || entry.index == index)
        })
    }

    /// One register of a leaf, 0 if it is not there. `register` counts from EAX.
    pub(crate) fn register(&self, function: u32, index: u32, register: usize) -> u32 {
        self.find(function, index).and_then(|entry| registers(entry).get(register).copied()).unwrap_or(0)
    }

    /// Address bits that a guest's physical addresses cannot have.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `cpuid_query_maxphyaddr`.
    pub(crate) fn reserved_address_bits(&self) -> u64 {
        let is_shown = self.register(0x8000_0000, 0, 0) >= ADDRESS_WIDTHS;
        let width = self.find(ADDRESS_WIDTHS, 0).filter(|_| is_shown).map_or(36, |entry| entry.eax & 0xff);
        u64::MAX.checked_shl(width).unwrap_or(0)
    }

    /// The same where the bit that encrypts a page is allowed.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_vcpu_after_set_cpuid`.
    pub(crate) fn reserved_guest_address_bits(&self) -> u64 {
        let c_bit = self.find(MEMORY_ENCRYPTION, 0).map_or(0, |entry| 1 << (entry.ebx & 0x3f));
        self.reserved_address_bits() & !c_bit
    }

    /// The leaf that an Intel processor shows for one that is out of range: its highest basic leaf.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `get_out_of_range_cpuid_entry`.
    fn find_out_of_range(&self, function: u32, index: u32) -> Option<&CpuidEntry2> {
        let basic = self.find(VENDOR, 0)?;
        if AMD.contains(&[basic.ebx, basic.edx, basic.ecx]) {
            return None;
        }
        let class = match function {
            0x4000_0000..=0x4fff_ffff => self.find(function & 0xffff_ff00, 0),
            0xc000_0000.. => self.find(0xc000_0000, 0),
            _ => self.find(function & 0x8000_0000, 0),
        };
        if class.is_some_and(|class| function <= class.eax) {
            return None;
        }
        self.find(basic.eax, index)
    }

    /// What the instruction leaves.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `kvm_cpuid`.
    fn execute(&self, function: u32, index: u32, xcr0: u64, xss: u64) -> Registers {
        let found = self.find(function, index).map(|entry| (function, entry));
        let found = found.or_else(|| {
            // What follows looks at the leaf that is shown, not at the one that was asked for.
            let highest = self.register(VENDOR, 0, 0);
            Some((highest, self.find_out_of_range(function, index)?))
        });
        let Some((function, entry)) = found else {
            // The extended APIC id counts in every sub-leaf, and the number of the sub-leaf is passed through.
            let topology = TOPOLOGY.contains(&function).then(|| self.find(function, 1)).flatten();
            return topology.map_or([0; 4], |entry| [0, 0, index & 0xff, entry.edx]);
        };
        let [eax, mut ebx, ecx, edx] = registers(entry);
        if function == XSAVE {
            match entry.index {
                0 => ebx = xstate::standard_bytes(xcr0),
                1 if eax & (xstate::CPUID_XSAVEC | xstate::CPUID_XSAVES) != 0 => {
                    ebx = xstate::compacted_bytes(xcr0 | xss);
                }
                _ => {}
            }
        }
        [eax, ebx, ecx, edx]
    }
}

const fn registers(entry: &CpuidEntry2) -> Registers {
    [entry.eax, entry.ebx, entry.ecx, entry.edx]
}

impl Vcpu {
    /// `KVM_SET_CPUID2`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `kvm_vcpu_ioctl_set_cpuid2` and `kvm_set_cpuid`.
    ///
    /// # Errors
    ///
    /// `E2BIG` for more than 256 entries; `EINVAL` for a table that differs from the one that the vCPU has run with,
    /// and for linear addresses of another width than 48 or 57 bits.
    pub fn set_cpuid2(&mut self, entries: &[CpuidEntry2]) -> Result<(), Errno> {
        if u32::try_from(entries.len()).map_or(true, |count| count > MAX_ENTRIES) {
            return Err(Errno::E2BIG);
        }
        if self.has_run {
            let same = |old: &CpuidEntry2, new: &CpuidEntry2| {
                let key = |entry: &CpuidEntry2| (entry.function, entry.index, entry.flags, registers(entry));
                key(old) == key(new)
            };
            let old = &self.cpuid.entries;
            let is_same =
                old.len() == entries.len() && old.iter().zip(entries).all(|(old, new)| same(old, new));
            return if is_same { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let cpuid = Cpuid { entries: entries.to_vec() };
        let width = cpuid.register(ADDRESS_WIDTHS, 0, 0) >> 8 & 0xff;
        if !matches!(width, 0 | 48 | 57) {
            return Err(Errno::EINVAL);
        }
        self.cpuid = cpuid;
        Ok(())
    }

    /// `KVM_GET_CPUID2`: the table, with what depends on the guest's state filled in.
    #[must_use]
    pub fn cpuid2(&self) -> Vec<CpuidEntry2> {
        let fill = |entry: &CpuidEntry2| {
            let mut entry = *entry;
            let [_, ebx, ..] = self.cpuid.execute(entry.function, entry.index, self.xcr0, self.xss);
            entry.ebx = ebx;
            entry
        };
        self.cpuid.entries.iter().map(fill).collect()
    }

    /// A guest executes `CPUID`.
    pub(crate) fn cpuid_op(&mut self, function: u32, index: u32) -> Step {
        if !self.is_plain_x86() {
            return Step::Guest(Outcome::Fault(self.not_emulated()));
        }
        let registers = self.cpuid.execute(function, index, self.xcr0, self.xss);
        Step::Guest(Outcome::Registers(registers))
    }

    /// `CPUID` with EAX and ECX of the vCPU's registers.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `kvm_emulate_cpuid`.
    pub(crate) fn emulate_cpuid(&mut self) {
        let [function, index] = [self.regs.rax, self.regs.rcx].map(low);
        let registers = self.cpuid.execute(function, index, self.xcr0, self.xss);
        [self.regs.rax, self.regs.rbx, self.regs.rcx, self.regs.rdx] = registers.map(u64::from);
    }
}

/// The low half of a register.
pub(crate) fn low(register: u64) -> u32 {
    u32::try_from(register & 0xffff_ffff).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: Option<u32>, registers: Registers) -> CpuidEntry2 {
        let [eax, ebx, ecx, edx] = registers;
        let flags = if index.is_some() { FLAG_SIGNIFICANT_INDEX } else { 0 };
        CpuidEntry2 { function, index: index.unwrap_or(0), flags, eax, ebx, ecx, edx, padding: [0; 3] }
    }

    fn table(vendor: [u32; 3]) -> Cpuid {
        let [ebx, edx, ecx] = vendor;
        Cpuid {
            entries: vec![
                entry(0, None, [0xd, ebx, ecx, edx]),
                entry(0xb, Some(0), [1, 2, 0x100, 7]),
                entry(0xb, Some(1), [4, 8, 0x201, 7]),
                entry(0xd, Some(0), [7, 0, 0x340, 0]),
                entry(0xd, Some(1), [0xf, 0, 0, 0]),
                entry(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
            ],
        }
    }

    #[test]
    fn a_leaf_without_sub_leaves_is_found_with_any_and_one_with_them_by_its_own() {
        let table = table(AMD[0]);
        for index in [0, 1, u32::MAX] {
            assert_eq!(table.execute(0, index, 1, 0)[0], 0xd, "{index}");
        }
        assert_eq!(table.execute(0xb, 0, 1, 0), [1, 2, 0x100, 7]);
        assert_eq!(table.execute(0xb, 1, 1, 0), [4, 8, 0x201, 7]);
        assert_eq!(table.execute(0xb, 0x1ff, 1, 0), [0, 0, 0xff, 7], "past the last sub-leaf");
        assert_eq!(table.execute(0x1f, 3, 1, 0), [0; 4], "a topology that is not there");
    }

    #[test]
    fn a_leaf_out_of_range_is_zero_on_amd_and_the_highest_basic_leaf_on_intel() {
        for vendor in AMD {
            assert_eq!(table(vendor).execute(0x20, 1, 7, 0), [0; 4]);
        }
        let intel = table([0x756e_6547, 0x4965_6e69, 0x6c65_746e]);
        assert_eq!(intel.execute(0x20, 1, 7, 0), intel.execute(0xd, 1, 7, 0));
        assert_eq!(intel.execute(0x8000_0009, 0, 7, 0), intel.execute(0xd, 0, 7, 0));
        assert_eq!(intel.execute(5, 0, 7, 0), [0; 4], "in range, and not there");
        assert_eq!(intel.execute(0x4000_0000, 0, 7, 0), intel.execute(0xd, 0, 7, 0), "no such class");
        assert_eq!(Cpuid::default().execute(0, 0, 1, 0), [0; 4]);
    }

    #[test]
    fn the_size_of_the_saved_state_follows_what_the_guest_enabled() {
        let table = table(AMD[0]);
        let sizes = |xcr0, xss| [0, 1].map(|index| table.execute(0xd, index, xcr0, xss)[1]);
        assert_eq!(sizes(1, 0), [576, 576]);
        assert_eq!(sizes(7, 0), [832, 832]);
        assert_eq!(sizes(0xe7, 0), [2432, 2432]);
        assert_eq!(sizes(0x207, 0), [2440, 840], "the compacted format has no holes");
        assert_eq!(
            sizes(7, 0x1800),
            [832, 832 + 16 + 24],
            "supervisor state is in the compacted format only"
        );
    }
}
