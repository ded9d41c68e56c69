//! The VMM's memory, as the kernel half in its own process reaches it.

use crate::faults_unsafe;
use exeunt_abi::Errno;
use exeunt_model::UserMemory;

/// The memory of this process.
#[derive(Debug)]
pub(crate) struct Own;

impl UserMemory for Own {
    fn read(&self, uaddr: u64, to: &mut [u8]) -> Result<(), Errno> {
        faults_unsafe::read(uaddr, to)
    }

    fn write(&self, uaddr: u64, from: &[u8]) -> Result<(), Errno> {
        faults_unsafe::write(uaddr, from)
    }

    /// Nothing: the VMM's own call goes on to the kernel.
    fn discard(&self, _: u64, _: u64) {}
}

/// Whether the string at an address is this one.
pub(crate) fn is_string(uaddr: u64, expected: &[u8]) -> bool {
    let mut at = uaddr;
    // Byte by byte: the page behind the end of a string may not be there.
    let is_next = |byte: u8| {
        let mut found = [0];
        let is_same = faults_unsafe::read(at, &mut found).is_ok() && found == [byte];
        at = at.wrapping_add(1);
        is_same
    };
    expected.iter().copied().chain([0]).all(is_next)
}
