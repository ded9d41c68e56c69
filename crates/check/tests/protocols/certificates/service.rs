//! The steps of this model against those of `exeunt::run::step`.

use std::sync::{Arc, Mutex};

use exeunt::certs::{Certificates, CheckedTable, Guard, Lease, Provider, Unavailable};
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::{Policy, run};
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, Gfn, Gpa, Kernel, PAGE_SIZE};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{self, Entered, Exit, SnpReqCerts};
use exeunt_proto::host::{Action as Effect, Host, Vcpu as KernelHalf};
use stateright::Model;

use super::{Action, Bug, Machine, State, Thread, Update};

/// What was done, by whoever did it.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn push(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
}

/// A kernel half with one request, and a host with shared memory.
struct Half {
    page: Box<RunPage>,
    port_data: [u8; PORT_DATA_BYTES],
    request: Option<SnpReqCerts>,
    log: Log,
}

impl KernelHalf for Half {
    fn enter(&mut self) -> Entered {
        let request = self.request.take().expect("one request");
        self.log.push("exit");
        exit::encode(&Exit::SnpReqCerts(request), Kernel::default(), &mut self.page)
    }

    fn enter_immediately(&mut self) -> Entered {
        self.log.push("enter");
        Err(Errno::EINTR)
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

impl Host for Log {
    fn apply(&mut self, effect: &Effect<'_>) -> Result<(), Errno> {
        assert!(matches!(effect, Effect::WriteGuest { .. }), "{effect:?}");
        self.push("write");
        Ok(())
    }
}

/// Has a table of so many pages, or is busy with 0.
#[derive(Debug)]
struct File {
    pages: u64,
    log: Log,
}

#[derive(Debug)]
struct Unlocks(Log);

impl Guard for Unlocks {}

impl Drop for Unlocks {
    fn drop(&mut self) {
        self.0.push("unlock");
    }
}

impl Provider for File {
    fn lease(&self) -> Result<Lease, Unavailable> {
        let Some(bytes) = (self.pages * PAGE_SIZE).checked_sub(1) else { return Err(Unavailable::Busy) };
        self.log.push("lock");
        let table = CheckedTable::new(vec![0; usize::try_from(bytes).unwrap()]).unwrap();
        Ok(Lease::guarded(Arc::new(table), Unlocks(self.log.clone())))
    }
}

/// What the VMM half does about a request with a buffer of one page, up to where the answer is the kernel's.
fn served(table_pages: u64) -> Vec<&'static str> {
    let log = Log::default();
    let slot = MemorySlot { range: PageRange::new(Gfn(0), 16).unwrap(), has_private: true };
    let mut policy = Policy::new(GuestMemory::new([slot]).unwrap());
    policy.certificates = Certificates::From(Arc::new(File { pages: table_pages, log: log.clone() }));
    let request = Some(SnpReqCerts { gpa: Gpa(0x3000), pages: 1 });
    let page = Box::new(RunPage::zeroed());
    let mut half = Half { page, port_data: [0; PORT_DATA_BYTES], request, log: log.clone() };
    let mut host = log.clone();
    run::step(&mut half, &mut host, &policy).unwrap();
    let has_entered = log.0.lock().unwrap().contains(&"enter");
    if !has_entered {
        run::drain(&mut half, &mut host, &policy).unwrap();
    }
    let done = log.0.lock().unwrap();
    done.clone()
}

/// The same in the model.
fn modelled(mut state: State) -> Vec<&'static str> {
    let machine = Machine { bug: Bug::None };
    let mut done = Vec::new();
    loop {
        let before = state.vcpus[0].thread;
        let next = machine
            .next_state(&state, Action::Step(0))
            .or_else(|| machine.next_state(&state, Action::TimeOut(0)))
            .expect("a step");
        let is_unlocked = next.lock.shared < state.lock.shared;
        state = next;
        match (before, state.vcpus[0].thread) {
            (Thread::Guest, Thread::Exit) => done.push("exit"),
            (Thread::Exit, Thread::Locked) => done.push("lock"),
            (_, Thread::Answered { file: Some(_), .. }) => done.push("write"),
            (_, Thread::Committed { .. }) => done.push("enter"),
            // Reading is not seen from outside: the provider does it under the lock that it hands out.
            _ => {}
        }
        if is_unlocked {
            done.push("unlock");
        }
        if matches!(state.vcpus[0].thread, Thread::Guest | Thread::Attested { .. } | Thread::GaveUp) {
            return done;
        }
    }
}

#[test]
fn the_vmm_of_this_model_locks_writes_enters_and_unlocks_as_the_vmm_half_does() {
    let [fresh] = Machine { bug: Bug::None }.init_states().try_into().expect("one state");
    let installed = modelled(fresh);
    assert_eq!(installed, ["exit", "lock", "write", "enter", "unlock"]);
    assert_eq!(served(1), installed);
    // The table has grown with an update.
    let grown = State { file: 1, tcb: 1, updates: 1, ..fresh };
    assert_eq!(served(2), modelled(grown));
    assert_eq!(modelled(grown), ["exit", "lock", "unlock", "enter"]);
    // An update has the lock.
    let mut locked = State { update: Update::Locked, ..fresh };
    locked.lock.is_exclusive = true;
    assert_eq!(modelled(locked), ["exit", "enter"]);
    assert_eq!(served(0), modelled(locked));
}
