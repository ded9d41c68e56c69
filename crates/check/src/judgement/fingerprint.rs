//! What stays the same of a finding from one check to the next.

/// FNV-1a over the parts, each with an end: the same rule, scene and VMM have the same, whatever the seed and the bytes
/// were, so that whoever collects findings takes them for one.
pub(super) fn fingerprint(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_that_of_all_parts_and_of_where_they_end() {
        assert_eq!(fingerprint(&["HC-2", "x", "qemu"]), fingerprint(&["HC-2", "x", "qemu"]));
        assert_ne!(fingerprint(&["HC-2", "x"]), fingerprint(&["HC-2x", ""]));
        // Whoever stored one must find it again.
        assert_eq!(fingerprint(&["a"]), "089be207b544f1e4");
    }
}
