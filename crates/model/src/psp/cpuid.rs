//! The check of CPUID tables: a guest must not be told of what the firmware would not vouch for.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 8.17.2.6 "CPUID"; which bits are
//! refused is what VMMs mask for SNP guests.

use super::Status;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::psp::page::{CPUID_COUNT_MAX, CpuidFunction, CpuidPage};
use zerocopy::{FromBytes, IntoBytes};

/// Bits that no guest may have: leaf, sub-leaf if it counts, EAX, EBX, ECX, EDX.
const REFUSED: &[(u32, Option<u32>, [u32; 4])] = &[
    // The TSC deadline timer.
    (1, None, [0, 0, 1 << 24, 0]),
    // TSC_ADJUST; SPEC_CTRL, STIBP, L1D flush, the two capability MSRs, SSBD.
    (7, Some(0), [0, 1 << 1, 0, 0xfc00_0000]),
    // VIRT_SSBD.
    (0x8000_0008, None, [0, 1 << 25, 0, 0]),
];

/// The leaf of XSAVE.
const XSAVE: u32 = 0xd;
/// Components of XSAVE whose place is known: bit and end in bytes.
const XSAVE_ENDS: &[(u64, u32)] = &[(0, 0x240), (1, 0x240), (2, 0x340), (9, 0x348)];

/// Checks the entries in use and corrects them in place.
///
/// `INVALID_PARAM` is the answer to a table that had to be corrected, and to one with too many entries.
pub(crate) fn check_page(page: &mut [u8; 4096]) -> Result<(), Status> {
    let mut table = CpuidPage::read_from_bytes(page.as_slice()).map_err(|_| firmware::INVALID_PARAM)?;
    if table.count > CPUID_COUNT_MAX {
        return Err(firmware::INVALID_PARAM);
    }
    let in_use = usize::try_from(table.count).unwrap_or(usize::MAX);
    let result = check(table.functions.iter_mut().take(in_use));
    page.copy_from_slice(table.as_bytes());
    result
}

/// Checks entries and corrects them.
pub(crate) fn check<'a>(functions: impl Iterator<Item = &'a mut CpuidFunction>) -> Result<(), Status> {
    let mut result = Ok(());
    for function in functions {
        let corrected = corrected(function);
        if corrected != *function {
            *function = corrected;
            result = Err(firmware::INVALID_PARAM);
        }
    }
    result
}

fn corrected(function: &CpuidFunction) -> CpuidFunction {
    let mut corrected = CpuidFunction { reserved: 0, ..*function };
    for (leaf, sub_leaf, [eax, ebx, ecx, edx]) in REFUSED {
        if *leaf == function.eax_in && sub_leaf.is_none_or(|sub_leaf| sub_leaf == function.ecx_in) {
            corrected.eax &= !eax;
            corrected.ebx &= !ebx;
            corrected.ecx &= !ecx;
            corrected.edx &= !edx;
        }
    }
    if function.eax_in == XSAVE && function.ecx_in == 0 {
        corrected.ebx = xsave_bytes(function.xcr0_in).unwrap_or(function.ebx);
    }
    corrected
}

/// Bytes of the XSAVE area in its standard form, if all components are known.
fn xsave_bytes(xcr0: u64) -> Option<u32> {
    let known = XSAVE_ENDS.iter().fold(0, |mask, (bit, _)| mask | 1u64 << bit);
    let enabled = XSAVE_ENDS.iter().filter(|(bit, _)| xcr0 >> bit & 1 == 1).map(|(_, end)| *end);
    (xcr0 & !known == 0 && xcr0 != 0).then(|| enabled.max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn page(functions: &[CpuidFunction]) -> Box<[u8; 4096]> {
        let mut table = CpuidPage::new_zeroed();
        table.count = u32::try_from(functions.len()).unwrap();
        table.functions[..functions.len()].copy_from_slice(functions);
        Box::new(table.as_bytes().try_into().unwrap())
    }

    fn leaf(eax_in: u32) -> CpuidFunction {
        CpuidFunction { eax_in, eax: !0, ebx: !0, ecx: !0, edx: !0, ..CpuidFunction::default() }
    }

    #[test]
    fn a_table_with_refused_bits_is_refused_and_what_comes_back_is_accepted() {
        for refused in [leaf(1), leaf(7), leaf(0x8000_0008)] {
            let mut page = page(&[leaf(2), refused, leaf(0x4000_0000)]);
            assert_eq!(check_page(&mut page), Err(firmware::INVALID_PARAM), "{:#x}", refused.eax_in);
            let table = CpuidPage::read_from_bytes(page.as_slice()).unwrap();
            assert_eq!([table.functions[0], table.functions[2]], [leaf(2), leaf(0x4000_0000)]);
            assert_ne!(table.functions[1], refused);
            assert_eq!(check_page(&mut page), Ok(()));
        }
    }

    #[test]
    fn entries_behind_the_count_are_not_looked_at() {
        let mut page = page(&[leaf(1)]);
        page[0] = 0;
        let before = page.clone();
        assert_eq!(check_page(&mut page), Ok(()));
        assert_eq!(page, before);
        page[0] = 65;
        assert_eq!(check_page(&mut page), Err(firmware::INVALID_PARAM));
    }

    #[test]
    fn the_size_of_the_xsave_area_is_that_of_xcr0() {
        for (xcr0_in, ebx) in [(1, 0x240), (3, 0x240), (7, 0x340), (0x207, 0x348)] {
            let mut page = page(&[CpuidFunction { xcr0_in, ebx: 1, ..leaf(XSAVE) }]);
            assert_eq!(check_page(&mut page), Err(firmware::INVALID_PARAM));
            assert_eq!(CpuidPage::read_from_bytes(page.as_slice()).unwrap().functions[0].ebx, ebx);
        }
    }
}
