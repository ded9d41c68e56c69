//! How a program and the engine hand each other acts and results.

use super::{Access, Cpu, GuestFault, Note};
use exeunt_abi::Gpa;
use std::future::Future;
use std::pin::Pin;
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
        validate: bool,
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
    Hlt,
    TripleFault,
    /// Write `HV_X64_MSR_RESET`.
    HypervReset,
    /// An arm64 `HVC` with a PSCI function.
    Psci {
        function: u32,
        args: [u64; 3],
    },
}

/// What an act resulted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Value(u64),
    Bytes(Vec<u8>),
    Fault(GuestFault),
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    pub(crate) op: Option<Op>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) notes: Vec<Note>,
    /// Whether anyone reads the notes.
    pub(crate) listening: bool,
}

/// A mailbox that a program and its engine share.
pub(crate) type Shared = Arc<Mutex<Mailbox>>;

pub(crate) fn lock(shared: &Shared) -> MutexGuard<'_, Mailbox> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

type Program = Pin<Box<dyn Future<Output = Result<(), GuestFault>> + Send>>;

/// A program in the middle of its work, seen from the engine.
pub(crate) struct Running {
    mailbox: Shared,
    program: Option<Program>,
}

impl Running {
    pub(crate) fn start<P, F>(id: u64, seed: u64, program: P) -> Self
    where
        P: FnOnce(Cpu) -> F,
        F: Future<Output = Result<(), GuestFault>> + Send + 'static,
    {
        let mailbox = Shared::default();
        let cpu = Cpu::new(id, Arc::clone(&mailbox), seed);
        Self { mailbox, program: Some(Box::pin(program(cpu))) }
    }

    /// Runs the program up to its next act. A program that ended halts for ever; one that ended with an exception
    /// has no handler for it, which is a triple fault.
    pub(crate) fn next_op(&mut self, outcome: Option<Outcome>) -> Op {
        let Some(program) = self.program.as_mut() else { return Op::Hlt };
        if outcome.is_some() {
            lock(&self.mailbox).outcome = outcome;
        }
        match program.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                let op = lock(&self.mailbox).op.take();
                op.unwrap_or_else(|| self.end())
            }
            Poll::Ready(Ok(())) => self.end(),
            Poll::Ready(Err(fault)) => {
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
        let mut mailbox = lock(&self.mailbox);
        if mailbox.listening {
            let note = note();
            mailbox.notes.push(note);
        }
    }

    pub(crate) fn take_notes(&self) -> Vec<Note> {
        let mut mailbox = lock(&self.mailbox);
        mailbox.listening = true;
        std::mem::take(&mut mailbox.notes)
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("mailbox", &self.mailbox).finish_non_exhaustive()
    }
}
