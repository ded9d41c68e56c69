//! The kick under every schedule of its threads.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p exeunt-linux --lib --target-dir target/shuttle schedules`
//!
//! The code of the crate runs against a kernel and a guest that spins: a lost kick is a vCPU that nobody wakes, which
//! shuttle reports as a deadlock. Schedules of two threads are walked from end to end.

use shuttle::scheduler::DfsScheduler;
use shuttle::sync::atomic::{AtomicU8, Ordering};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::{Config, Runner, thread};

use super::{Asker, ImmediateExit, Inside};

const THREAD: i32 = 7;

/// The run area, and the kernel's idea of one thread.
struct Vcpu {
    byte: AtomicU8,
    inside: Inside,
    signal: Mutex<Signal>,
    comes: Condvar,
}

impl ImmediateExit for AtomicU8 {
    fn set(&self, bits: u8) {
        self.fetch_or(bits, Ordering::SeqCst);
    }

    fn unset(&self, bits: u8) {
        self.fetch_and(!bits, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Signal {
    /// The thread is in the system call. Elsewhere a signal ends in a handler that does nothing.
    in_kernel: bool,
    pending: bool,
}

impl Vcpu {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            byte: AtomicU8::new(0),
            inside: Inside::nobody(),
            signal: Mutex::new(Signal::default()),
            comes: Condvar::new(),
        })
    }

    /// `KVM_RUN` of a guest that never exits. The byte is read once, and signals are looked at from then on.
    ///
    /// Source: Linux v7.2 `virt/kvm/kvm_main.c`, `kvm_vcpu_ioctl`, and `arch/x86/kvm/x86.c`, `vcpu_run`.
    fn kvm_run(&self) {
        self.signal.lock().unwrap().in_kernel = true;
        let wants_to_run = self.byte.load(Ordering::SeqCst) == 0;
        let mut signal = self.signal.lock().unwrap();
        while wants_to_run && !signal.pending {
            signal = self.comes.wait(signal).unwrap();
        }
        *signal = Signal::default();
    }

    /// `tgkill`.
    fn send(&self, thread: i32) {
        assert_eq!(thread, THREAD);
        let mut signal = self.signal.lock().unwrap();
        signal.pending |= signal.in_kernel;
        self.comes.notify_all();
    }

    fn enter(&self, drain: bool) {
        self.inside.enter(&self.byte, THREAD, drain, || self.kvm_run());
    }

    fn kick(&self) {
        self.inside.kick(&self.byte, |thread| self.send(thread));
    }
}

/// Runs a vCPU against kickers.
fn against(kickers: usize, kick: fn(&Vcpu), run: fn(&Vcpu)) {
    let vcpu = Vcpu::new();
    let spawn = |what: fn(&Vcpu)| {
        let vcpu = Arc::clone(&vcpu);
        thread::spawn(move || what(&vcpu))
    };
    let mut threads: Vec<_> = (0..kickers).map(|_| spawn(kick)).collect();
    threads.push(spawn(run));
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Walks every schedule of a body, and says how many there are.
fn all(body: impl Fn() + Send + Sync + 'static) -> usize {
    let schedules = Runner::new(DfsScheduler::new(None, false), Config::new()).run(body);
    println!("{schedules} schedules");
    schedules
}

#[test]
fn no_kick_is_lost_under_any_schedule() {
    let schedules = all(|| against(1, Vcpu::kick, |vcpu| vcpu.enter(false)));
    assert!(schedules > 100, "{schedules} schedules are too few");
}

#[test]
fn a_kick_outlives_an_entry_that_drains() {
    let run = |vcpu: &Vcpu| {
        vcpu.enter(true);
        vcpu.enter(false);
    };
    let schedules = all(move || against(1, Vcpu::kick, run));
    assert!(schedules > 1000, "{schedules} schedules are too few");
    shuttle::check_pct(move || against(2, Vcpu::kick, run), 5_000, 4);
}

#[test]
fn a_vcpu_that_clears_the_kick_is_taken_out_by_the_next_one() {
    // The order that a VMM pauses in: it kicks, the vCPU comes out, the kick is cleared, and it may run again.
    let run = |vcpu: &Vcpu| {
        vcpu.enter(false);
        vcpu.byte.clear(Asker::Kicker);
        vcpu.kick();
        vcpu.enter(false);
    };
    shuttle::check_pct(move || against(2, Vcpu::kick, run), 5_000, 4);
}

/// The bug: the id is read before the byte is set, so that the vCPU can enter in between.
#[test]
#[should_panic(expected = "deadlock")]
fn a_kick_that_looks_before_it_asks_is_lost() {
    let kick = |vcpu: &Vcpu| {
        let thread = vcpu.inside.thread.load(Ordering::SeqCst);
        vcpu.byte.ask(Asker::Kicker);
        if thread != 0 {
            vcpu.send(thread);
        }
    };
    all(move || against(1, kick, |vcpu| vcpu.enter(false)));
}

/// The bug: the vCPU shows its id when it is inside already.
#[test]
#[should_panic(expected = "deadlock")]
fn a_vcpu_that_shows_itself_too_late_loses_a_kick() {
    let run = |vcpu: &Vcpu| {
        vcpu.signal.lock().unwrap().in_kernel = true;
        let wants_to_run = vcpu.byte.load(Ordering::SeqCst) == 0;
        vcpu.inside.thread.store(THREAD, Ordering::SeqCst);
        let mut signal = vcpu.signal.lock().unwrap();
        while wants_to_run && !signal.pending {
            signal = vcpu.comes.wait(signal).unwrap();
        }
    };
    all(move || against(1, Vcpu::kick, run));
}

/// The bug: one value for all who ask, so that an entry that drains takes back what a kick asked for.
#[test]
#[should_panic(expected = "deadlock")]
fn a_drain_that_clears_the_whole_byte_loses_a_kick() {
    let run = |vcpu: &Vcpu| {
        vcpu.enter(true);
        vcpu.byte.store(0, Ordering::SeqCst);
        vcpu.enter(false);
    };
    all(move || against(1, Vcpu::kick, run));
}
