//! What the processor says of itself, past every kernel.

use core::arch::x86_64::__cpuid_count;

/// The leaf of memory encryption; EBX has the position of the C-bit in bits 5 to 0.
const MEMORY_ENCRYPTION: u32 = 0x8000_001f;

/// The position of the C-bit, by CPUID as a VMM executes it. Where the leaf does not exist it is whatever the processor
/// answers to a leaf that it does not know, because VMMs that compare do not ask whether it exists.
#[must_use]
#[allow(unused_unsafe, reason = "the function is safe in newer releases of the standard library")]
pub fn host_c_bit() -> u32 {
    // SAFETY: Every processor that this crate is compiled for has the instruction.
    let leaf = unsafe { __cpuid_count(MEMORY_ENCRYPTION, 0) };
    leaf.ebx & 0x3f
}
