//! CPUID of a TD: what the module fixes, and what a VMM may configure.

use exeunt_abi::kvm::cpuid::{CpuidEntry2, FLAG_SIGNIFICANT_INDEX, MAX_ENTRIES};

/// The leaf with the bits of an address, through which the VMM chooses 48 or 52.
const ADDRESS_BITS: u32 = 0x8000_0008;
/// Bits 23:16 of EAX of [`ADDRESS_BITS`]: the bits of a guest physical address.
const GUEST_BITS_SHIFT: u32 = 16;
/// The feature leaf whose TSX and `WAITPKG` KVM does not offer to TDs.
const FEATURES: u32 = 7;
/// `HLE` and `RTM` in EBX of [`FEATURES`].
const TSX: u32 = 1 << 4 | 1 << 11;
/// `WAITPKG` in ECX of [`FEATURES`].
const WAITPKG: u32 = 1 << 5;

/// A leaf, or a sub-leaf of one that has them, with EAX, EBX, ECX and EDX.
struct Leaf(u32, Option<u32>, [u32; 4]);

/// What the module lets a VMM configure, bit by bit, in the order of `TD_PARAMS`. Modules differ; this one is the model's.
const CONFIGURABLE: [Leaf; 10] = [
    Leaf(0x1, None, [0x0fff_3fff, 0x00ff_0000, 0x0184_4d20, 0x0000_0000]),
    Leaf(0x4, Some(0), [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0x7]),
    Leaf(0x4, Some(1), [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0x7]),
    Leaf(0x4, Some(2), [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0x7]),
    Leaf(0x4, Some(3), [0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0x7]),
    Leaf(FEATURES, Some(0), [0, 0xd18f_0b1d, 0x1b41_5f6e, 0xffdd_4410]),
    Leaf(0x1f, Some(0), [0x1f, 0xffff, 0xffff, 0]),
    Leaf(0x1f, Some(1), [0x1f, 0xffff, 0xffff, 0]),
    Leaf(0x1f, Some(2), [0x1f, 0xffff, 0xffff, 0]),
    Leaf(ADDRESS_BITS, None, [0, 0x200, 0, 0]),
];

/// What a TD sees where nothing is configured.
const FIXED: [Leaf; 18] = [
    Leaf(
        0x0,
        None,
        [0x21, u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ntel"), u32::from_le_bytes(*b"ineI")],
    ),
    Leaf(0x1, None, [0x000c_06f2, 0, 0xf6fa_b203, 0x0f8b_fbff]),
    Leaf(0x2, None, [0x00fe_ff01, 0xf0, 0, 0]),
    Leaf(0x4, Some(0), [0, 0, 0, 0]),
    Leaf(0x4, Some(1), [0, 0, 0, 0]),
    Leaf(0x4, Some(2), [0, 0, 0, 0]),
    Leaf(0x4, Some(3), [0, 0, 0, 0]),
    Leaf(FEATURES, Some(0), [0, 0x0070_04e2, 0, 0]),
    Leaf(0xd, Some(0), [0x7, 0x240, 0xa88, 0]),
    Leaf(0xd, Some(1), [0xf, 0, 0, 0]),
    Leaf(0x1f, Some(0), [0, 0, 0, 0]),
    Leaf(0x1f, Some(1), [0, 0, 0, 0]),
    Leaf(0x1f, Some(2), [0, 0, 0, 0]),
    Leaf(
        0x21,
        None,
        [0, u32::from_le_bytes(*b"Inte"), u32::from_le_bytes(*b"    "), u32::from_le_bytes(*b"lTDX")],
    ),
    Leaf(0x8000_0000, None, [ADDRESS_BITS, 0, 0, 0]),
    Leaf(0x8000_0001, None, [0, 0, 0x121, 0x2c10_0800]),
    Leaf(0x8000_0007, None, [0, 0, 0, 0x100]),
    Leaf(ADDRESS_BITS, None, [0x3934, 0, 0, 0]),
];

/// Why a table cannot be a TD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CpuidError {
    /// KVM refuses it.
    Kvm,
    /// The module refuses a bit that cannot be configured.
    Module,
}

/// What a VMM may configure, as `KVM_TDX_CAPABILITIES` says it.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `td_init_cpuid_entry2`.
pub(super) fn configurable() -> Vec<CpuidEntry2> {
    CONFIGURABLE.iter().map(offered).collect()
}

fn offered(Leaf(function, index, [eax, ebx, ecx, edx]): &Leaf) -> CpuidEntry2 {
    let mut entry = CpuidEntry2 {
        function: *function,
        index: index.unwrap_or(0),
        eax: *eax,
        ebx: *ebx,
        ecx: *ecx,
        edx: *edx,
        ..CpuidEntry2::default()
    };
    match entry.function {
        ADDRESS_BITS => entry.eax |= 0xff << GUEST_BITS_SHIFT,
        FEATURES => {
            entry.ebx &= !TSX;
            entry.ecx &= !WAITPKG;
        }
        _ => {}
    }
    entry
}

/// `setup_tdparams_eptp_controls`: whether addresses have 52 bits. The model's processors have EPT of five levels.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`.
pub(super) fn is_wide(entries: &[CpuidEntry2]) -> Result<bool, CpuidError> {
    let entry = find(entries, ADDRESS_BITS, 0).ok_or(CpuidError::Kvm)?;
    match entry.eax >> GUEST_BITS_SHIFT & 0xff {
        48 => Ok(false),
        52 => Ok(true),
        _ => Err(CpuidError::Kvm),
    }
}

/// The CPUID of a TD with this configuration, as the module makes it of what KVM hands over.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `setup_tdparams_cpuids`; Intel 348551 version 1.5, `TDH.MNG.INIT`.
pub(super) fn virtualize(entries: &[CpuidEntry2]) -> Result<Vec<CpuidEntry2>, CpuidError> {
    let mut configured = Vec::new();
    for leaf in &CONFIGURABLE {
        let Leaf(function, index, _) = leaf;
        let Some(entry) = find(entries, *function, index.unwrap_or(0)) else { continue };
        if *function == FEATURES && (entry.ebx & TSX != 0 || entry.ecx & WAITPKG != 0) {
            return Err(CpuidError::Kvm);
        }
        let mut values = [entry.eax, entry.ebx, entry.ecx, entry.edx];
        if let ([eax, ..], ADDRESS_BITS) = (&mut values, *function) {
            *eax &= !(0xff << GUEST_BITS_SHIFT);
        }
        configured.push((leaf, values));
    }
    // Each entry has one place, or the TD would not get what the VMM wants.
    if configured.len() != entries.len() {
        return Err(CpuidError::Kvm);
    }
    let beyond = |(Leaf(_, _, mask), values): &(&Leaf, [u32; 4])| {
        mask.iter().zip(values).any(|(mask, value)| value & !mask != 0)
    };
    if configured.iter().any(beyond) {
        return Err(CpuidError::Module);
    }
    Ok(FIXED.iter().map(|fixed| merged(fixed, &configured)).collect())
}

/// Bits that can be configured are as configured, 0 if they are not; the others are fixed.
fn merged(Leaf(function, index, fixed): &Leaf, configured: &[(&Leaf, [u32; 4])]) -> CpuidEntry2 {
    let is_same = |leaf: &Leaf| (leaf.0, leaf.1) == (*function, *index);
    let mask = CONFIGURABLE.iter().find(|leaf| is_same(leaf)).map_or([0; 4], |leaf| leaf.2);
    let values = configured.iter().find(|(leaf, _)| is_same(leaf)).map_or([0; 4], |(_, values)| *values);
    let mut registers = *fixed;
    for ((register, mask), value) in registers.iter_mut().zip(mask).zip(values) {
        *register = *register & !mask | value;
    }
    let [eax, ebx, ecx, edx] = registers;
    let flags = if index.is_some() { FLAG_SIGNIFICANT_INDEX } else { 0 };
    CpuidEntry2 { function: *function, index: index.unwrap_or(0), flags, eax, ebx, ecx, edx, padding: [0; 3] }
}

/// `kvm_find_cpuid_entry2`: an entry without sub-leaves stands for each of them.
fn find(entries: &[CpuidEntry2], function: u32, index: u32) -> Option<&CpuidEntry2> {
    entries.iter().find(|entry| {
        entry.function == function && (entry.flags & FLAG_SIGNIFICANT_INDEX == 0 || entry.index == index)
    })
}

/// What `KVM_TDX_GET_CPUID` finds: leaf by leaf up to the highest of each range, and of a leaf with sub-leaves those from 0
/// on without a gap. The module has no leaf with any of bits 30:7, and no sub-leaf above 127.
///
/// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_vcpu_get_cpuid`.
pub(super) fn read_all(cpuid: &[CpuidEntry2], gpa_width: u32) -> Vec<CpuidEntry2> {
    let mut found = Vec::new();
    for base in [0, 0x8000_0000] {
        let Some(highest) = cpuid.iter().find(|entry| entry.function == base).map(|entry| entry.eax) else {
            continue;
        };
        for function in (base..=highest).take_while(|function| function & 0x7fff_ff80 == 0) {
            let has_no_index = |entry: &&CpuidEntry2| {
                entry.function == function && entry.flags & FLAG_SIGNIFICANT_INDEX == 0
            };
            if let Some(entry) = cpuid.iter().find(has_no_index) {
                found.push(*entry);
                continue;
            }
            let sub_leaf =
                |index| cpuid.iter().find(move |entry| (entry.function, entry.index) == (function, index));
            found.extend((0..128).map_while(sub_leaf));
        }
    }
    found.truncate(MAX_ENTRIES as usize);
    for entry in &mut found {
        if entry.function == ADDRESS_BITS {
            entry.eax = entry.eax & !(0xff << GUEST_BITS_SHIFT) | gpa_width << GUEST_BITS_SHIFT;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_bits(bits: u32) -> CpuidEntry2 {
        CpuidEntry2 { function: ADDRESS_BITS, eax: bits << GUEST_BITS_SHIFT, ..CpuidEntry2::default() }
    }

    #[test]
    fn an_address_has_48_or_52_bits_and_nothing_else() {
        for bits in 0..=0xff {
            let expected = match bits {
                48 => Ok(false),
                52 => Ok(true),
                _ => Err(CpuidError::Kvm),
            };
            assert_eq!(is_wide(&[address_bits(bits)]), expected, "{bits}");
        }
        assert_eq!(is_wide(&[]), Err(CpuidError::Kvm));
    }

    #[test]
    fn each_bit_that_is_not_offered_is_refused_by_the_module_and_each_that_is_reaches_the_td() {
        for offered in configurable() {
            if offered.function == ADDRESS_BITS {
                continue;
            }
            for bit in 0..128 {
                let mut values = [0u32; 4];
                values[bit / 32] = 1 << (bit % 32);
                let [eax, ebx, ecx, edx] = values;
                let entry = CpuidEntry2 { flags: FLAG_SIGNIFICANT_INDEX, eax, ebx, ecx, edx, ..offered };
                let masks = [offered.eax, offered.ebx, offered.ecx, offered.edx];
                let got = virtualize(&[entry, address_bits(48)]);
                let unsupported = offered.function == FEATURES && (ebx & TSX != 0 || ecx & WAITPKG != 0);
                if unsupported {
                    assert_eq!(got, Err(CpuidError::Kvm), "{offered:x?} bit {bit}");
                } else if masks[bit / 32] & values[bit / 32] == 0 {
                    assert_eq!(got, Err(CpuidError::Module), "{offered:x?} bit {bit}");
                } else {
                    let cpuid = got.unwrap();
                    let seen = find(&cpuid, offered.function, offered.index).unwrap();
                    assert_ne!([seen.eax, seen.ebx, seen.ecx, seen.edx][bit / 32] & values[bit / 32], 0);
                }
            }
        }
    }

    #[test]
    fn an_entry_without_a_place_or_in_two_places_is_refused() {
        let unknown = CpuidEntry2 { function: 0x15, ..CpuidEntry2::default() };
        assert_eq!(virtualize(&[address_bits(48), unknown]), Err(CpuidError::Kvm));
        // Without a significant index it stands for four sub-leaves.
        let four = CpuidEntry2 { function: 4, ..CpuidEntry2::default() };
        assert_eq!(virtualize(&[address_bits(48), four]), Err(CpuidError::Kvm));
        assert_eq!(virtualize(&[address_bits(48), address_bits(48)]), Err(CpuidError::Kvm));
    }

    #[test]
    fn reading_finds_every_leaf_in_order_and_the_width_that_was_chosen() {
        let cpuid = virtualize(&[address_bits(52)]).unwrap();
        let found = read_all(&cpuid, 52);
        assert_eq!(found.len(), FIXED.len());
        let keys: Vec<_> = found.iter().map(|entry| (entry.function, entry.index)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(keys, sorted);
        assert_eq!(found.last().map(|entry| entry.eax), Some(0x3934 | 52 << 16));
    }
}
