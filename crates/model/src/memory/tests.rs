use super::*;
use crate::faults::{Fault, FaultPlan, Point};
use exeunt_abi::Dialect;
use exeunt_abi::rmp::{Fields, State};

fn memory_of(dialect: Dialect) -> (Memory, GuestMemfd) {
    let kernel = Kernel { dialect, arch: Arch::X86 };
    let mut memory = Memory::new(kernel, VmType::Snp, Arc::new(SparseMemory::new()), Faults::default());
    let file = memory.add_file(0x10_0000, 0).unwrap();
    let slot = Slot::shared(0, Gpa(0x1000), 0x3000).unwrap().with_guest_memfd(file, 0);
    memory.add_slot(slot).unwrap();
    (memory, file)
}

fn memory() -> (Memory, GuestMemfd) {
    memory_of(Dialect::Linux7_2)
}

fn frames(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

#[test]
fn shared_memory_reads_back_across_pages_and_is_zero_after_a_discard() {
    let (mut memory, _) = memory();
    let mut got = [0; 4];
    memory.write_shared(Gpa(0x1ffe), b"abcd").unwrap();
    memory.read_shared(Gpa(0x1ffe), &mut got).unwrap();
    assert_eq!(&got, b"abcd");
    memory.discard_shared(frames(2, 1));
    memory.read_shared(Gpa(0x1ffe), &mut got).unwrap();
    assert_eq!(&got, b"ab\0\0");
}

#[test]
fn memory_without_a_slot_faults() {
    let (mut memory, _) = memory();
    for gpa in [0, 0xfff, 0x4000, 0x3fff, u64::MAX] {
        assert_eq!(memory.write_shared(Gpa(gpa), &[1, 2]), Err(Errno::EFAULT), "{gpa:#x}");
    }
    assert_eq!(memory.read_u64(Gpa(0x3ffc)), Err(Errno::EFAULT));
}

#[test]
fn a_private_page_is_not_the_shared_page_of_its_frame() {
    let (mut memory, file) = memory();
    memory.write_shared(Gpa(0x2000), b"host").unwrap();
    assert!(memory.private_pfn(Gfn(2)).is_ok());
    memory.write_private(Gfn(2), 0, b"guest");
    let mut got = [0; 5];
    memory.read_private(Gfn(2), 0, &mut got);
    assert_eq!(&got, b"guest");
    memory.read_shared(Gpa(0x2000), &mut got).unwrap();
    assert_eq!(&got, b"host\0");
    assert_eq!(memory.present_pages(file), 1);
    memory.discard_private(frames(0, 100));
    assert_eq!(memory.present_pages(file), 0);
    memory.read_private(Gfn(2), 0, &mut got);
    assert_eq!(got, [0; 5]);
    assert_eq!(memory.private_pfn(Gfn(9)), Err(Errno::EINVAL));
}

#[test]
fn a_launch_page_is_pre_guest_until_the_firmware_has_taken_it() {
    let (mut memory, _) = memory();
    memory.set_attributes(frames(1, 3), PageState::Private);
    let content = Box::new([7; PAGE]);
    assert_eq!(memory.prepare_launch_page(Gfn(1), Some(&content)), Ok(()));
    assert_eq!(memory.rmp_entry(Gfn(1)).state(), State::PreGuest);
    assert_eq!(memory.check_invariants(), Ok(()));
    memory.finish_launch_page(Gfn(1), [1, 3, 0]);
    let entry = memory.rmp_entry(Gfn(1));
    assert_eq!(entry.state(), State::GuestValid);
    assert_eq!([0, 1, 2, 3].map(|level| entry.permissions(level)), [15, 1, 3, 0]);
    let mut got = [0; 3];
    memory.read_private(Gfn(1), 4093, &mut got);
    assert_eq!(got, [7; 3]);
    assert_eq!(memory.prepare_launch_page(Gfn(1), None), Err(Errno::EEXIST));

    assert_eq!(memory.prepare_launch_page(Gfn(2), None), Ok(()));
    memory.reclaim_launch_page(Gfn(2));
    assert_eq!(memory.rmp_entry(Gfn(2)).state(), State::Hypervisor);
    assert_eq!(memory.prepare_launch_page(Gfn(2), None), Ok(()), "and can be tried again");
    assert_eq!(memory.check_invariants(), Ok(()));
}

#[test]
fn a_launch_page_is_refused_as_the_kernel_refuses_it() {
    for (dialect, both) in [(Dialect::Linux7_2, Errno::EINVAL), (Dialect::Linux6_12, Errno::EEXIST)] {
        let (mut memory, file) = memory_of(dialect);
        memory.add_slot(Slot::shared(1, Gpa(0x9000), 0x1000).unwrap()).unwrap();
        assert_eq!(memory.prepare_launch_page(Gfn(8), None), Err(Errno::EINVAL), "no slot");
        assert_eq!(memory.prepare_launch_page(Gfn(9), None), Err(Errno::EINVAL), "no file");
        assert_eq!(memory.prepare_launch_page(Gfn(1), None), Err(Errno::EINVAL), "no attribute");
        assert!(memory.private_pfn(Gfn(1)).is_ok());
        assert_eq!(memory.prepare_launch_page(Gfn(1), None), Err(both), "assigned and no attribute");
        memory.set_attributes(frames(1, 3), PageState::Private);
        assert_eq!(memory.prepare_launch_page(Gfn(1), None), Err(Errno::EEXIST), "assigned");
        memory.faults.set(FaultPlan::new().with(Point::GmemPage, 0, Fault::Fails(Errno::ENOMEM)));
        assert_eq!(memory.prepare_launch_page(Gfn(2), None), Err(Errno::ENOMEM));
        memory.close_file(file);
        assert_eq!(memory.prepare_launch_page(Gfn(2), None), Err(Errno::EFAULT), "a closed file");
    }
}

#[test]
fn a_vcpu_learns_that_the_page_of_its_vmsa_is_gone() {
    let (mut memory, file) = memory();
    memory.vmsas.watch(0, Some(Gfn(2)));
    memory.vmsas.watch(1, Some(Gfn(3)));
    memory.vmsas.watch(2, Some(Gfn(2)));
    memory.vmsas.watch(2, None);
    memory.discard_private(frames(1, 1));
    assert!((0..3).all(|vcpu| !memory.vmsas.take_reload(vcpu)), "another page");
    memory.discard_private(frames(2, 1));
    assert_eq!([0, 1, 2].map(|vcpu| memory.vmsas.take_reload(vcpu)), [true, false, false]);
    assert!(!memory.vmsas.take_reload(0), "a request is served once");
    memory.close_file(file);
    assert_eq!([0, 1, 2].map(|vcpu| memory.vmsas.take_reload(vcpu)), [true, true, false]);
}

#[test]
fn an_invariant_that_is_broken_is_named() {
    type Break = fn(&mut Memory);
    let breaks: [(&str, Break); 7] = [
        ("not assigned to this guest", |memory| memory.asid = 9),
        ("not in its file", |memory| memory.files[0].truncate(0..1)),
        ("Reclaim", |memory| {
            memory.asid = 0;
            let fields = Fields { assigned: true, is_2m: false, immutable: false, gfn: 1, asid: 0 };
            memory.rmp.set(FIRST_PFN, RmpEntry::updated(fields));
        }),
        ("its entry says", |memory| {
            let fields = Fields { assigned: true, is_2m: false, immutable: false, gfn: 7, asid: 1 };
            memory.rmp.set(FIRST_PFN, RmpEntry::updated(fields));
        }),
        ("in no file", |memory| {
            memory.rmp.prepare(5..6, 5, 1);
        }),
        ("no page for a VMSA", |memory| {
            let entry = memory.rmp.get(FIRST_PFN).with_vmsa(true);
            memory.rmp.set(FIRST_PFN, entry);
        }),
        ("denies VMPL 0", |memory| {
            let entry = memory.rmp.get(FIRST_PFN).with_permissions(0, 1);
            memory.rmp.set(FIRST_PFN, entry);
        }),
    ];
    for (words, break_it) in breaks {
        let (mut memory, _) = memory();
        memory.private_pfn(Gfn(1)).unwrap();
        assert_eq!(memory.check_invariants(), Ok(()));
        break_it(&mut memory);
        let broken = memory.check_invariants().unwrap_err();
        assert!(broken.contains(words), "{broken} is not about {words}");
    }
}
