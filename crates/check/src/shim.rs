//! The library that the dynamic linker puts into a VMM's process.

/// Its bytes. Empty on systems that it is not for, where VMMs are reached by the supervisor alone or not at all.
#[must_use]
pub fn bytes() -> &'static [u8] {
    include_bytes!(env!("EXEUNT_SHIM_FILE"))
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod tests {
    #[test]
    fn it_is_a_library_for_this_machine() {
        // Or it was left out on purpose.
        let bytes = super::bytes();
        assert!(bytes.is_empty() || bytes.starts_with(b"\x7fELF\x02\x01"), "{} bytes", bytes.len());
    }
}
