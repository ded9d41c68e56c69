use super::*;
use exeunt_abi::kvm::vm_type::VmType;

/// What each of three pages is filled with.
fn bytes_of(mapping: &Mapping) -> [u8; 3] {
    [0, 1, 2].map(|page| {
        let mut bytes = [0; 0x1000];
        mapping.read(page << 12, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "page {page}");
        bytes[0]
    })
}

fn discard(memory: &HostMemory, offset: u64, bytes: u64) -> Result<(), Errno> {
    let half = memory.at(0);
    Discard::new(&half, offset, bytes).whole_pages().map_or(Ok(()), |call| call.make())
}

#[test]
fn pages_of_private_anonymous_memory_go_and_their_neighbours_stay() {
    let memory = HostMemory::anonymous(0x3000).unwrap();
    let mapping = memory.mapping().unwrap();
    mapping.write(0, &[7; 0x3000]).unwrap();
    discard(&memory, 0x1000, 0x1000).unwrap();
    assert_eq!(bytes_of(mapping), [7, 0, 7]);
    assert_eq!(discard(&memory, 0x2000, 0x2000), Err(Errno::EFAULT));
    assert_eq!(bytes_of(mapping), [7, 0, 7]);
}

#[test]
fn pages_of_a_memfd_go_for_all_who_map_it_and_its_length_stays() {
    let memory = HostMemory::memfd(0x3000).unwrap();
    let fd = memory.fd().unwrap();
    let mapping = Mapping::of_file(fd, 0, 0x3000).unwrap();
    mapping.write(0, &[7; 0x3000]).unwrap();
    // What is right for private memory does nothing here, and says nothing.
    mapping.discard(0x1000, 0x1000).unwrap();
    assert_eq!(bytes_of(&mapping), [7; 3]);
    discard(&memory, 0x1000, 0x2000).unwrap();
    assert_eq!(bytes_of(&mapping), [7, 0, 0]);
    assert_eq!(bytes_of(&Mapping::of_file(fd, 0, 0x3000).unwrap()), [7, 0, 0]);
    let stat = rustix::fs::fstat(fd).unwrap();
    // Reading a hole of a file with a shared mapping gives it a page again, so the blocks are asked for after another.
    assert_eq!(stat.st_size, 0x3000);
    discard(&memory, 0, 0x3000).unwrap();
    assert_eq!(rustix::fs::fstat(fd).unwrap().st_blocks, 0);
}

/// A `guest_memfd` of three pages that this process may map to see what it holds.
fn guest_memfd_to_look_into() -> Result<HostMemory, String> {
    use exeunt_abi::kvm::caps::Cap;
    use exeunt_abi::kvm::memory::{GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP};
    let kvm = crate::probe()?;
    let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    if u64::from(kvm.check_extension(Cap::GUEST_MEMFD_FLAGS)) & flags != flags {
        return Err(format!("this host lacks {}", Cap::GUEST_MEMFD_FLAGS));
    }
    let device = kvm_ioctls::Kvm::new().map_err(|error| error.to_string())?;
    let vm = device.create_vm_with_type(VmType::Default.number()).map_err(|error| error.to_string())?;
    let create = kvm_bindings::kvm_create_guest_memfd { size: 0x3000, flags, ..Default::default() };
    let made = vm.create_guest_memfd(create).map_err(|error| error.to_string())?;
    let made = crate::ioctl_unsafe::made(u64::try_from(made).unwrap_or(u64::MAX));
    HostMemory::of_file(made.map_err(|errno| errno.to_string())?).map_err(|error| error.to_string())
}

#[test]
fn pages_of_a_guest_memfd_go_and_their_neighbours_stay() {
    let memory = match guest_memfd_to_look_into() {
        Ok(memory) => memory,
        Err(reason) => return crate::print_skip("pages of a guest_memfd", reason),
    };
    assert_eq!((memory.bytes(), memory.page_bytes()), (0x3000, 0x1000));
    let mapping = Mapping::of_file(memory.fd().unwrap(), 0, 0x3000).unwrap();
    mapping.write(0, &[7; 0x3000]).unwrap();
    discard(&memory, 0x1000, 0x1000).unwrap();
    assert_eq!(bytes_of(&mapping), [7, 0, 7]);
    discard(&memory, 0, 0x3000).unwrap();
    assert_eq!(bytes_of(&mapping), [0; 3]);
}

#[test]
fn a_memfd_cannot_be_cut_under_the_guest() {
    let memory = HostMemory::memfd(0x3000).unwrap();
    let cut = rustix::fs::ftruncate(memory.fd().unwrap(), 0x1000);
    assert_eq!(cut, Err(rustix::io::Errno::PERM));
    assert_eq!(memory.bytes(), 0x3000);
}

#[test]
fn huge_pages_that_a_range_covers_in_part_are_not_touched() {
    let memory = HostMemory::as_if_huge(8 << 20, 2 << 20);
    for (offset, bytes, expected) in [
        (0, 0x1000, None),
        (0x1000, 2 << 20, None),
        (0x1000, (4 << 20) - 0x1000, Some("fallocate 0x200000+0x200000")),
        (0, 2 << 20, Some("fallocate 0x0+0x200000")),
        (1 << 20, 6 << 20, Some("fallocate 0x200000+0x400000")),
        (u64::MAX - 0xfff, 0x1000, None),
    ] {
        let half = memory.at(0);
        let call = Discard::new(&half, offset, bytes).whole_pages().map(|call| call.to_string());
        assert_eq!(call.as_deref(), expected, "{offset:#x}+{bytes:#x}");
    }
}

#[test]
fn real_huge_pages_go_as_a_whole() {
    let test = "huge pages";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let made = rustix::fs::memfd_create("huge", flags).and_then(|fd| {
        rustix::fs::ftruncate(&fd, 4 << 20)?;
        rustix::fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 0, 4 << 20)?;
        Ok(fd)
    });
    let fd = match made {
        Ok(fd) => fd,
        Err(error) => return crate::print_skip(test, error),
    };
    let memory = HostMemory::of_file(fd).unwrap();
    assert_eq!(memory.page_bytes(), 2 << 20);
    let mapping = Mapping::of_file(memory.fd().unwrap(), 0, 4 << 20).unwrap();
    let byte_at = |offset| {
        let mut byte = [0];
        mapping.read(offset, &mut byte).unwrap();
        byte[0]
    };
    mapping.write(0, &vec![7; 4 << 20]).unwrap();
    discard(&memory, 0x1000, (4 << 20) - 0x1000).unwrap();
    assert_eq!([0, 0x1000, (2 << 20) - 1, 2 << 20, (4 << 20) - 1].map(byte_at), [7, 7, 7, 0, 0]);
}

#[test]
fn a_descriptor_is_kept_whatever_becomes_of_the_one_it_was_made_of() {
    let memory = HostMemory::memfd(0x1000).unwrap();
    let same = HostMemory::file(memory.fd().unwrap()).unwrap();
    drop(memory);
    assert_eq!((same.bytes(), same.page_bytes()), (0x1000, 0x1000));
    discard(&same, 0, 0x1000).unwrap();
}

#[test]
fn populated_memory_is_there_and_keeps_what_it_holds() {
    let file = HostMemory::memfd(0x3000).unwrap();
    let blocks = || rustix::fs::fstat(file.fd().unwrap()).unwrap().st_blocks / 8;
    file.populate(0x1000, 0x2000).unwrap();
    assert_eq!(blocks(), 2);
    let mapping = Mapping::of_file(file.fd().unwrap(), 0, 0x3000).unwrap();
    mapping.write(0x1000, &[7]).unwrap();
    file.populate(0, 0x3000).unwrap();
    assert_eq!(blocks(), 3);
    let mut byte = [0];
    mapping.read(0x1000, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    for memory in [&file, &HostMemory::anonymous(0x3000).unwrap()] {
        assert_eq!(memory.populate(0x1000, 0x3000), Err(Errno::EFAULT));
        assert_eq!(memory.populate(u64::MAX, 2), Err(Errno::EFAULT));
    }
}
