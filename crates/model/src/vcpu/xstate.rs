//! The state that `XSAVE` saves: which of it a guest may enable, and how many bytes it takes.

/// Bit of leaf 0xd, sub-leaf 1, EAX: the compacted format.
pub(crate) const CPUID_XSAVEC: u32 = 1 << 1;
/// Bit of leaf 0xd, sub-leaf 1, EAX: supervisor state.
pub(crate) const CPUID_XSAVES: u32 = 1 << 3;

/// XCR0 of a vCPU after its reset: x87 state, which cannot be disabled.
pub(crate) const FP: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const YMM: u64 = 1 << 2;
const AVX512: u64 = 0x7 << 5;
const PKRU: u64 = 1 << 9;
/// What the model's hosts can save for guests.
pub(crate) const HOST_XCR0: u64 = FP | SSE | YMM | AVX512 | PKRU;
/// The same for supervisor state: shadow stacks of user code and of the kernel.
pub(crate) const HOST_XSS: u64 = 0x3 << 11;

/// Bytes of the legacy region and the header.
const FIXED_BYTES: u32 = 512 + 64;

/// The components of the model's hosts behind the header: bit, offset in the standard format (none for supervisor
/// state), bytes. None of them needs alignment in the compacted format.
///
/// Source: AMD 24593 "APM volume 2", section 11.5.2, with the offsets that Zen 4 gives in leaf 0xd.
const COMPONENTS: [(u32, Option<u32>, u32); 7] = [
    (2, Some(576), 256),
    (5, Some(832), 64),
    (6, Some(896), 512),
    (7, Some(1408), 1024),
    (9, Some(2432), 8),
    (11, None, 16),
    (12, None, 24),
];

fn enabled(state: u64) -> impl Iterator<Item = (Option<u32>, u32)> {
    let is_enabled = move |bit: u32| state >> bit & 1 == 1;
    COMPONENTS.into_iter().filter_map(move |(bit, offset, bytes)| is_enabled(bit).then_some((offset, bytes)))
}

/// Bytes of the standard format.
///
/// Source: Linux v7.2 `arch/x86/kvm/cpuid.c`, `xstate_required_size`.
pub(crate) fn standard_bytes(state: u64) -> u32 {
    let ends = enabled(state).filter_map(|(offset, bytes)| offset?.checked_add(bytes));
    ends.fold(FIXED_BYTES, u32::max)
}

/// Bytes of the compacted format.
pub(crate) fn compacted_bytes(state: u64) -> u32 {
    enabled(state).fold(FIXED_BYTES, |sum, (_, bytes)| sum.saturating_add(bytes))
}

/// Whether a guest that CPUID shows `supported` to may set XCR0 to this.
///
/// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `__kvm_set_xcr`.
pub(crate) const fn xcr0_is_valid(xcr0: u64, supported: u64) -> bool {
    if xcr0 & FP == 0 || xcr0 & !(supported & HOST_XCR0 | FP) != 0 {
        return false;
    }
    if xcr0 & YMM != 0 && xcr0 & SSE == 0 {
        return false;
    }
    xcr0 & AVX512 == 0 || xcr0 & YMM != 0 && xcr0 & AVX512 == AVX512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xcr0_takes_what_cpuid_shows_in_the_combinations_that_make_sense() {
        let valid = |supported| (0..0x400).filter(|xcr0| xcr0_is_valid(*xcr0, supported)).collect::<Vec<_>>();
        assert_eq!(valid(0), [1]);
        assert_eq!(valid(0x3), [1, 3]);
        assert_eq!(valid(0x7), [1, 3, 7]);
        assert_eq!(valid(0xe7), [1, 3, 7, 0xe7]);
        assert_eq!(valid(u64::MAX), [1, 3, 7, 0xe7, 0x201, 0x203, 0x207, 0x2e7]);
    }
}
