//! Page-state changes by page: what exits, what the descriptor holds afterwards, and what is not checked.

use crate::world::{GHCB, Seen, answer, hypercall, launched, reason, registered, run_to_halt, snp};
use exeunt_abi::ghcb::exit_code;
use exeunt_abi::ghcb::page::{self, malformed};
use exeunt_abi::ghcb::psc::{self, Entry, operation, result};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::{ExitReason, map_gpa_range};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::snp::Answer;
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::{Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;

const BUFFER: u64 = GHCB.0 + page::SHARED_BUFFER;
const PRIVATE: u8 = operation::PRIVATE;
const SHARED: u8 = operation::SHARED;

/// A request: where the descriptor lies, its header, and its entries.
#[derive(Clone, Debug)]
struct Request {
    scratch: u64,
    cur: u64,
    end: u64,
    entries: Vec<Entry>,
}

impl Request {
    fn of(entries: &[Entry]) -> Self {
        Self { scratch: BUFFER, cur: 0, end: entries.len() as u64 - 1, entries: entries.to_vec() }
    }
}

/// A guest that makes these requests. An empty list of entries leaves those of the request before.
fn asking(vm: &Vm, requests: Vec<Request>) -> (Vcpu, Seen<Answer>) {
    let seen = Seen::new();
    let log = seen.clone();
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        for Request { scratch, cur, end, entries } in requests {
            let mut descriptor = (end << 16 | cur).to_le_bytes().to_vec();
            descriptor.extend(entries.iter().flat_map(|entry| entry.0.to_le_bytes()));
            cpu.write(Gpa(scratch), &descriptor, Access::Shared).await?;
            let fields = [(page::SW_SCRATCH, scratch)];
            log.push(ghcb.request(&cpu, exit_code::PSC, [0, 0], &fields).await?);
        }
        Ok(())
    };
    (vm.create_vcpu(0, program).unwrap(), seen)
}

/// Runs the guest, answers every exit with 0 and returns the arguments of each.
fn exits(vcpu: &mut Vcpu) -> Vec<[u64; 3]> {
    let mut exits = Vec::new();
    loop {
        assert_eq!(vcpu.enter(), Ok(()));
        if reason(vcpu) == ExitReason::HLT {
            return exits;
        }
        let [gpa, pages, attributes, ..] = hypercall(vcpu).args;
        exits.push([gpa, pages, attributes]);
        answer(vcpu, 0);
    }
}

fn entry(vm: &Vm, index: u64) -> Entry {
    let mut bytes = [0; 8];
    vm.read_shared(Gpa(BUFFER + 8 + 8 * index), &mut bytes).unwrap();
    Entry(u64::from_le_bytes(bytes))
}

/// `cur_entry` and `end_entry`.
fn header(vm: &Vm) -> [u16; 2] {
    let mut bytes = [0; 4];
    vm.read_shared(Gpa(BUFFER), &mut bytes).unwrap();
    [[bytes[0], bytes[1]], [bytes[2], bytes[3]]].map(u16::from_le_bytes)
}

fn infos(seen: &Seen<Answer>) -> Vec<[u64; 2]> {
    seen.take().into_iter().map(|got| [got.info_1, got.info_2]).collect()
}

#[test]
fn all_253_entries_of_mixed_operations_exit_in_batches_of_what_follows_each_other() {
    // Five runs: private pages, shared pages, an operation that KVM does not know, 2 MiB pages, and the rest.
    let entries: Vec<Entry> = (0..253)
        .map(|index: u64| match index {
            0..100 => Entry::new(0x1000 + index, PRIVATE, false),
            100..150 => Entry::new(0x1000 + index, SHARED, false),
            150..160 => Entry::new(0x1000 + index, operation::PSMASH, false),
            160..170 => Entry::new(0x2000 + 512 * (index - 160), PRIVATE, true),
            _ => Entry::new(0x8000 + index, SHARED, false),
        })
        .collect();
    let vm = snp();
    let (mut vcpu, seen) = asking(&vm, vec![Request::of(&entries)]);
    let (encrypted, huge) = (map_gpa_range::ENCRYPTED, map_gpa_range::PAGE_SIZE_2M);
    let expected = [
        [0x100_0000, 100, encrypted],
        [0x106_4000, 50, 0],
        [0x200_0000, 5120, encrypted | huge],
        [0x80a_a000, 83, 0],
    ];
    assert_eq!(exits(&mut vcpu), expected);
    assert_eq!(infos(&seen), [[0, 0]]);
    assert_eq!(header(&vm), [253, 252]);
    for (index, before) in (0..).zip(&entries) {
        assert_eq!(entry(&vm, index), before.with_cur_page(before.pages()), "entry {index}");
    }
}

#[test]
fn einval_in_the_second_batch_leaves_the_first_done_and_the_state_reset() {
    let entries = [0x200, 0x300, 0x400].map(|gfn| Entry::new(gfn, PRIVATE, false));
    for errno in [Errno::EINVAL, Errno::EAGAIN] {
        let vm = snp();
        let (mut vcpu, seen) = asking(&vm, vec![Request::of(&entries), Request::of(&entries[..1])]);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, 0);
        assert_eq!(vcpu.enter(), Ok(()));
        answer(&mut vcpu, u64::try_from(errno.0).unwrap());
        // The second request exits as if nothing had happened before.
        assert_eq!(vcpu.enter(), Ok(()));
        assert_eq!(hypercall(&vcpu).args[..2], [0x20_0000, 1]);
        assert_eq!(infos(&seen), [[0, result::GENERIC]]);
        assert_eq!((0..3).map(|index| entry(&vm, index).cur_page()).collect::<Vec<_>>()[1..], [0, 0]);
        answer(&mut vcpu, 0);
        run_to_halt(&mut vcpu);
        assert_eq!((infos(&seen), vcpu.warnings()), (vec![[0, 0]], 0));
    }
}

#[test]
fn an_answer_of_7_fails_once_the_next_request_is_generic_and_the_one_after_works() {
    let vm = snp();
    let request = Request::of(&[Entry::new(0x200, PRIVATE, false)]);
    let (mut vcpu, seen) = asking(&vm, vec![request; 3]);
    assert_eq!(vcpu.enter(), Ok(()));
    answer(&mut vcpu, 7);
    assert_eq!(vcpu.enter(), Err(Errno::EINVAL));
    assert_eq!(vcpu.enter(), Ok(()), "the guest goes on, and the third request exits");
    assert_eq!(hypercall(&vcpu).args[..2], [0x20_0000, 1]);
    assert_eq!((infos(&seen), vcpu.warnings()), (vec![[0, 0], [0, result::GENERIC]], 1));
    answer(&mut vcpu, 0);
    run_to_halt(&mut vcpu);
    assert_eq!(infos(&seen), [[0, 0]]);
}

#[test]
fn a_page_size_flipped_under_the_request_decides_what_done_means() {
    for (before, after, cur_page) in [(false, true, 512), (true, false, 1)] {
        let vm = snp();
        let (mut vcpu, seen) = asking(&vm, vec![Request::of(&[Entry::new(0x200, PRIVATE, before)])]);
        assert_eq!(vcpu.enter(), Ok(()));
        let flipped = Entry::new(0x200, PRIVATE, after);
        vm.write_shared(Gpa(BUFFER + 8), &flipped.0.to_le_bytes()).unwrap();
        answer(&mut vcpu, 0);
        run_to_halt(&mut vcpu);
        assert_eq!((infos(&seen), entry(&vm, 0).cur_page()), (vec![[0, 0]], cur_page));
    }
}

#[test]
fn a_header_is_done_when_it_begins_behind_its_end_and_invalid_when_it_ends_behind_the_buffer() {
    let at = |scratch: u64, cur, end| Request { scratch, cur, end, entries: Vec::new() };
    let last = GHCB.0 + page::SHARED_BUFFER_END;
    let requests = vec![
        at(BUFFER, 1, 0),
        at(BUFFER, 0xffff, 252),
        at(BUFFER, 0, 253),
        at(BUFFER, 0, 0xffff),
        // Room for the header alone: there is no entry that could be the last one.
        at(last - 8, 0, 0),
        at(last - 15, 0, 0),
        at(last - 7, 0, 0),
        at(last, 0, 0),
        at(BUFFER - 8, 0, 0),
    ];
    let (mut vcpu, seen) = asking(&snp(), requests);
    run_to_halt(&mut vcpu);
    let (done, invalid, unusable) = ([0, 0], [0, result::INVALID_HDR], [2, malformed::INVALID_SCRATCH_AREA]);
    let expected = [done, done, invalid, invalid, invalid, invalid, unusable, unusable, unusable];
    assert_eq!(infos(&seen), expected);
}

#[test]
fn one_entry_fits_16_bytes_before_the_end_of_the_buffer_at_any_alignment() {
    for offset in 16..24 {
        let scratch = GHCB.0 + page::SHARED_BUFFER_END - offset;
        let request = Request { scratch, cur: 0, end: 0, entries: vec![Entry::new(0x200, SHARED, false)] };
        let (mut vcpu, seen) = asking(&snp(), vec![request]);
        assert_eq!(exits(&mut vcpu), [[0x20_0000, 1, 0]], "{offset} bytes");
        assert_eq!(infos(&seen), [[0, 0]]);
    }
}

#[test]
fn the_capability_is_looked_at_when_a_request_begins_and_in_linux_6_12_after_each_batch() {
    let entries = [0x200, 0x300].map(|gfn| Entry::new(gfn, PRIVATE, false));
    for (dialect, second_exit) in [(Dialect::Linux7_2, true), (Dialect::Linux6_12, false)] {
        let vm = launched(dialect, VmType::Snp);
        let (mut vcpu, seen) = asking(&vm, vec![Request::of(&entries), Request::of(&entries)]);
        assert_eq!(vcpu.enter(), Ok(()));
        vm.enable_cap(Cap::EXIT_HYPERCALL, 0).unwrap();
        answer(&mut vcpu, 0);
        let first = if second_exit { 0 } else { result::GENERIC };
        assert_eq!(exits(&mut vcpu).len(), usize::from(second_exit), "{dialect}");
        assert_eq!(infos(&seen), [[0, first], [0, result::GENERIC]], "{dialect}");
    }
}

#[test]
fn entries_are_checked_when_they_are_reached_and_earlier_ones_stay_done() {
    let bad = [
        Entry::new(0x201, PRIVATE, true),
        Entry::new(0x400, PRIVATE, false).with_cur_page(2),
        Entry::new(0x400, PRIVATE, true).with_cur_page(513),
    ];
    for last in bad {
        let vm = snp();
        let (mut vcpu, seen) = asking(&vm, vec![Request::of(&[Entry::new(0x200, PRIVATE, false), last])]);
        assert_eq!(exits(&mut vcpu).len(), 1);
        assert_eq!(infos(&seen), [[0, result::INVALID_ENTRY]]);
        assert_eq!((header(&vm), entry(&vm, 0).cur_page(), entry(&vm, 1)), ([1, 1], 1, last));
    }
}

#[test]
fn unknown_operations_are_done_without_an_exit_and_still_checked() {
    let vm = snp();
    let unknown = [0, 3, 4, 5, 15].map(|operation| Entry::new(0x200, operation, false));
    let (mut vcpu, seen) = asking(&vm, vec![Request::of(&unknown), Request::of(&[Entry::new(1, 3, true)])]);
    assert!(exits(&mut vcpu).is_empty());
    assert_eq!(infos(&seen), [[0, 0], [0, result::INVALID_ENTRY]]);
}

#[test]
fn frames_without_memory_are_passed_on() {
    let far = 0xff_ffff_f000;
    let (mut vcpu, seen) = asking(&snp(), vec![Request::of(&[Entry::new(far, SHARED, false)])]);
    assert_eq!(exits(&mut vcpu), [[far << 12, 1, 0]]);
    assert_eq!(infos(&seen), [[0, 0]]);
}

#[test]
fn the_rest_of_a_2m_entry_is_counted_in_4k_and_keeps_its_size_bit() {
    let entries = [Entry::new(0x400, PRIVATE, true).with_cur_page(500), Entry::new(0x600, PRIVATE, true)];
    let (mut vcpu, _) = asking(&snp(), vec![Request::of(&entries)]);
    let attributes = map_gpa_range::ENCRYPTED | map_gpa_range::PAGE_SIZE_2M;
    let expected = [[0x5f_4000, 12, attributes], [0x60_0000, 512, attributes]];
    assert_eq!(exits(&mut vcpu), expected, "what really follows is not merged");
    // What follows by the pages that are left, and not by address, is.
    let crafted = [entries[0], Entry::new(0x400 + 12, PRIVATE, false)];
    let (mut vcpu, _) = asking(&snp(), vec![Request::of(&crafted)]);
    assert_eq!(exits(&mut vcpu), [[0x5f_4000, 13, attributes]]);
}

#[test]
fn a_whole_buffer_of_2m_entries_is_one_exit() {
    let entries: Vec<Entry> = (0..253).map(|index| Entry::new(512 * index, SHARED, true)).collect();
    let (mut vcpu, _) = asking(&snp(), vec![Request::of(&entries)]);
    assert_eq!(exits(&mut vcpu), [[0, 253 * 512, map_gpa_range::PAGE_SIZE_2M]]);
}

#[test]
fn the_last_frame_is_followed_by_the_first() {
    let last = 0xff_ffff_ffff;
    let entries = [Entry::new(last, SHARED, false), Entry::new(0, SHARED, false)];
    let (mut vcpu, _) = asking(&snp(), vec![Request::of(&entries)]);
    assert_eq!(exits(&mut vcpu), [[last << 12, 2, 0]], "40 bits, as a kernel built by gcc counts");
}

#[test]
fn entries_that_are_done_already_move_the_guests_header_on() {
    let done = Entry::new(0x200, PRIVATE, false).with_cur_page(1);
    let vm = snp();
    let (mut vcpu, seen) = asking(&vm, vec![Request::of(&[done, done, Entry::new(0x300, PRIVATE, false)])]);
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!((hypercall(&vcpu).args[0], header(&vm)), (0x30_0000, [2, 2]));
    // The count goes on from what the guest wrote meanwhile, until a batch is done.
    vm.write_shared(Gpa(BUFFER), &[77, 0]).unwrap();
    answer(&mut vcpu, 0);
    run_to_halt(&mut vcpu);
    assert_eq!((infos(&seen), header(&vm)), (vec![[0, 0]], [3, 2]));
}

#[test]
fn the_header_is_read_once_and_in_linux_6_12_for_each_batch() {
    let entries = [0x200, 0x300].map(|gfn| Entry::new(gfn, PRIVATE, false));
    for (dialect, count) in [(Dialect::Linux7_2, 2), (Dialect::Linux6_12, 1)] {
        let vm = launched(dialect, VmType::Snp);
        let (mut vcpu, seen) = asking(&vm, vec![Request::of(&entries)]);
        assert_eq!(vcpu.enter(), Ok(()));
        // The guest shortens its request.
        vm.write_shared(Gpa(BUFFER + 2), &[0, 0]).unwrap();
        answer(&mut vcpu, 0);
        assert_eq!(1 + exits(&mut vcpu).len(), count, "{dialect}");
        assert_eq!(infos(&seen), [[0, 0]]);
    }
}

#[test]
fn the_reserved_word_of_the_header_is_not_looked_at() {
    let program = |cpu: Cpu| async move {
        let ghcb = registered(&cpu).await?;
        let entry = Entry::new(0x200, SHARED, false).0 | 0x7f << 57;
        let descriptor = [0xffff_ffffu64 << 32, entry].map(u64::to_le_bytes).concat();
        cpu.write(Gpa(BUFFER), &descriptor, Access::Shared).await?;
        ghcb.request(&cpu, exit_code::PSC, [0, 0], &[(page::SW_SCRATCH, BUFFER)]).await.map(|_| ())
    };
    let mut vcpu = snp().create_vcpu(0, program).unwrap();
    assert_eq!(exits(&mut vcpu), [[0x20_0000, 1, 0]]);
    assert_eq!(psc::MAX_ENTRIES, 253);
}
