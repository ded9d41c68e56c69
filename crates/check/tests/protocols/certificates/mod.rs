//! Certificates for a guest's report, against an update of the firmware that signs it.
//!
//! The certificate file belongs to one version of the trusted computing base (TCB), and a report names the version that
//! the firmware reports at the moment of the request. So a VMM holds a lock on the file, shared, from the read until
//! `KVM_RUN` came back with `EINTR` under `immediate_exit`: by then the firmware has made the report. An update holds
//! the lock alone while it changes both.
//!
//! Source: Linux v7.2 `Documentation/virt/kvm/x86/amd-memory-encryption.rst` and `api.rst`, `KVM_EXIT_SNP_REQ_CERTS`.
//!
//! The answers are those of [`CertsReply`], and what the guest makes of them is decoded by [`GuestRequestResult`]. The
//! kernel's part mirrors `complete_req_certs` of `crates/model/src/vcpu/complete.rs`: the firmware is asked in the
//! completion, which runs before `immediate_exit` is looked at. The guest is Linux: it comes back when it is told BUSY,
//! a bounded number of times, and then gives its key up. The order of the VMM's steps is held to `exeunt::run::step`.

mod service;

use exeunt_abi::ghcb::guest_message::vmm_error;
use exeunt_proto::ghcb::GuestRequestResult;
use exeunt_proto::reply::CertsReply;
use stateright::{Model, Property};

use crate::search::{Searched, exhaust, refute, strand};

/// How often a guest asks before it gives up. Linux: 30 times in a minute.
const TRIES: u8 = 3;
/// Updates of the firmware.
const UPDATES: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The VMM takes no lock.
    LockOff,
    /// The VMM unlocks when the table is written, before the firmware has made the report.
    UnlockedBeforeReport,
    /// The VMM believes the file without asking the firmware for its TCB, and an update may have died half-way.
    TcbUnchecked,
    /// The update takes no lock.
    UpdateUnlocked,
    /// The VMM waits for the lock without a bound, and an update may hang.
    WaitUnbounded,
}

/// Two vCPUs that ask for certificates, and updates of the firmware.
#[derive(Clone)]
struct Machine {
    bug: Bug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    /// What the firmware reports.
    tcb: u8,
    /// What the file is for.
    file: u8,
    lock: Lock,
    update: Update,
    updates: u8,
    vcpus: [Vcpu; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lock {
    shared: u8,
    is_exclusive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Update {
    Idle,
    Locked,
    /// The firmware reports the new TCB, and the file is for the old one.
    Between,
    FileReplaced,
    /// It holds the lock, does not get on, and nobody ends it.
    Hung,
}

/// One vCPU, its guest and its thread of the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Vcpu {
    thread: Thread,
    /// 4 KiB pages of the guest's buffer.
    pages: u8,
    tries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Thread {
    /// The guest runs and has not asked.
    Guest,
    /// `KVM_EXIT_SNP_REQ_CERTS`.
    Exit,
    /// In a wait for the lock that has no end.
    Waits,
    Locked,
    /// The table for this TCB has been read.
    Read {
        file: u8,
    },
    /// It is in the guest's buffer, or an answer without a table is in the run page.
    Answered {
        file: Option<u8>,
        ret: Ret,
    },
    /// `KVM_RUN` came back with `EINTR`: this is what the guest will see.
    Committed {
        file: Option<u8>,
        seen: Seen,
    },
    /// The guest has certificates and a report.
    Attested {
        file: u8,
        report: u8,
    },
    /// The guest has given its key up.
    GaveUp,
}

/// `snp_req_certs.ret` and `npages`, as [`CertsReply`] has them.
type Ret = (u64, u8);

/// `SW_EXITINFO2`, RBX, and the TCB of the report if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    info_2: u64,
    rbx: u8,
    report: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The next step of a vCPU.
    Step(usize),
    /// The bounded wait for the lock is over.
    TimeOut(usize),
    /// The next step of the update.
    Update,
    /// The update dies; the kernel drops its lock.
    Die,
    Hang,
}

/// Pages of the table for a TCB: one update brings a longer chain.
const fn table_pages(tcb: u8) -> u8 {
    if tcb == 0 { 1 } else { 2 }
}

fn ret(reply: CertsReply, pages: u8) -> Ret {
    match reply {
        CertsReply::TooSmall { pages } => (reply.ret(), u8::try_from(pages).expect("few pages")),
        _ => (reply.ret(), pages),
    }
}

impl Machine {
    fn locks(&self) -> bool {
        self.bug != Bug::LockOff
    }

    fn step(&self, state: &mut State, at: usize) -> Option<()> {
        let Vcpu { thread, pages, .. } = state.vcpus[at];
        let next = match thread {
            Thread::Guest => Thread::Exit,
            Thread::Exit if !self.locks() => Thread::Locked,
            Thread::Exit | Thread::Waits if !state.lock.is_exclusive => {
                state.lock.shared += 1;
                Thread::Locked
            }
            Thread::Exit if self.bug == Bug::WaitUnbounded => Thread::Waits,
            Thread::Exit | Thread::Waits | Thread::Attested { .. } | Thread::GaveUp => return None,
            Thread::Locked => Thread::Read { file: state.file },
            Thread::Read { file } => {
                let needed = table_pages(file);
                let reply = if file != state.tcb && self.checks_tcb() {
                    CertsReply::Busy
                } else if pages < needed {
                    CertsReply::TooSmall { pages: needed.into() }
                } else {
                    CertsReply::Installed
                };
                // The firmware is asked only if the table is there, so that nothing else needs the lock.
                let file = (reply == CertsReply::Installed).then_some(file);
                if self.locks() && (file.is_none() || self.bug == Bug::UnlockedBeforeReport) {
                    state.lock.shared -= 1;
                }
                Thread::Answered { file, ret: ret(reply, pages) }
            }
            Thread::Answered { file, ret } => Thread::Committed { file, seen: complete(ret, state.tcb) },
            Thread::Committed { file, seen } => {
                if self.locks() && file.is_some() && self.bug != Bug::UnlockedBeforeReport {
                    state.lock.shared -= 1;
                }
                state.vcpus[at].see(file, seen);
                return Some(());
            }
        };
        state.vcpus[at].thread = next;
        Some(())
    }

    /// The TCB that the firmware reports is asked for under the lock.
    fn checks_tcb(&self) -> bool {
        self.bug != Bug::TcbUnchecked
    }

    fn update(&self, state: &mut State) -> Option<()> {
        let locks = self.bug != Bug::UpdateUnlocked;
        state.update = match state.update {
            Update::Idle => {
                // An update that died before is finished by the next one.
                if state.updates == UPDATES && state.file == state.tcb {
                    return None;
                }
                if locks && (state.lock.shared > 0 || state.lock.is_exclusive) {
                    return None;
                }
                state.lock.is_exclusive = locks;
                if state.file == state.tcb { Update::Locked } else { Update::Between }
            }
            Update::Locked => {
                state.tcb += 1;
                state.updates += 1;
                Update::Between
            }
            Update::Between => {
                state.file = state.tcb;
                Update::FileReplaced
            }
            Update::FileReplaced => {
                state.lock.is_exclusive = false;
                Update::Idle
            }
            Update::Hung => return None,
        };
        Some(())
    }
}

/// The completion of the exit: KVM looks at `ret`, and asks the firmware if it is 0.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_complete_req_certs`.
fn complete((ret, pages): Ret, tcb: u8) -> Seen {
    let busy = CertsReply::Busy.ret();
    let (info_2, report) = match ret {
        0 => (0, Some(tcb)),
        again if again == busy => (vmm_error::BUSY, None),
        _ => (vmm_error::INVALID_LEN, None),
    };
    Seen { info_2, rbx: pages, report }
}

impl Vcpu {
    /// The guest runs again and reads what became of its request.
    fn see(&mut self, file: Option<u8>, seen: Seen) {
        let result = GuestRequestResult::from_number(seen.info_2);
        let vmm = u64::from(result.vmm) << 32;
        self.thread = match (vmm, file, seen.report) {
            (0, Some(file), Some(report)) => Thread::Attested { file, report },
            (vmm_error::INVALID_LEN, ..) => {
                self.pages = seen.rbx;
                Thread::Guest
            }
            _ if self.tries == 1 => Thread::GaveUp,
            _ => {
                self.tries -= 1;
                Thread::Guest
            }
        };
    }
}

const SAME_TCB: &str = "certificates and report are from one TCB";
const ALONE: &str = "an update is alone with its lock";

impl Model for Machine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let vcpu = Vcpu { thread: Thread::Guest, pages: 1, tries: TRIES };
        vec![State {
            tcb: 0,
            file: 0,
            lock: Lock { shared: 0, is_exclusive: false },
            update: Update::Idle,
            updates: 0,
            vcpus: [vcpu; 2],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Update);
        if !matches!(state.update, Update::Idle | Update::Hung) {
            actions.push(Action::Die);
            actions.push(Action::Hang);
        }
        for at in 0..state.vcpus.len() {
            actions.push(Action::Step(at));
            if state.vcpus[at].thread == Thread::Exit && self.locks() {
                actions.push(Action::TimeOut(at));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut state = *state;
        match action {
            Action::Step(at) => self.step(&mut state, at)?,
            Action::TimeOut(at) => {
                let vcpu = &mut state.vcpus[at];
                if !state.lock.is_exclusive || self.bug == Bug::WaitUnbounded {
                    return None;
                }
                let ret = ret(CertsReply::Busy, vcpu.pages);
                vcpu.thread = Thread::Answered { file: None, ret };
            }
            Action::Update => self.update(&mut state)?,
            Action::Die => {
                state.update = Update::Idle;
                state.lock.is_exclusive = false;
            }
            Action::Hang => state.update = Update::Hung,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAME_TCB, |_, state: &State| {
                state.vcpus.iter().all(|vcpu| match vcpu.thread {
                    Thread::Attested { file, report } => file == report,
                    _ => true,
                })
            }),
            Property::always(ALONE, |_, state: &State| !state.lock.is_exclusive || state.lock.shared == 0),
            Property::sometimes("a report is made after the last update", |_, state: &State| {
                state.vcpus.iter().any(|vcpu| vcpu.thread == Thread::Attested { file: 2, report: 2 })
            }),
            Property::sometimes("two guests have reports of different TCBs", |_, state: &State| {
                matches!(
                    state.vcpus.map(|vcpu| vcpu.thread),
                    [Thread::Attested { report: 0, .. }, Thread::Attested { report: 2, .. }]
                )
            }),
            Property::sometimes("a guest gives up", |_, state: &State| {
                state.vcpus.iter().any(|vcpu| vcpu.thread == Thread::GaveUp)
            }),
            Property::sometimes("an update that died is finished by the next", |_, state: &State| {
                state.update == Update::Between && state.updates == UPDATES && state.lock.is_exclusive
            }),
        ]
    }
}

impl Searched for Machine {
    const NAME: &'static str = "certificates";
    const GOAL: &'static str = "every request for certificates ends";

    fn is_goal(&self, state: &State) -> bool {
        let ended = |vcpu: &Vcpu| matches!(vcpu.thread, Thread::Attested { .. } | Thread::GaveUp);
        state.vcpus.iter().all(ended)
    }
}

#[test]
fn certificates_and_report_are_from_one_tcb_and_nobody_waits_for_ever() {
    exhaust(&Machine { bug: Bug::None }, 2000);
}

#[test]
fn without_a_lock_an_update_comes_between_certificates_and_report() {
    let way = refute(&Machine { bug: Bug::LockOff }, Bug::LockOff, SAME_TCB);
    assert!(!way.contains(&Action::Die), "no update has to die for it: {way:?}");
}

#[test]
fn a_lock_that_is_dropped_before_the_report_is_no_lock() {
    let way = refute(&Machine { bug: Bug::UnlockedBeforeReport }, Bug::UnlockedBeforeReport, SAME_TCB);
    assert!(!way.contains(&Action::Die), "{way:?}");
}

#[test]
fn a_lock_that_the_update_does_not_take_is_no_lock() {
    refute(&Machine { bug: Bug::UpdateUnlocked }, Bug::UpdateUnlocked, SAME_TCB);
}

#[test]
fn the_lock_does_not_help_after_an_update_that_died_half_way() {
    let way = refute(&Machine { bug: Bug::TcbUnchecked }, Bug::TcbUnchecked, SAME_TCB);
    assert!(way.contains(&Action::Die), "{way:?}");
}

#[test]
fn a_wait_without_a_bound_lasts_as_long_as_an_update_hangs() {
    let way = strand(&Machine { bug: Bug::WaitUnbounded }, Bug::WaitUnbounded);
    assert!(way.contains(&Action::Hang), "{way:?}");
}
