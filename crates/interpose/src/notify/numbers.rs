//! Words of system calls, as the types that the kernel takes them for.

/// An `int` that was passed in a register.
pub(super) const fn int(word: u64) -> i32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// An `unsigned int` that was passed in a register.
pub(super) const fn unsigned_int(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A `long`, or an offset in a file.
pub(super) const fn long(word: u64) -> i64 {
    i64::from_le_bytes(word.to_le_bytes())
}

/// The same bits without a sign.
pub(super) const fn bits(int: i32) -> u32 {
    u32::from_le_bytes(int.to_le_bytes())
}

/// The same bits with a sign.
pub(super) const fn signed(bits: u32) -> i32 {
    i32::from_le_bytes(bits.to_le_bytes())
}
