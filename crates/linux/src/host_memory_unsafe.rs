//! Memory that a VMM has mapped by itself.

use std::ptr::NonNull;

use crate::host_memory::{HostMemory, Sharing};
use crate::mapping_unsafe::Mapping;

impl HostMemory {
    /// Anonymous memory that somebody else mapped, in pages of `page_bytes`: 4096, or the length of its huge pages.
    ///
    /// Memory of a file is taken by [`HostMemory::file`] instead, whoever mapped it.
    ///
    /// # Safety
    ///
    /// The `bytes` bytes from `start` on, whole pages, are one anonymous mapping of this sharing, readable and
    /// writable. They stay so for as long as any clone lives, and no Rust reference to any of them exists meanwhile:
    /// what is given back reads as zero.
    #[must_use]
    pub unsafe fn mapped(start: NonNull<u8>, bytes: usize, sharing: Sharing, page_bytes: u64) -> Self {
        // SAFETY: The caller promises more than this asks for.
        let mapping = unsafe { Mapping::foreign(start, bytes) };
        Self::mapped_as(mapping, sharing, page_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_memory::Discard;
    use rustix::mm::{MapFlags, ProtFlags};

    #[test]
    fn pages_of_a_mapping_of_the_vmm_go_whether_it_is_private_or_shared() {
        for (sharing, flags) in [(Sharing::Private, MapFlags::PRIVATE), (Sharing::Shared, MapFlags::SHARED)] {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: Without MAP_FIXED the mapping lies where nothing is.
            let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 0x3000, access, flags) };
            let start = start.unwrap();
            let to = NonNull::new(start.cast()).unwrap();
            // SAFETY: The mapping has just been made so, and goes at the end of the test.
            let memory = unsafe { HostMemory::mapped(to, 0x3000, sharing, 4096) };
            let mapping = memory.mapping().unwrap();
            mapping.write(0, &[7; 0x3000]).unwrap();
            Discard::new(&memory.at(0x1000), 0, 0x1000).make().unwrap();
            let byte_at = |offset| {
                let mut byte = [9];
                mapping.read(offset, &mut byte).unwrap();
                byte[0]
            };
            assert_eq!([0xfff, 0x1000, 0x1fff, 0x2000].map(byte_at), [7, 0, 0, 7], "{sharing:?}");
            drop(memory);
            // SAFETY: Nobody uses it any more, and it was left mapped by the memory that did not make it.
            unsafe { rustix::mm::munmap(start, 0x3000) }.unwrap();
        }
    }
}
