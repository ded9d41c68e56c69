//! How a program and the engine hand each other acts and results.

use super::tdx::TdRegs;
use super::{Access, Cpu, GuestFault, Note, View};
use crate::nested::Intercepts;
use exeunt_abi::Gpa;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One act of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read {
        gpa: Gpa,
        bytes: usize,
        access: Access,
    },
    Write {
        gpa: Gpa,
        bytes: Vec<u8>,
        access: Access,
    },
    Pvalidate {
        gpa: Gpa,
        is_2m: bool,
        validate: bool,
    },
    Rmpadjust {
        gpa: Gpa,
        is_2m: bool,
        attributes: u64,
    },
    /// Write the GHCB MSR, `VMGEXIT`, read the GHCB MSR.
    Vmgexit {
        ghcb_msr: u64,
    },
    Vmmcall {
        nr: u64,
        args: [u64; 4],
    },
    PortOut {
        port: u16,
        size: u8,
        value: u32,
    },
    PortIn {
        port: u16,
        size: u8,
    },
    /// `REP OUTS` or `REP INS`, upwards from an address.
    PortString {
        is_out: bool,
        port: u16,
        size: u8,
        at: Gpa,
        elements: u32,
    },
    Rdmsr {
        index: u32,
    },
    Wrmsr {
        index: u32,
        value: u64,
    },
    Cpuid {
        function: u32,
        index: u32,
    },
    /// `TDCALL` with these registers.
    Tdcall(Box<TdRegs>),
    /// What RCX was when the vCPU of a TD started.
    InitialRcx,
    Hlt,
    TripleFault,
    CloseEventWindow {
        context_invalid: bool,
    },
    /// `VMRUN` or `VMLAUNCH`.
    EnterL2 {
        control: Gpa,
        intercepts: Intercepts,
    },
    /// `VMMCALL` or `VMCALL` in L2.
    ExitL2,
    WriteCr4 {
        value: u64,
    },
    /// Write a synthetic register of Hyper-V.
    HypervWrite {
        index: u32,
        value: u64,
    },
    /// An arm64 `HVC` with a PSCI function.
    Psci {
        function: u32,
        args: [u64; 3],
    },
    /// A riscv64 `ECALL` from supervisor mode.
    Sbi {
        extension: u64,
        function: u64,
        args: [u64; 6],
    },
}

/// What an act resulted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Value(u64),
    /// EAX, EBX, ECX, EDX.
    Registers([u32; 4]),
    Bytes(Vec<u8>),
    /// The registers after a `TDCALL`.
    Tdcall(Box<TdRegs>),
    Fault(GuestFault),
}

thread_local! {
    /// Where the engine and the program that it polls hand each other acts and outcomes. A poll begins and ends on
    /// one thread and the slot is empty outside of it, so no vCPU sees another's, and a hand-over costs no lock.
    static HAND: Cell<Hand> = const { Cell::new(Hand::Empty) };
}

#[derive(Default)]
enum Hand {
    #[default]
    Empty,
    Op(Op),
    Outcome(Outcome),
}

/// Puts an act down for the engine.
pub(super) fn put_op(op: Op) {
    HAND.replace(Hand::Op(op));
}

/// Takes the outcome that the engine put down, if it did.
pub(super) fn take_outcome() -> Option<Outcome> {
    match HAND.take() {
        Hand::Outcome(outcome) => Some(outcome),
        other => {
            HAND.replace(other);
            None
        }
    }
}

/// What a guest says, for those who listen.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    listening: AtomicBool,
    notes: Mutex<Vec<Note>>,
}

impl Notes {
    /// Keeps a note if anyone listens; makes none otherwise.
    pub(crate) fn add(&self, note: impl FnOnce() -> Note) {
        if self.listening.load(Ordering::Relaxed) {
            self.lock().push(note());
        }
    }

    fn take(&self) -> Vec<Note> {
        self.listening.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest program, at any point of its work.
pub(crate) struct Program {
    future: Pin<Box<dyn Future<Output = Result<(), GuestFault>> + Send>>,
    /// It has done its first act.
    has_begun: bool,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("has_begun", &self.has_begun).finish_non_exhaustive()
    }
}

/// A program in the middle of its work, seen from the engine.
pub(crate) struct Running {
    notes: Arc<Notes>,
    view: Arc<View>,
    program: Option<Program>,
}

impl Running {
    pub(crate) fn start<P, F>(id: u64, seed: u64, program: P) -> Self
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let mut running = Self { notes: Arc::default(), view: Arc::default(), program: None };
        running.program = Some(running.make(id, seed, program));
        running
    }

    /// Makes another program for the same vCPU.
    pub(crate) fn make<P, F>(&self, id: u64, seed: u64, program: P) -> Program
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let cpu = Cpu::new(id, Arc::clone(&self.notes), Arc::clone(&self.view), seed);
        Program { future: Box::pin(program(cpu)), has_begun: false }
    }

    /// Runs another program from now on, or none, and returns the one that ran.
    pub(crate) fn replace(&mut self, program: Option<Program>) -> Option<Program> {
        std::mem::replace(&mut self.program, program)
    }

    /// The program has ended: all that is left is to halt.
    pub(crate) const fn is_over(&self) -> bool {
        self.program.is_none()
    }

    /// The program has done its first act, or is over.
    pub(crate) fn has_begun(&self) -> bool {
        self.program.as_ref().is_none_or(|program| program.has_begun)
    }

    /// What the program sees of its vCPU.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Runs the program up to its next act. A program that ended halts for ever; one that ended with an exception
    /// has no handler for it, which is a triple fault.
    pub(crate) fn next_op(&mut self, outcome: Option<Outcome>) -> Op {
        let Some(program) = self.program.as_mut() else { return Op::Hlt };
        program.has_begun = true;
        HAND.replace(outcome.map_or(Hand::Empty, Hand::Outcome));
        let polled = program.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match (polled, HAND.take()) {
            (Poll::Pending, Hand::Op(op)) => op,
            (Poll::Pending | Poll::Ready(Ok(())), _) => self.end(),
            (Poll::Ready(Err(fault)), _) => {
                self.end();
                self.note(|| Note::Saw(format!("{fault}, and has no handler")));
                Op::TripleFault
            }
        }
    }

    /// A program that waits for something other than the engine waits for ever, so it ends like one that is done.
    fn end(&mut self) -> Op {
        self.program = None;
        Op::Hlt
    }

    pub(crate) fn note(&self, note: impl FnOnce() -> Note) {
        self.notes.add(note);
    }

    pub(crate) fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("notes", &self.notes).finish_non_exhaustive()
    }
}
