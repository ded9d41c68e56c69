use super::*;
use exeunt_abi::kvm::events::{VALID_ALL, VcpuEvents};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel};
use exeunt_proto::conversion::PageState;
use exeunt_proto::events::with_triple_fault;
use exeunt_proto::host::{Action, Events, Host};
use exeunt_proto::state::{Area, State};
use zerocopy::FromZeros;

const KERNEL: Kernel = Kernel { dialect: Dialect::Linux7_2, arch: Arch::X86 };

fn range(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

fn vcpu(id: u64) -> VcpuState {
    let events = with_triple_fault(VcpuEvents::new_zeroed(), id == 1);
    VcpuState { id, mp_state: 9, events, areas: vec![AreaState { kind: 6, bytes: vec![7; 144] }] }
}

/// One of everything, and two of what there can be two of.
fn sample() -> Snapshot {
    let mut origin = Origin::new(KERNEL, VmType::SwProtected);
    origin.enabled = vec![(Cap::EXIT_HYPERCALL, 0x1000), (Cap::X86_TRIPLE_FAULT_EVENT, 1)];
    let mut page = Box::new([0; PAGE_BYTES]);
    page[9] = 9;
    let device = |name: &str| DeviceState { name: name.into(), bytes: b"state".to_vec() };
    let mut snapshot = Snapshot {
        origin,
        needs: Vec::new(),
        slots: vec![
            SlotLayout { range: range(0, 16), has_private: true },
            SlotLayout { range: range(0x100, 1), has_private: false },
        ],
        attributes: vec![AttributeRun { range: range(4, 2), attributes: MEMORY_ATTRIBUTE_PRIVATE }],
        devices: vec![device("console"), device("disk")],
        vcpus: vec![vcpu(0), vcpu(1)],
        pages: BTreeMap::from([(1, page.clone()), (2, page.clone()), (0x100, page)]),
        unknown: vec![Section { id: 0x99, flags: 0, payload: b"newer".to_vec() }],
    };
    snapshot.needs = snapshot.needs();
    snapshot
}

fn bytes(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.write(Vec::new()).unwrap().0
}

fn read(bytes: &[u8]) -> Result<Snapshot, FormatError> {
    Snapshot::read(bytes, Limits::default()).map(|(snapshot, _)| snapshot)
}

/// The sections of a snapshot, without its end.
fn sections(snapshot: &Snapshot) -> Vec<Section> {
    let bytes = bytes(snapshot);
    let mut reader = Reader::new(bytes.as_slice(), Limits::default()).unwrap();
    std::iter::from_fn(|| reader.section().unwrap()).collect()
}

fn join(sections: &[Section]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for Section { id, flags, payload } in sections {
        writer.section(*id, *flags, payload).unwrap();
    }
    writer.finish().unwrap().0
}

#[test]
fn a_snapshot_is_read_as_it_was_written_with_sections_of_a_newer_writer() {
    let (bytes, digest) = sample().write(Vec::new()).unwrap();
    assert_eq!(Snapshot::read(bytes.as_slice(), Limits::default()), Ok((sample(), digest)));
    assert_eq!(sections(&sample()).len(), 4 + 2 + 2 + 2 + 1, "two pages are neighbours");
}

#[test]
fn attributes_that_differ_are_read_as_they_were_written() {
    let mut snapshot = sample();
    let attributes = MEMORY_ATTRIBUTE_PRIVATE | 1 << 4;
    snapshot.attributes.push(AttributeRun { range: range(8, 1), attributes });
    snapshot.needs = snapshot.needs();
    assert_eq!(read(&bytes(&snapshot)).err(), None);
    let need = Need { cap: Cap::MEMORY_ATTRIBUTES, why: Why::PrivateMemory, value: attributes };
    assert!(snapshot.needs.contains(&need), "{:?}", snapshot.needs);
}

#[test]
fn every_bit_of_a_snapshot_counts_and_every_cut_shows() {
    let mut small = sample();
    small.pages.clear();
    let bytes = bytes(&small);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped).is_err(), "bit {bit}");
    }
    let whole = self::bytes(&sample());
    for length in 0..whole.len() {
        assert!(matches!(read(&whole[..length]), Err(FormatError::Truncated { .. })), "{length} bytes");
    }
}

#[test]
fn each_section_that_is_missing_is_named_and_so_is_each_that_is_there_twice() {
    let all = sections(&sample());
    for (index, section) in all.iter().enumerate() {
        let mut fewer = all.clone();
        fewer.remove(index);
        let mut more = all.clone();
        more.insert(index, section.clone());
        let (fewer, more) = (read(&join(&fewer)), read(&join(&more)));
        match section.id {
            0x99 => {
                assert!(fewer.is_ok());
                assert_eq!(more.map(|it| it.unknown.len()), Ok(2), "what is skipped is not judged");
            }
            id::PAGES => {
                assert_eq!(fewer, Err(FormatError::Missing { id: id::PAGES }));
                assert!(matches!(more, Err(FormatError::Malformed { flaw: Flaw::Order { .. }, .. })));
            }
            id => {
                assert_eq!(fewer, Err(FormatError::Missing { id }));
                assert_eq!(more, Err(FormatError::Duplicate { id }));
            }
        }
    }
}

#[test]
fn sections_out_of_order_are_refused() {
    let all = sections(&sample());
    for index in 1..all.len() - 1 {
        let mut swapped = all.clone();
        swapped.swap(index - 1, index);
        if swapped[index].id != swapped[index - 1].id && all[index].id != 0x99 {
            assert!(read(&join(&swapped)).is_err(), "{index}");
        }
    }
}

#[test]
fn a_section_of_a_newer_writer_is_skipped_only_if_it_says_so() {
    let mut all = sections(&sample());
    all.last_mut().unwrap().flags = MUST_UNDERSTAND;
    assert_eq!(read(&join(&all)), Err(FormatError::UnknownSection { id: 0x99 }));
}

#[test]
fn every_section_that_is_one_byte_shorter_or_longer_is_malformed() {
    let all = sections(&sample());
    for index in 0..all.len() - 1 {
        // The bytes of a device are the device's.
        let is_free = all[index].id == id::DEVICE;
        for length in 0..all[index].payload.len() {
            let mut cut = all.clone();
            cut[index].payload.truncate(length);
            let got = read(&join(&cut));
            assert!(is_free && length >= 4 || got.is_err(), "{} cut to {length}", all[index].id);
            assert!(!matches!(got, Err(FormatError::Checksum { .. } | FormatError::Digest)));
        }
        let mut longer = all.clone();
        longer[index].payload.push(0);
        assert!(is_free || read(&join(&longer)).is_err(), "{} with a byte more", all[index].id);
    }
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let malformed = |change: fn(&mut Snapshot)| {
        let mut snapshot = sample();
        change(&mut snapshot);
        match read(&bytes(&snapshot)) {
            Err(FormatError::Malformed { id, flaw }) => (id, flaw),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        malformed(|it| drop(it.pages.insert(4, Box::new([1; PAGE_BYTES])))),
        (id::PAGES, Flaw::NoMemory { gfn: 4 }),
        "a private page"
    );
    assert_eq!(
        malformed(|it| drop(it.pages.insert(16, Box::new([1; PAGE_BYTES])))),
        (id::PAGES, Flaw::NoMemory { gfn: 16 }),
        "no slot"
    );
    // A kernel keeps an entry for each page that has attributes, memory or not.
    let private =
        |gfn, pages| AttributeRun { range: range(gfn, pages), attributes: MEMORY_ATTRIBUTE_PRIVATE };
    for (run, gfn) in [
        (private(15, 2), 16),
        (private(0x100, 1), 0x100),
        (private(0x200, 1 << 40), 0x200),
        (AttributeRun { attributes: 1 << 4, ..private(0x80, 1) }, 0x80),
    ] {
        let mut snapshot = sample();
        snapshot.attributes.push(run);
        snapshot.pages.clear();
        snapshot.needs = snapshot.needs();
        let refusal = FormatError::Malformed { id: id::ATTRIBUTES, flaw: Flaw::NoMemory { gfn } };
        assert_eq!(read(&bytes(&snapshot)).err(), Some(refusal));
    }
    let cap = Cap::X86_TRIPLE_FAULT_EVENT;
    assert_eq!(
        malformed(|it| it.needs.retain(|need| need.cap != Cap::X86_TRIPLE_FAULT_EVENT)),
        (id::NEEDS, Flaw::NeedNotSaid { cap })
    );
    assert_eq!(malformed(|it| it.slots.swap(0, 1)), (id::SLOTS, Flaw::Order { number: 0 }));
    assert_eq!(malformed(|it| it.needs.reverse()).0, id::NEEDS);
    assert_eq!(malformed(|it| it.origin.vm_type = 4), (id::ORIGIN, Flaw::UnreadableCarried));
    assert_eq!(
        malformed(|it| it.attributes.push(it.attributes[0])),
        (id::ATTRIBUTES, Flaw::Order { number: 4 })
    );
}

/// A target that offers capabilities.
struct Offers(Vec<(Cap, u64)>);

impl Target for Offers {
    fn arch(&self) -> Arch {
        Arch::X86
    }

    fn offers(&self, cap: Cap) -> u64 {
        self.0.iter().find(|(offered, _)| *offered == cap).map_or(0, |(_, value)| *value)
    }
}

fn all_offered() -> Vec<(Cap, u64)> {
    vec![
        (Cap::VM_TYPES, 0x3),
        (Cap::EXIT_HYPERCALL, 0x1000),
        (Cap::X86_TRIPLE_FAULT_EVENT, 1),
        (Cap::MEMORY_ATTRIBUTES, 8),
    ]
}

#[test]
fn a_target_is_refused_for_each_capability_that_it_lacks_and_for_nothing_else() {
    assert_eq!(sample().check(&Offers(all_offered())), Ok(()));
    for lacking in 0..all_offered().len() {
        let mut offers = all_offered();
        let (cap, _) = offers.remove(lacking);
        match sample().check(&Offers(offers)) {
            Err(Refusal::VmType { .. }) => assert_eq!(cap, Cap::VM_TYPES),
            Err(Refusal::Capability { cap: named, offered: 0, .. }) => assert_eq!(named, cap),
            other => panic!("{cap}: {other:?}"),
        }
    }
    let mut quiet = sample();
    quiet.vcpus[1].events.triple_fault_pending = 0;
    quiet.needs = quiet.needs();
    let without: Vec<_> =
        all_offered().into_iter().filter(|(cap, _)| *cap != Cap::X86_TRIPLE_FAULT_EVENT).collect();
    assert_eq!(quiet.check(&Offers(without)), Ok(()), "218 is needed only for one that is pending");
}

#[test]
fn a_target_refuses_what_it_does_not_know() {
    let refusal = |change: fn(&mut Snapshot)| {
        let mut snapshot = sample();
        change(&mut snapshot);
        snapshot.check(&Offers(all_offered())).unwrap_err()
    };
    let arch = refusal(|it| it.origin.arch = 2);
    assert_eq!(arch, Refusal::Arch { source_arch: "arm64".into(), target_arch: "x86_64".into() });
    assert!(matches!(refusal(|it| it.origin.vm_type = 77), Refusal::VmType { .. }));
    assert!(matches!(refusal(|it| it.origin.contents = Contents::OutsideOnly), Refusal::OutsideOnly { .. }));
    assert_eq!(refusal(|it| it.attributes[0].attributes = 0x18), Refusal::Attributes { bits: 0x10 });
    assert_eq!(refusal(|it| it.vcpus[1].areas[0].kind = 99), Refusal::UnknownState { vcpu: 1, kind: 99 });
    assert_eq!(refusal(|it| it.vcpus[0].events.flags = 0x40), Refusal::UnknownEvents { vcpu: 0, bits: 0x40 });
    assert!(matches!(
        refusal(|it| it.needs.push(Need { cap: Cap(9999), why: Why::Other(7), value: 1 })),
        Refusal::Capability { cap: Cap(9999), .. }
    ));
}

/// A VM that writes down what is done to it.
#[derive(Default)]
struct Machine {
    id: u64,
    memory: BTreeMap<u64, Page>,
    private: Vec<PageRange>,
    done: Vec<String>,
    events: Option<VcpuEvents>,
}

impl Host for Machine {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        match action {
            Action::SetAttributes { range, to: PageState::Private } => self.private.push(*range),
            Action::WriteGuest { gpa, bytes } => {
                assert!(
                    self.private.iter().all(|range| range.intersect(self::range(gpa.gfn().0, 1)).is_none())
                );
                self.memory.insert(gpa.gfn().0, Box::new((*bytes).try_into().unwrap()));
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(())
    }

    fn read_guest(&mut self, gpa: Gpa, to: &mut [u8]) -> Result<(), Errno> {
        to.fill(0);
        if let Some(page) = self.memory.get(&gpa.gfn().0) {
            to.copy_from_slice(page.as_slice());
        }
        Ok(())
    }
}

impl Events for Machine {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        Ok(self.events.unwrap_or_else(VcpuEvents::new_zeroed))
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        self.done.push("EVENTS".into());
        self.events = Some(*events);
        Ok(())
    }

    fn event_flags(&self) -> u32 {
        VALID_ALL
    }
}

impl State for Machine {
    fn vcpu_id(&self) -> u64 {
        self.id
    }

    fn mp_state(&mut self) -> Result<u32, Errno> {
        Ok(77)
    }

    fn set_mp_state(&mut self, mp_state: u32) -> Result<(), Errno> {
        self.done.push(format!("MP_STATE {mp_state}"));
        if mp_state == 77 { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn area(&mut self, area: Area, to: &mut [u8]) -> Result<Option<usize>, Errno> {
        assert_eq!(to.len(), area.max_bytes());
        to.fill(3);
        Ok((area != Area::Xsave).then_some(to.len()))
    }

    fn set_area(&mut self, area: Area, from: &[u8]) -> Result<(), Errno> {
        self.done.push(format!("{area} {}", from.len()));
        Ok(())
    }
}

#[test]
fn a_vcpu_takes_its_areas_in_order_then_mp_state_verbatim_then_its_events() {
    let mut saved = vcpu(1);
    saved.areas.insert(0, AreaState { kind: 2, bytes: vec![0; 312] });
    let mut machine = Machine { id: 1, ..Machine::default() };
    assert_eq!(restore_vcpu(&saved, &mut machine), Ok(()));
    assert_eq!(machine.done, ["SREGS 312", "REGS 144", "MP_STATE 9", "EVENTS"]);
    assert_eq!(machine.events, Some(saved.events));
    // A number that no kernel knows goes to the kernel all the same, which has the say.
    saved.mp_state = 77;
    let refused = restore_vcpu(&saved, &mut machine);
    assert_eq!(refused, Err(RestoreError::MpState { vcpu: 1, mp_state: 77, errno: Errno::EINVAL }));
    saved.id = 2;
    assert_eq!(restore_vcpu(&saved, &mut machine), Err(RestoreError::Vcpu { saved: 2, found: 1 }));
}

#[test]
fn attributes_are_set_before_pages_are_written_and_all_of_them_are() {
    let mut machine = Machine::default();
    assert_eq!(sample().restore_memory(&mut machine), Ok(()));
    assert_eq!(machine.private, [range(4, 2)]);
    assert_eq!(machine.memory, sample().pages);
}

fn layout() -> Layout {
    Layout { slots: sample().slots, attributes: sample().attributes }
}

#[test]
fn a_saved_vm_has_its_shared_pages_that_are_not_zero_and_what_the_ioctls_said() {
    let mut host = Machine { memory: sample().pages, ..Machine::default() };
    host.memory.insert(5, Box::new([1; PAGE_BYTES]));
    let mut vcpu = Machine { id: 3, events: Some(vcpu(1).events), ..Machine::default() };
    let mut drained = [Drained::assume(&mut vcpu, 0)];
    let origin = Origin::new(KERNEL, VmType::SwProtected);
    let snapshot =
        save(origin.clone(), layout(), PrivatePages::LeaveBehind, &mut host, &mut drained, Vec::new())
            .unwrap();
    assert_eq!(snapshot.pages, sample().pages, "no zero page, and no page that is private");
    assert_eq!((snapshot.vcpus[0].id, snapshot.vcpus[0].mp_state), (3, 77));
    let kinds: Vec<_> = snapshot.vcpus[0].areas.iter().map(|area| area.kind).collect();
    assert_eq!(kinds, [1, 2, 3, 5, 6], "an area that the kernel half lacks is left out");
    assert_eq!(snapshot.needs, snapshot.needs());
    assert_eq!(read(&bytes(&snapshot)), Ok(snapshot));
    let refused = save(origin, layout(), PrivatePages::Refuse, &mut host, &mut drained, Vec::new());
    assert_eq!(refused, Err(SaveError::Private { gfn: 4, pages: 2 }));
}

#[test]
fn a_confidential_vm_is_not_saved_but_for_what_its_vmm_sees() {
    for vm_type in [VmType::Sev, VmType::SevEs, VmType::Snp, VmType::Tdx] {
        let (mut host, mut vcpu) = (Machine::default(), Machine::default());
        let mut drained = [Drained::assume(&mut vcpu, 0)];
        let origin = Origin::new(KERNEL, vm_type);
        let refused =
            save(origin.clone(), layout(), PrivatePages::LeaveBehind, &mut host, &mut drained, Vec::new());
        assert_eq!(refused, Err(SaveError::Confidential { vm_type }));
        let outside = save::save_outside(origin, layout(), &mut drained, Vec::new()).unwrap();
        assert!(outside.pages.is_empty() && outside.vcpus[0].areas.is_empty());
        assert_eq!((outside.vcpus[0].mp_state, &outside.attributes), (77, &sample().attributes));
        assert_eq!(read(&bytes(&outside)), Ok(outside.clone()));
        let refused = outside.check(&Offers(vec![(Cap::VM_TYPES, u64::MAX)]));
        assert!(matches!(refused, Err(Refusal::OutsideOnly { .. })));
    }
}

#[test]
fn a_vcpu_inside_of_a_nested_guest_is_not_saved() {
    for flags in 0..=7u16 {
        let mut vcpu = Machine::default();
        let saved = save_vcpu(&mut Drained::assume(&mut vcpu, flags));
        assert_eq!(saved.err(), (flags & 4 != 0).then_some(SaveError::Nested { vcpu: 0 }), "{flags:#x}");
    }
}

#[test]
fn the_layout_has_the_private_pages_that_the_vmm_knows_of_and_no_others() {
    use crate::memory::{GuestMemory, MemorySlot, PageInfo};
    let slots = [(0, 16, true), (0x100, 1, false), (0x200, 8, true)];
    let slots = slots.map(|(gfn, pages, has_private)| SlotLayout { range: range(gfn, pages), has_private });
    let known = slots.map(|slot| MemorySlot { range: slot.range, has_private: slot.has_private });
    let memory = GuestMemory::new(known).unwrap();
    assert_eq!(Layout::of(slots.to_vec(), &memory).attributes, []);
    memory.assume(range(4, 3), PageInfo::fresh(PageState::Private));
    // What else is known of a page makes no second run of it.
    let kept = PageInfo { has_shared: true, ..PageInfo::fresh(PageState::Private) };
    memory.assume(range(7, 1), kept);
    memory.assume(range(0x207, 1), kept);
    let run = |gfn, pages| AttributeRun { range: range(gfn, pages), attributes: MEMORY_ATTRIBUTE_PRIVATE };
    assert_eq!(Layout::of(slots.to_vec(), &memory).attributes, [run(4, 4), run(0x207, 1)]);
}
