//! The vCPU as its guest sees it.

use super::mailbox::{Notes, Op, Outcome, put_op, take_outcome};
use super::{Access, GuestFault, Note};
use crate::Rng;
use exeunt_abi::Gpa;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// A vCPU in the hands of a guest program.
#[derive(Debug)]
pub struct Cpu {
    id: u64,
    notes: Arc<Notes>,
    rng: Mutex<Rng>,
}

impl Cpu {
    pub(crate) const fn new(id: u64, notes: Arc<Notes>, seed: u64) -> Self {
        Self { id, notes, rng: Mutex::new(Rng::new(seed ^ id)) }
    }

    /// The vCPU's number, which a guest reads as its APIC id.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Reads memory.
    ///
    /// # Errors
    ///
    /// The exception that the access raises; `#GP` for more than 1 MiB at once.
    pub async fn read(&self, gpa: Gpa, bytes: usize, access: Access) -> Result<Vec<u8>, GuestFault> {
        match act(Op::Read { gpa, bytes, access }).await {
            Outcome::Bytes(bytes) => Ok(bytes),
            Outcome::Fault(fault) => Err(fault),
            Outcome::Done | Outcome::Value(_) => Ok(Vec::new()),
        }
    }

    /// Reads a little-endian word of memory.
    ///
    /// # Errors
    ///
    /// The exception that the access raises.
    pub async fn read_u64(&self, gpa: Gpa, access: Access) -> Result<u64, GuestFault> {
        let bytes = self.read(gpa, 8, access).await?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// Writes memory.
    ///
    /// # Errors
    ///
    /// The exception that the access raises.
    pub async fn write(&self, gpa: Gpa, bytes: &[u8], access: Access) -> Result<(), GuestFault> {
        act_for_value(Op::Write { gpa, bytes: bytes.to_vec(), access }).await.map(|_| ())
    }

    /// `PVALIDATE` of one 4 KiB page. Returns the carry flag: whether the page was in that state already.
    ///
    /// # Errors
    ///
    /// `#UD` outside of SNP guests.
    pub async fn pvalidate(&self, gpa: Gpa, validate: bool) -> Result<bool, GuestFault> {
        act_for_value(Op::Pvalidate { gpa, validate }).await.map(|carry| carry != 0)
    }

    /// Writes the GHCB MSR, executes `VMGEXIT`, and returns the GHCB MSR when the guest runs again.
    ///
    /// # Errors
    ///
    /// `#GP` outside of SEV-ES and SNP guests.
    pub async fn vmgexit(&self, ghcb_msr: u64) -> Result<u64, GuestFault> {
        act_for_value(Op::Vmgexit { ghcb_msr }).await
    }

    /// A hypercall. Returns RAX.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests, which make hypercalls through their GHCB; `#UD` on arm64.
    pub async fn vmmcall(&self, nr: u64, args: [u64; 4]) -> Result<u64, GuestFault> {
        act_for_value(Op::Vmmcall { nr, args }).await
    }

    /// `OUT` of 1, 2 or 4 bytes.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests.
    pub async fn port_out(&self, port: u16, size: u8, value: u32) -> Result<(), GuestFault> {
        act_for_value(Op::PortOut { port, size, value }).await.map(|_| ())
    }

    /// `IN` of 1, 2 or 4 bytes.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests.
    pub async fn port_in(&self, port: u16, size: u8) -> Result<u64, GuestFault> {
        act_for_value(Op::PortIn { port, size }).await
    }

    /// `HLT`.
    pub async fn hlt(&self) {
        act(Op::Hlt).await;
    }

    /// An exception while a double fault is delivered.
    pub async fn triple_fault(&self) {
        act(Op::TripleFault).await;
    }

    /// Asks a Hyper-V compatible host for a reset: writes 1 to `HV_X64_MSR_RESET`.
    ///
    /// # Errors
    ///
    /// `#GP` outside of ordinary x86 guests.
    pub async fn hyperv_reset(&self) -> Result<(), GuestFault> {
        act_for_value(Op::HypervReset).await.map(|_| ())
    }

    /// An arm64 PSCI call by `HVC`. Returns x0.
    ///
    /// # Errors
    ///
    /// `#UD` on x86.
    pub async fn psci(&self, function: u32, args: [u64; 3]) -> Result<u64, GuestFault> {
        act_for_value(Op::Psci { function, args }).await
    }

    /// Says what the guest saw. It is no act: nothing of it reaches the host.
    pub fn saw(&self, what: impl FnOnce() -> String) {
        self.notes.add(|| Note::Saw(what()));
    }

    /// A number that the seed decides.
    pub fn random(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

const fn act(op: Op) -> Act {
    Act(Some(op))
}

async fn act_for_value(op: Op) -> Result<u64, GuestFault> {
    match act(op).await {
        Outcome::Value(value) => Ok(value),
        Outcome::Fault(fault) => Err(fault),
        Outcome::Done | Outcome::Bytes(_) => Ok(0),
    }
}

/// An act on its way: it is put down for the engine at the first poll and awaits its outcome after that.
struct Act(Option<Op>);

impl Future for Act {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
        match self.0.take() {
            Some(op) => {
                put_op(op);
                Poll::Pending
            }
            None => take_outcome().map_or(Poll::Pending, Poll::Ready),
        }
    }
}
