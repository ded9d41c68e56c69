use super::*;
use crate::host_memory::HostMemory;
use exeunt_abi::Gfn;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn range(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

fn add(memory: &Memory, gpa: u64, bytes: u64, shared: Half, private: Option<Half>) -> Result<(), KvmError> {
    memory.add(Gpa(gpa), bytes, |_| Slot::new(Gpa(gpa), bytes, shared, private))
}

/// The calls that a discard makes.
fn calls(memory: &Memory, range: PageRange, backing: Backing) -> Result<Vec<String>, Errno> {
    let mut calls = Vec::new();
    memory.table().discard_with(range, backing, |call| {
        calls.push(call.to_string());
        Ok(())
    })?;
    Ok(calls)
}

/// Pages 1-2 and 3-4 are next to each other in a file, page 5 is of another, and page 6 of the first again but further
/// on; pages 8-9 have memory for private pages too.
fn five_slots() -> Memory {
    let memory = Memory::default();
    let (file, other) = (HostMemory::memfd(0x10000).unwrap(), HostMemory::memfd(0x10000).unwrap());
    let anonymous = HostMemory::anonymous(0x2000).unwrap();
    add(&memory, 0x8000, 0x2000, anonymous.at(0), Some(other.at(0x4000))).unwrap();
    add(&memory, 0x3000, 0x2000, file.at(0x3000), None).unwrap();
    add(&memory, 0x1000, 0x2000, file.at(0x1000), None).unwrap();
    add(&memory, 0x5000, 0x1000, other.at(0x5000), None).unwrap();
    add(&memory, 0x6000, 0x1000, file.at(0x7000), None).unwrap();
    memory
}

#[test]
fn adjacent_slots_with_adjacent_memory_take_one_call() {
    let memory = five_slots();
    let shared = |range| calls(&memory, range, Backing::Shared).unwrap();
    assert_eq!(shared(range(1, 4)), ["fallocate 0x1000+0x4000"]);
    assert_eq!(shared(range(2, 2)), ["fallocate 0x2000+0x2000"]);
    assert_eq!(
        shared(range(1, 6)),
        ["fallocate 0x1000+0x4000", "fallocate 0x5000+0x1000", "fallocate 0x7000+0x1000"]
    );
    assert_eq!(shared(range(9, 1)), ["madvise 0x1000+0x1000"]);
    assert_eq!(calls(&memory, range(8, 2), Backing::Private).unwrap(), ["fallocate 0x4000+0x2000"]);
}

#[test]
fn huge_pages_that_stay_are_no_success_and_the_others_are_given_back() {
    let memory = Memory::default();
    let huge = HostMemory::as_if_huge(8 << 20, 2 << 20);
    add(&memory, 0, 8 << 20, HostMemory::anonymous(8 << 20).unwrap().at(0), Some(huge.at(0))).unwrap();
    for (pages, made, result) in [
        (range(0, 0x200), 1, Ok(())),
        (range(0, 0x201), 1, Err(Errno::EOPNOTSUPP)),
        (range(1, 0x1ff), 0, Err(Errno::EOPNOTSUPP)),
    ] {
        let mut calls = 0;
        let discarded = memory.table().discard_with(pages, Backing::Private, |_| {
            calls += 1;
            Ok(())
        });
        assert_eq!((calls, discarded), (made, result), "{pages}");
    }
}

#[test]
fn a_discard_that_cannot_be_done_makes_no_call() {
    let memory = five_slots();
    for (outside, backing, errno) in [
        (range(0, 1), Backing::Shared, Errno::EFAULT),
        (range(6, 2), Backing::Shared, Errno::EFAULT),
        (range(6, 3), Backing::Shared, Errno::EFAULT),
        (range(9, 2), Backing::Private, Errno::EFAULT),
        (range(5, 1), Backing::Private, Errno::EOPNOTSUPP),
    ] {
        let mut made = 0;
        let result = memory.table().discard_with(outside, backing, |_| {
            made += 1;
            Ok(())
        });
        assert_eq!((result, made), (Err(errno), 0), "{outside}");
    }
}

#[test]
fn the_first_call_that_fails_is_the_last() {
    let memory = five_slots();
    let mut made = 0;
    let result = memory.table().discard_with(range(1, 6), Backing::Shared, |_| {
        made += 1;
        if made == 2 { Err(Errno::EIO) } else { Ok(()) }
    });
    assert_eq!((result, made), (Err(Errno::EIO), 2));
}

#[test]
fn every_range_is_cut_where_the_slots_are() {
    let memory = five_slots();
    let table = memory.table();
    let covered = |page| (1..7).contains(&page) || (8..10).contains(&page);
    for (gfn, pages) in (0..12).flat_map(|gfn| (0..12).map(move |pages| (gfn, pages))) {
        let inside = (gfn..gfn + pages).all(covered);
        let pieces = table.pieces(Gpa(gfn << 12), pages << 12);
        let bytes = pieces.map(|pieces| pieces.map(|piece| piece.bytes).sum::<u64>());
        assert_eq!(bytes, if inside { Ok(pages << 12) } else { Err(Errno::EFAULT) }, "{gfn} {pages}");
    }
}

/// Two vCPUs convert overlapping ranges, and the discard of the one takes as long as the other needs.
#[test]
fn nobody_waits_for_a_system_call_of_another() {
    let memory = five_slots();
    let (started, is_started) = mpsc::channel();
    let (finish, is_finished) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            memory.table().discard_with(range(8, 2), Backing::Shared, move |call| {
                started.send(()).unwrap();
                is_finished.recv_timeout(PATIENCE).map_err(|_| Errno::ETIMEDOUT)?;
                call.make()
            })
        });
        is_started.recv_timeout(PATIENCE).unwrap();
        memory.table().discard(range(9, 1), Backing::Shared).unwrap();
        memory.table().discard(range(8, 1), Backing::Private).unwrap();
        memory.table().write(Gpa(0x8fff), &[7; 2]).unwrap();
        let mut bytes = [0; 2];
        memory.table().read(Gpa(0x8fff), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 2]);
        add(&memory, 0xa000, 0x1000, HostMemory::anonymous(0x1000).unwrap().at(0), None).unwrap();
        memory.table().write(Gpa(0xa000), &[7]).unwrap();
        assert!(memory.remove(Gpa(0x8000)), "even the slot can go");
        assert_eq!(memory.table().read(Gpa(0x8fff), &mut bytes), Err(Errno::EFAULT));
        assert!(!slow.is_finished());
        finish.send(()).unwrap();
        assert_eq!(slow.join().unwrap(), Ok(()));
    });
}

#[test]
fn memory_that_does_not_fit_is_refused_with_the_reason() {
    let memory = Memory::default();
    let file = HostMemory::memfd(0x2000).unwrap();
    let anonymous = HostMemory::anonymous(0x2000).unwrap();
    let flaw = |shared, private| match add(&memory, 0x1000, 0x2000, shared, private) {
        Err(KvmError::BadMemory { gpa: Gpa(0x1000), bytes: 0x2000, flaw }) => flaw,
        other => panic!("{other:?}"),
    };
    for (shared, private, expected) in [
        (file.at(0x1000), None, MemoryFlaw::PastEnd),
        (anonymous.at(u64::MAX - 0xfff), None, MemoryFlaw::PastEnd),
        (anonymous.at(0), Some(file.at(0x1000)), MemoryFlaw::PastEnd),
    ] {
        assert_eq!(flaw(shared, private), expected);
    }
    let large = HostMemory::memfd(0x4000).unwrap();
    assert_eq!(flaw(large.at(0x800), None), MemoryFlaw::PartialPage { page_bytes: 0x1000 });
    add(&memory, 0x1000, 0x2000, anonymous.at(0), Some(file.at(0))).unwrap();
}

#[test]
fn a_file_that_nobody_mapped_is_discarded_and_not_copied() {
    let memory = five_slots();
    assert_eq!(memory.table().write(Gpa(0x1000), &[7]), Err(Errno::EFAULT));
    assert_eq!(memory.table().discard(range(1, 1), Backing::Shared), Ok(()));
    assert_eq!(memory.table().populate(range(1, 1)), Ok(()));
}
