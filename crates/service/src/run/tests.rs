use super::*;
use crate::certs::{Certificates, CheckedTable, Guard, Provider, Unavailable};
use crate::layer::event::Event;
use crate::layer::inject::{EffectFault, EffectKind, FaultyHost};
use crate::memory::{GuestMemory, MemorySlot, PageInfo};
use crate::policy::FaultPolicy;
use crate::terminate::StopKind;
use exeunt_abi::kvm::run::{self, ExitReason, PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Gfn, Gpa, Kernel};
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::exit::{Entered, Hypercall};
use exeunt_proto::host::Action;
use exeunt_proto::reply::{CertsReply, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A kernel half that plays exits back and keeps the answers.
struct Script {
    page: RunPage,
    port_data: [u8; PORT_DATA_BYTES],
    exits: Vec<Exit>,
    answers: Vec<RunPage>,
}

impl Script {
    fn new(mut exits: Vec<Exit>) -> Self {
        exits.reverse();
        Self { page: RunPage::zeroed(), port_data: [0; PORT_DATA_BYTES], exits, answers: Vec::new() }
    }
}

impl Vcpu for Script {
    fn enter(&mut self) -> Entered {
        self.answers.push(self.page.clone());
        let exit = self.exits.pop().unwrap_or(Exit::Hlt);
        exit::encode(&exit, Kernel::default(), &mut self.page)
    }

    fn enter_immediately(&mut self) -> Entered {
        if self.exits.is_empty() { Err(Errno::EINTR) } else { self.enter() }
    }

    fn kernel(&self) -> Kernel {
        Kernel::default()
    }

    fn page(&self) -> &RunPage {
        &self.page
    }

    fn page_mut(&mut self) -> &mut RunPage {
        &mut self.page
    }

    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES] {
        &mut self.port_data
    }
}

/// A host that keeps what was done to it.
#[derive(Default)]
struct Log(Vec<String>);

impl Host for Log {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.0.push(format!("{action:?}"));
        Ok(())
    }

    fn port_out(&mut self, port: u16, _: u8, data: &[u8]) {
        self.0.push(format!("out {port:#x} {data:?}"));
    }

    fn port_in(&mut self, _: u16, _: u8, data: &mut [u8]) {
        data.fill(0x5a);
    }

    fn mmio_read(&mut self, _: Gpa, data: &mut [u8]) {
        data.fill(0x77);
    }
}

fn policy() -> Policy {
    let range = PageRange::new(Gfn(0), 64).unwrap();
    Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }]).unwrap())
}

const fn convert(attributes: u64) -> Exit {
    Exit::Hypercall(Hypercall { nr: 12, args: [0x1000, 1, attributes, 0, 0, 0], flags: 0 })
}

const FAULT: Exit = Exit::MemoryFault(MemoryFault {
    gpa: Gpa(0x2000),
    size: 0x1000,
    private: true,
    unknown_flags: 0,
    poisoned: false,
});

#[test]
fn a_conversion_is_carried_out_and_answered() {
    let mut script = Script::new(vec![convert(0x10)]);
    let mut host = Log::default();
    assert_eq!(run(&mut script, &mut host, &policy()), Stop::Halted);
    assert_eq!(host.0.len(), 2, "{:?}", host.0);
    assert!(host.0[0].starts_with("SetAttributes") && host.0[1].starts_with("Discard"));
    assert_eq!(script.answers[1].payload::<run::Hypercall>().ret, 0);
}

#[test]
fn a_conversion_that_fails_fails_the_request_and_not_the_vm() {
    let cases = [(Errno::ENOMEM, 11), (Errno::EAGAIN, 11), (Errno::EINTR, 11), (Errno::EINVAL, 22)];
    for (errno, ret) in cases {
        // What an interruption may have stopped is tried four times at once.
        let tries = if [Errno::EINTR, Errno::EAGAIN].contains(&errno) { 4 } else { 1 };
        let fault = |nth| EffectFault { kind: EffectKind::SetAttributes, nth, errno };
        let mut host = FaultyHost::new(Log::default(), (1..=tries).map(fault).collect());
        let mut script = Script::new(vec![convert(0x10), convert(0x10)]);
        assert_eq!(run(&mut script, &mut host, &policy()), Stop::Halted);
        let rets: Vec<_> =
            script.answers.iter().map(|page| page.payload::<run::Hypercall>().ret).skip(1).collect();
        assert_eq!(rets, [ret, 0], "{errno}: only the first conversion fails");
    }
}

#[test]
fn the_same_fault_without_progress_is_bounded() {
    let mut policy = policy();
    policy.memory_faults = FaultPolicy::Convert;
    let stop = run(&mut Script::new(vec![FAULT; 100]), &mut Log::default(), &policy);
    assert!(matches!(stop, Stop::NoProgress { repeats: MAX_REPEATS, .. }), "{stop:?}");
    // An interruption is no progress, another exit is.
    let again = Exit::Again(Errno::EINTR);
    let stop = run(&mut Script::new([FAULT, again].repeat(100)), &mut Log::default(), &policy);
    assert!(matches!(stop, Stop::NoProgress { .. }));
    let stop = run(&mut Script::new([FAULT, convert(0)].repeat(100)), &mut Log::default(), &policy);
    assert_eq!(stop, Stop::Halted);
}

#[test]
fn faults_that_ask_for_what_is_so_are_bounded_whichever_pages_they_name() {
    let fault = |page: u32| {
        let gpa = Gpa(0x1000 * u64::from(page % 64));
        Exit::MemoryFault(MemoryFault {
            gpa,
            size: 0x1000,
            private: false,
            unknown_flags: 0,
            poisoned: false,
        })
    };
    let policy = policy();
    let few = Script::new((1..MAX_IDLE_FAULTS).map(fault).collect());
    assert_eq!(run(&mut { few }, &mut Log::default(), &policy), Stop::Halted);
    let many = Script::new((0..MAX_IDLE_FAULTS).map(fault).collect());
    let stop = run(&mut { many }, &mut Log::default(), &policy);
    assert!(matches!(stop, Stop::NoProgress { repeats: MAX_IDLE_FAULTS, .. }), "{stop:?}");
}

/// Certificates that note when their lease ends.
#[derive(Debug)]
struct Noted(Arc<AtomicU32>);

impl Guard for Noted {}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Leasing(Arc<AtomicU32>);

impl Provider for Leasing {
    fn lease(&self) -> Result<Lease, Unavailable> {
        Ok(Lease::guarded(Arc::new(CheckedTable::empty()), Noted(Arc::clone(&self.0))))
    }
}

#[test]
fn a_lease_lives_until_the_kernel_has_acted_on_the_answer() {
    let ended = Arc::new(AtomicU32::new(0));
    let mut policy = policy();
    policy.certificates = Certificates::From(Arc::new(Leasing(Arc::clone(&ended))));
    let request = Exit::SnpReqCerts(exit::SnpReqCerts { gpa: Gpa(0x3000), pages: 1 });
    // The request, an exit that follows from its answer, and nothing more.
    let mut script = Script::new(vec![request, convert(0x10)]);
    assert_eq!(step(&mut script, &mut Log::default(), &policy), Ok(()));
    assert_eq!(script.answers.len(), 2, "the answer was handed over within the step");
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    // Too small a buffer, or none: nothing was read by the firmware, so that nothing is held.
    for (gpa, pages) in [(0x3000, 0), (0x3000, 65), (0x9_0000, 1)] {
        let request = Exit::SnpReqCerts(exit::SnpReqCerts { gpa: Gpa(gpa), pages });
        let mut script = Script::new(vec![request, convert(0)]);
        assert_eq!(step(&mut script, &mut Log::default(), &policy), Ok(()));
        assert_eq!(script.exits.len(), 1, "the answer is handed over by the next entry");
    }
    assert_eq!(ended.load(Ordering::SeqCst), 4, "every lease ends");
}

#[test]
fn a_private_buffer_gets_no_certificates() {
    let mut policy = policy();
    policy.certificates = Certificates::Table(CheckedTable::empty());
    let range = PageRange::new(Gfn(4), 1).unwrap();
    policy.memory().assume(range, PageInfo::fresh(PageState::Private));
    for (gpa, pages, ret) in [(0x3000, 1, 0), (0x3000, 2, 5), (0x4000, 1, 5), (0x5000, 1, 0)] {
        let request = Exit::SnpReqCerts(exit::SnpReqCerts { gpa: Gpa(gpa), pages });
        let mut host = Log::default();
        let mut script = Script::new(vec![request]);
        assert_eq!(run(&mut script, &mut host, &policy), Stop::Halted);
        assert_eq!(script.answers[1].payload::<run::SnpReqCerts>().ret, ret, "{gpa:#x} {pages}");
        assert_eq!(host.0.len(), usize::from(ret == 0), "{:?}", host.0);
    }
}

/// Looks whether a page can be converted while the host writes to it.
struct Racing<'a>(&'a GuestMemory, Conversion, u32);

impl Host for Racing<'_> {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        assert!(matches!(action, Action::WriteGuest { .. }), "{action:?}");
        assert!(self.0.try_begin(self.1).is_none(), "a conversion amid the write");
        self.2 += 1;
        Ok(())
    }
}

#[test]
fn a_buffer_for_certificates_is_not_converted_while_it_is_written_nor_written_while_it_is_converted() {
    let mut policy = policy();
    policy.certificates = Certificates::Table(CheckedTable::empty());
    let memory = policy.memory();
    let conversion = Conversion { range: PageRange::new(Gfn(3), 1).unwrap(), to: PageState::Private };
    let request = Exit::SnpReqCerts(exit::SnpReqCerts { gpa: Gpa(0x3000), pages: 1 });
    let reply = |plan: &Plan<'_>| {
        let mut host = Racing(memory, conversion, 0);
        (plan.carry_out(&mut host, &mut []).reply, host.2)
    };
    let plan = policy.plan(&request).unwrap();
    assert_eq!(reply(&plan), (Reply::Certs(CertsReply::Installed), 1));
    let under_way = memory.try_begin(conversion);
    assert!(under_way.is_some(), "it can be converted again");
    assert_eq!(reply(&plan), (Reply::Certs(CertsReply::Busy), 0));
    drop(under_way);
    assert_eq!(memory.convert(conversion, &mut Log::default(), &mut ()), Ok(()));
    assert_eq!(reply(&plan), (Reply::Certs(CertsReply::Failed), 0), "converted since the plan");
}

#[test]
fn draining_answers_every_exit_that_follows_and_ends_at_eintr() {
    let mut script = Script::new(vec![convert(0), convert(0x10), convert(0)]);
    assert_eq!(drain(&mut script, &mut Log::default(), &policy()), Ok(()));
    assert_eq!(script.answers.len(), 3);
    let mut endless = Script::new(vec![convert(0); MAX_DRAINED as usize + 1]);
    let undrained = drain(&mut endless, &mut Log::default(), &policy());
    assert_eq!(undrained, Err(Stop::Undrained { exits: MAX_DRAINED }));
}

#[test]
fn devices_get_the_data_and_fill_it() {
    let io = |is_out| Exit::Io(exit::Io { is_out, size: 1, port: 0x3f8, count: 3, start: 0 });
    let read = exit::Mmio { gpa: Gpa(0xd000_0000), data: [0; 8], len: 4, is_write: false };
    let mut script = Script::new(vec![io(true), io(false), Exit::Mmio(read)]);
    script.port_data[..4].copy_from_slice(b"abcd");
    let mut host = Log::default();
    assert_eq!(run(&mut script, &mut host, &policy()), Stop::Halted);
    assert_eq!(host.0, ["out 0x3f8 [97, 98, 99]"]);
    assert_eq!(script.port_data[..4], [0x5a, 0x5a, 0x5a, b'd']);
    assert_eq!(script.answers[3].payload::<run::Mmio>().data, [0x77, 0x77, 0x77, 0x77, 0, 0, 0, 0]);
}

#[test]
fn an_error_of_kvm_run_that_brings_no_exit_ends_the_run() {
    let mut script = Script::new(vec![Exit::Again(Errno::EINVAL)]);
    let stop = run(&mut script, &mut Log::default(), &policy());
    let failed = exit::DecodeError::Failed { errno: Errno::EINVAL, stale: ExitReason::UNKNOWN };
    assert_eq!(stop, Stop::Enter(failed));
}

#[test]
fn an_end_is_told_and_dumped_once_if_that_was_chosen() {
    #[derive(Default)]
    struct Keep(Vec<Exit>);
    impl Host for Keep {
        fn apply(&mut self, _: &Action<'_>) -> Result<(), Errno> {
            Ok(())
        }

        fn dump(&mut self, exit: &Exit) {
            self.0.push(*exit);
        }
    }
    struct Ends(Vec<StopKind>);
    impl Observer for Ends {
        fn event(&mut self, event: &Event) {
            if let Event::Stop(kind) = event {
                self.0.push(*kind);
            }
        }
    }
    for (dumps_failures, exit, kind, dumped) in [
        (true, Exit::Shutdown, StopKind::TripleFault, 1),
        (false, Exit::Shutdown, StopKind::TripleFault, 0),
        (true, Exit::Hlt, StopKind::Halted, 0),
        (true, Exit::Again(Errno::EINVAL), StopKind::RunFailed, 0),
    ] {
        let mut policy = policy();
        policy.dumps_failures = dumps_failures;
        let (mut host, mut ends) = (Keep::default(), Ends(Vec::new()));
        let mut script = Script::new(vec![exit]);
        let stopped = step_observed(&mut script, &mut host, &policy, &mut Watch::default(), &mut ends);
        assert_eq!(stopped.map_err(|stop| stop.kind()), Err(kind));
        assert_eq!((host.0, ends.0), (vec![exit; dumped], vec![kind]));
    }
}
