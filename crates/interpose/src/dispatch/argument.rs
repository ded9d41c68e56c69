//! The bytes behind the argument of an ioctl.

use exeunt_abi::kvm::ioctl::{self as nr, Ioctl};
use exeunt_model::UserMemory;

/// Bytes of an argument that are kept.
const MOST_BYTES: usize = 4096;
/// `struct kvm_sev_cmd` and `struct kvm_tdx_cmd`, which `KVM_MEMORY_ENCRYPT_OP` points to whatever its number says.
const COMMAND_BYTES: usize = 24;
/// Where a command has the address of its data.
const DATA_AT: usize = 8;
/// Bytes of the data of a command that are kept: as many as the largest of SNP has.
const DATA_BYTES: usize = 96;
/// Where `struct kvm_device_attr` has the address of its value, and how long the values are that anyone looks at.
const VALUE_AT: usize = 16;
const VALUE_BYTES: usize = 8;

/// What lies behind the argument now. Where there is nothing to be read, or no pointer, it is empty.
pub(super) fn bytes(memory: &dyn UserMemory, request: u32, arg: u64) -> Vec<u8> {
    let request = Ioctl(request);
    match request {
        nr::KVM_MEMORY_ENCRYPT_OP => {
            let mut bytes = read(memory, arg, COMMAND_BYTES);
            if let Some(data) = word_at(&bytes, DATA_AT).filter(|data| *data != 0) {
                bytes.extend(read_some(memory, data, DATA_BYTES));
            }
            bytes
        }
        nr::KVM_GET_DEVICE_ATTR | nr::KVM_SET_DEVICE_ATTR => {
            let mut bytes = read(memory, arg, usize::from(request.parts().size_bytes));
            if let Some(value) = word_at(&bytes, VALUE_AT).filter(|value| *value != 0) {
                bytes.extend(read(memory, value, VALUE_BYTES));
            }
            bytes
        }
        _ => read(memory, arg, usize::from(request.parts().size_bytes).min(MOST_BYTES)),
    }
}

fn read(memory: &dyn UserMemory, uaddr: u64, bytes: usize) -> Vec<u8> {
    let mut to = vec![0; bytes];
    match memory.read(uaddr, &mut to) {
        Ok(()) if bytes != 0 => to,
        _ => Vec::new(),
    }
}

/// As many as there are, up to the end of what can be read.
fn read_some(memory: &dyn UserMemory, uaddr: u64, bytes: usize) -> Vec<u8> {
    let mut length = bytes;
    while length != 0 {
        let found = read(memory, uaddr, length);
        if !found.is_empty() {
            return found;
        }
        length /= 2;
    }
    Vec::new()
}

/// A little-endian word.
pub(super) fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// A little-endian half of a word.
pub(super) fn half_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_model::{Protection, SparseMemory};

    #[test]
    fn a_command_brings_its_data_and_a_value_its_attribute() {
        let memory = SparseMemory::new();
        memory.write(0x1000 + 8, &0x2000u64.to_le_bytes()).unwrap();
        memory.write(0x2000, b"data").unwrap();
        let found = bytes(&memory, nr::KVM_MEMORY_ENCRYPT_OP.0, 0x1000);
        assert_eq!((found.len(), &found[24..28]), (24 + DATA_BYTES, b"data".as_slice()));
        memory.write(0x3000 + 16, &0x2000u64.to_le_bytes()).unwrap();
        let found = bytes(&memory, nr::KVM_GET_DEVICE_ATTR.0, 0x3000);
        assert_eq!((found.len(), &found[24..28]), (32, b"data".as_slice()));
    }

    #[test]
    fn what_cannot_be_read_is_empty_and_data_ends_where_memory_does() {
        let memory = SparseMemory::new();
        memory.write(0x1000 + 8, &0x4fe0u64.to_le_bytes()).unwrap();
        memory.protect(0x5000, Protection::None);
        assert_eq!(bytes(&memory, nr::KVM_MEMORY_ENCRYPT_OP.0, 0x1000).len(), 24 + 24);
        assert_eq!(bytes(&memory, nr::KVM_ENABLE_CAP.0, 0x5000), []);
        assert_eq!(bytes(&memory, nr::KVM_CREATE_VCPU.0, 0x1000), []);
        assert_eq!(bytes(&memory, u32::MAX, 0x1000).len(), MOST_BYTES);
    }
}
