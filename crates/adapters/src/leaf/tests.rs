use super::*;
use exeunt::layer::event::{Event, ReplyKind};
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::terminate::StopKind;
use exeunt_abi::ghci::Status;
use exeunt_abi::{Dialect, Gfn, Gpa};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{EventType, Hypercall, Io, MemoryFault, Mmio, SnpReqCerts, SystemEvent, Words};
use exeunt_proto::host::Action;
use exeunt_proto::reply::{self, CertsReply, ConversionReply, TdxReply};
use zerocopy::{FromBytes, IntoBytes};

/// A live page in the test's memory, and what was written to it in which order.
struct Memory {
    page: RunPage,
    writes: Vec<(usize, Vec<u8>)>,
    takes: std::cell::Cell<u32>,
}

impl Live for Memory {
    fn reason(&self) -> ExitReason {
        self.page.reason()
    }

    fn take(&self, page: &mut RunPage) {
        self.takes.set(self.takes.get() + 1);
        page.clone_from(&self.page);
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.writes.push((offset, bytes.to_vec()));
        self.page.set_bytes(offset, bytes);
    }

    fn hold(&mut self) {
        self.page.user[1] |= 0x40;
    }

    fn release(&mut self) {
        self.page.user[1] &= !0x40;
    }
}

#[derive(Default)]
struct Effects(Vec<String>);

impl Host for Effects {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.0.push(format!("{action:?}"));
        Ok(())
    }
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Observer for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}

fn policy() -> Policy {
    let range = PageRange::new(Gfn(0), 64).unwrap();
    Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap())
}

/// Serves one exit on a page full of old bytes.
fn serve(exit: &Exit, leaf: &mut Leaf<Effects, Events>) -> (Served, Memory) {
    let mut page = RunPage::read_from_bytes(&[0xaa; size_of::<RunPage>()]).unwrap();
    let entered = exit::encode(exit, Kernel::default(), &mut page);
    let mut memory = Memory { page, writes: Vec::new(), takes: 0.into() };
    let served = leaf.serve(entered, &mut memory, &policy());
    (served, memory)
}

fn leaf() -> Leaf<Effects, Events> {
    Leaf::new(Kernel::default(), Effects::default()).observed(Events::default())
}

fn call(gpa: u64, pages: u64) -> Exit {
    Exit::Hypercall(Hypercall { nr: 12, args: [gpa, pages, 0x10, 0, 0, 0], flags: 1 })
}

#[test]
fn a_conversion_is_done_and_only_its_ret_is_written() {
    let mut leaf = leaf();
    let (served, memory) = serve(&call(0x4000, 2), &mut leaf);
    assert_eq!(served, Served::Served);
    assert_eq!(memory.writes, [(56, vec![0; 8])]);
    assert_eq!(leaf.host_mut().0.len(), 2, "attributes and discard");
    let reply = Reply::Conversion(ConversionReply::Done);
    assert_eq!(leaf.observer.0.last(), Some(&Event::Reply(reply)));
}

#[test]
fn a_buffer_that_is_too_small_gets_the_pages_before_the_ret() {
    let table = exeunt::certs::CheckedTable::build(&[]).unwrap();
    let mut policy = policy();
    policy.certificates = exeunt::certs::Certificates::Table(table);
    let exit = Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(0x1000), pages: 0 });
    let mut page = RunPage::zeroed();
    let entered = exit::encode(&exit, Kernel::default(), &mut page);
    let mut memory = Memory { page, writes: Vec::new(), takes: 0.into() };
    assert_eq!(leaf().serve(entered, &mut memory, &policy), Served::Served);
    assert_eq!(memory.writes, [(8, vec![1, 0, 0, 0, 0, 0, 0, 0]), (16, vec![28, 0, 0, 0, 0, 0, 0, 0])]);
}

#[test]
fn what_is_not_ours_is_neither_copied_nor_written_nor_told() {
    let io = Io { is_out: true, size: 1, port: 0x3f8, count: 1, start: 0 };
    let mmio = Mmio { gpa: Gpa(0xd000_0000), data: [0; 8], len: 4, is_write: true };
    for exit in [Exit::Io(io), Exit::Mmio(mmio), Exit::Hlt, Exit::Again(Errno::EINTR)] {
        let mut leaf = leaf();
        let (served, memory) = serve(&exit, &mut leaf);
        assert_eq!(served, Served::NotOurs, "{exit:?}");
        assert_eq!((memory.takes.get(), memory.writes.len()), (0, 0), "{exit:?}");
        assert!(leaf.observer.0.is_empty());
    }
    for number in [0, 1, 7, 10, 17, 32, 44, 777, u32::MAX] {
        let mut page = RunPage::zeroed();
        page.exit_reason = number;
        let mut memory = Memory { page, writes: Vec::new(), takes: 0.into() };
        assert_eq!(leaf().serve(Ok(()), &mut memory, &policy()), Served::NotOurs, "{number}");
    }
}

#[test]
fn a_failure_of_kvm_run_stays_with_the_vmm_whatever_the_page_says() {
    let mut page = RunPage::zeroed();
    exit::encode(&call(0x4000, 1), Kernel::default(), &mut page).unwrap();
    for errno in [Errno::EINVAL, Errno::EIO, Errno::EFAULT, Errno::EHWPOISON, Errno::EINTR, Errno::EAGAIN] {
        let mut memory = Memory { page: page.clone(), writes: Vec::new(), takes: 0.into() };
        assert_eq!(leaf().serve(Err(errno), &mut memory, &policy()), Served::NotOurs, "{errno}");
        assert!(memory.writes.is_empty());
    }
}

#[test]
fn ends_come_with_their_reason_and_answer_nothing() {
    let event = |event, data: &[u64]| Exit::SystemEvent(SystemEvent { event, data: Words::from_slice(data) });
    let fault =
        MemoryFault { gpa: Gpa(0x4000), size: 0x1000, private: true, unknown_flags: 0, poisoned: true };
    for (exit, kind) in [
        (Exit::Shutdown, StopKind::TripleFault),
        (event(EventType::SevTerm, &[0x21_100]), StopKind::SevTerm),
        (event(EventType::Reset, &[]), StopKind::Reset),
        (event(EventType::Unknown(0x99), &[]), StopKind::UnknownEvent),
        (Exit::MemoryFault(fault), StopKind::Poisoned),
    ] {
        let mut leaf = leaf();
        let (served, memory) = serve(&exit, &mut leaf);
        let Served::Stop(stop) = served else { panic!("{served:?}") };
        assert_eq!(stop.kind(), kind);
        assert!(memory.writes.is_empty());
        assert_eq!(leaf.observer.0.last(), Some(&Event::Stop(kind)));
    }
}

#[test]
fn a_fault_that_comes_back_ends_and_any_other_exit_starts_the_count_again() {
    let fault = Exit::MemoryFault(MemoryFault {
        gpa: Gpa(0),
        size: 0x1000,
        private: true,
        unknown_flags: 0,
        poisoned: false,
    });
    let mut policy = policy();
    policy.memory_faults = exeunt::policy::FaultPolicy::Convert;
    let mut leaf = leaf();
    let mut served = |exit: &Exit| {
        let mut page = RunPage::zeroed();
        let entered = exit::encode(exit, Kernel::default(), &mut page);
        leaf.serve(entered, &mut Memory { page, writes: Vec::new(), takes: 0.into() }, &policy)
    };
    for _ in 0..4 {
        for _ in 0..15 {
            assert_eq!(served(&fault), Served::Served);
        }
        assert_eq!(served(&Exit::Hlt), Served::NotOurs);
    }
    for _ in 0..15 {
        assert_eq!(served(&fault), Served::Served);
        assert_eq!(served(&Exit::Again(Errno::EINTR)), Served::NotOurs, "no progress");
    }
    assert!(matches!(served(&fault), Served::Stop(Stop::NoProgress { .. })));
}

#[test]
fn the_spans_hold_every_byte_that_an_answer_changes() {
    let tdx = |r| TdxReply::Info { r11: r, r12: r, r13: r, r14: r };
    let replies = [
        Reply::None,
        Reply::Conversion(ConversionReply::Again),
        Reply::UnknownHypercall,
        Reply::Certs(CertsReply::TooSmall { pages: 0x0123_4567 }),
        Reply::Certs(CertsReply::Failed),
        Reply::Tdx(TdxReply::Status(Status::SUBFUNC_UNSUPPORTED)),
        Reply::Tdx(tdx(0x1234_5678_9abc_def0)),
        Reply::Vmgexit(VmgexitReply::Page(7)),
        Reply::Vmgexit(VmgexitReply::Msr(0x15)),
    ];
    for dialect in Dialect::all() {
        let kernel = Kernel { dialect, ..Kernel::default() };
        for reply in replies {
            for fill in [0x00, 0x55, 0xff] {
                let before = RunPage::read_from_bytes(&[fill; size_of::<RunPage>()]).unwrap();
                let mut encoded = before.clone();
                reply::encode(reply, kernel, &mut encoded);
                let mut written = before.clone();
                for span in spans(reply, kernel) {
                    written.set_bytes(span.start, &encoded.exit[span]);
                }
                assert_eq!(written.as_bytes(), encoded.as_bytes(), "{reply:?} {dialect:?}");
            }
        }
    }
    assert_eq!(ReplyKind::ALL.len(), 15, "a new kind of answer needs its span");
}

/// A lock on certificates, and whether it is held.
#[derive(Clone, Debug, Default)]
struct Lock(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl exeunt::certs::Guard for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(false, std::sync::atomic::Ordering::SeqCst);
    }
}

impl exeunt::certs::Provider for Lock {
    fn lease(&self) -> Result<Lease, exeunt::certs::Unavailable> {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(Lease::guarded(exeunt::certs::CheckedTable::empty().into(), self.clone()))
    }
}

/// A guest has just asked for certificates, which are under a lock.
fn asked_for_certificates() -> (std::sync::Arc<Lock>, Policy, Memory, Entered) {
    let lock = std::sync::Arc::new(Lock::default());
    let mut policy = policy();
    policy.certificates = exeunt::certs::Certificates::From(lock.clone());
    let exit = Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(0x1000), pages: 4 });
    let mut page = RunPage::zeroed();
    let entered = exit::encode(&exit, Kernel::default(), &mut page);
    (lock, policy, Memory { page, writes: Vec::new(), takes: 0.into() }, entered)
}

#[test]
fn certificates_stay_locked_until_kvm_has_taken_the_answer() {
    let (lock, policy, mut memory, entered) = asked_for_certificates();
    let is_locked = || lock.0.load(std::sync::atomic::Ordering::SeqCst);
    memory.page.user[1] = 1;
    let mut leaf = leaf();
    assert_eq!(leaf.serve(entered, &mut memory, &policy), Served::Served);
    assert!(is_locked() && leaf.is_held());
    assert_eq!(memory.page.user[1], 0x41, "the next entry does not run the guest");
    // The answer leads to another exit before KVM is through.
    let entered = exit::encode(&call(0x4000, 1), Kernel::default(), &mut memory.page);
    assert_eq!(leaf.serve(entered, &mut memory, &policy), Served::Served);
    assert!(is_locked() && leaf.is_held());
    assert_eq!(leaf.serve(Err(Errno::EINTR), &mut memory, &policy), Served::NotOurs);
    assert!(!is_locked() && !leaf.is_held());
    assert_eq!(memory.page.user[1], 1, "what a kicker asked for stays");
}

#[test]
fn a_vmm_that_clears_immediate_exit_for_itself_does_not_keep_the_lock_held_for_long() {
    let (lock, policy, mut memory, entered) = asked_for_certificates();
    let mut leaf = leaf();
    assert_eq!(leaf.serve(entered, &mut memory, &policy), Served::Served);
    // A plain store, as VMMs take their own kick back.
    memory.page.user[1] = 0;
    let entered = exit::encode(&Exit::Hlt, Kernel::default(), &mut memory.page);
    assert_eq!(leaf.serve(entered, &mut memory, &policy), Served::NotOurs);
    assert_eq!(memory.page.user[1], 0x40, "the next entry does not run the guest");
    assert_eq!(leaf.serve(Err(Errno::EINTR), &mut memory, &policy), Served::NotOurs);
    assert_eq!((memory.page.user[1], lock.0.load(std::sync::atomic::Ordering::SeqCst)), (0, false));
}

#[test]
fn an_answer_that_is_never_taken_ends_the_run_and_the_lock() {
    let (lock, policy, mut memory, entered) = asked_for_certificates();
    let mut leaf = leaf();
    let served = (0..=MAX_HELD + 1).map(|_| leaf.serve(entered, &mut memory, &policy)).last();
    assert_eq!(served, Some(Served::Stop(Stop::Undrained { exits: MAX_HELD })));
    assert!(!leaf.is_held() && !lock.0.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(memory.page.user[1], 0);
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn whatever_a_page_says_the_leaf_answers_in_the_spans_of_an_answer_or_not_at_all() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut counts = [0u32; 3];
    let mut policy = policy();
    policy.memory_faults = exeunt::policy::FaultPolicy::Convert;
    for dialect in Dialect::all() {
        let kernel = Kernel { dialect, ..Kernel::default() };
        for round in 0..4000 {
            let mut bytes = [0; size_of::<RunPage>()];
            for chunk in bytes.chunks_exact_mut(8) {
                // Small numbers reach further than large ones.
                let word = numbers.next() >> (numbers.next() % 64);
                chunk.copy_from_slice(&word.to_le_bytes());
            }
            let mut page = RunPage::read_from_bytes(&bytes).unwrap();
            page.exit_reason = round % 64;
            let entered = match numbers.next() % 4 {
                0 => Err(Errno::EFAULT),
                1 => Err(Errno::EHWPOISON),
                _ => Ok(()),
            };
            let before = page.clone();
            let mut memory = Memory { page, writes: Vec::new(), takes: 0.into() };
            let mut leaf = Leaf::new(kernel, Effects::default());
            let served = leaf.serve(entered, &mut memory, &policy);
            counts[match &served {
                Served::Served => 0,
                Served::NotOurs => 1,
                Served::Stop(_) => 2,
            }] += 1;
            assert!(memory.writes.len() <= 2 && memory.takes.get() <= 1);
            if served != Served::Served {
                assert_eq!(memory.page, before, "{served:?}");
            }
            assert_eq!(memory.page.as_bytes()[..32], before.as_bytes()[..32]);
        }
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}
