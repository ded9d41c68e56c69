//! The vCPU as its guest sees it.

use super::mailbox::{Notes, Op, Outcome, put_op, take_outcome};
use super::{Access, GuestFault, Note, View};
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
    view: Arc<View>,
    rng: Mutex<Rng>,
}

impl Cpu {
    pub(crate) const fn new(id: u64, notes: Arc<Notes>, view: Arc<View>, seed: u64) -> Self {
        Self { id, notes, view, rng: Mutex::new(Rng::new(seed ^ id)) }
    }

    /// The vCPU's number, which a guest reads as its APIC id.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The address of the VMSA that the vCPU runs with, if a guest made it. `None` is the one that KVM made.
    #[must_use]
    pub fn vmsa(&self) -> Option<Gpa> {
        self.view.vmsa().map(Gpa)
    }

    /// The vector of the startup interrupt that came last, if one did.
    #[must_use]
    pub fn sipi_vector(&self) -> Option<u8> {
        self.view.sipi_vector()
    }

    /// The next of the interrupts that the vCPU got from a local APIC in the kernel.
    #[must_use]
    pub fn take_interrupt(&self) -> Option<u8> {
        self.view.take_interrupt()
    }

    /// Reads memory.
    ///
    /// # Errors
    ///
    /// The exception that the access raises; `#GP` for more than 1 MiB at once.
    pub fn read(&self, gpa: Gpa, bytes: usize, access: Access) -> Act<Vec<u8>> {
        Act::new(Op::Read { gpa, bytes, access }, |outcome| match outcome {
            Outcome::Bytes(bytes) => Ok(bytes),
            Outcome::Fault(fault) => Err(fault),
            _ => Ok(Vec::new()),
        })
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
    pub fn write(&self, gpa: Gpa, bytes: &[u8], access: Access) -> Act<()> {
        Act::new(Op::Write { gpa, bytes: bytes.to_vec(), access }, nothing)
    }

    /// `PVALIDATE` of one 4 KiB page. Returns the carry flag: whether the page was in that state already.
    ///
    /// # Errors
    ///
    /// `#UD` outside of SNP guests, `#GP` at another VMPL than 0.
    pub fn pvalidate(&self, gpa: Gpa, validate: bool) -> Act<bool> {
        Act::new(Op::Pvalidate { gpa, is_2m: false, validate }, carry)
    }

    /// `PVALIDATE` of the 2 MiB from an address on.
    ///
    /// # Errors
    ///
    /// As for [`Cpu::pvalidate`].
    pub fn pvalidate_2m(&self, gpa: Gpa, validate: bool) -> Act<Pvalidated> {
        Act::new(Op::Pvalidate { gpa, is_2m: true, validate }, pvalidated)
    }

    /// `RMPADJUST` of one page, or of 2 MiB, with RDX as it is: the target VMPL in bits 7:0, its permissions in bits
    /// 15:8, VMSA in bit 16. Returns EAX, a number of `exeunt_abi::rmp::instruction`.
    ///
    /// # Errors
    ///
    /// `#UD` outside of SNP guests; `#VC` for a page that is not validated.
    pub fn rmpadjust(&self, gpa: Gpa, is_2m: bool, attributes: u64) -> Act<u64> {
        Act::new(Op::Rmpadjust { gpa, is_2m, attributes }, value)
    }

    /// Writes the GHCB MSR, executes `VMGEXIT`, and returns the GHCB MSR when the guest runs again.
    ///
    /// # Errors
    ///
    /// `#GP` outside of SEV-ES and SNP guests.
    pub fn vmgexit(&self, ghcb_msr: u64) -> Act<u64> {
        Act::new(Op::Vmgexit { ghcb_msr }, value)
    }

    /// A hypercall. Returns RAX.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests, which make hypercalls through their GHCB; `#UD` on arm64.
    pub fn vmmcall(&self, nr: u64, args: [u64; 4]) -> Act<u64> {
        Act::new(Op::Vmmcall { nr, args }, value)
    }

    /// `OUT` of 1, 2 or 4 bytes.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests.
    pub fn port_out(&self, port: u16, size: u8, value: u32) -> Act<()> {
        Act::new(Op::PortOut { port, size, value }, nothing)
    }

    /// `IN` of 1, 2 or 4 bytes.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests.
    pub fn port_in(&self, port: u16, size: u8) -> Act<u64> {
        Act::new(Op::PortIn { port, size }, value)
    }

    /// `REP OUTS` of elements of 1, 2 or 4 bytes from this address upwards.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests, and where no memory is.
    pub fn port_out_string(&self, port: u16, size: u8, from: Gpa, elements: u32) -> Act<()> {
        Act::new(Op::PortString { is_out: true, port, size, at: from, elements }, nothing)
    }

    /// `REP INS` of elements of 1, 2 or 4 bytes to this address upwards.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests, and where no memory is.
    pub fn port_in_string(&self, port: u16, size: u8, to: Gpa, elements: u32) -> Act<()> {
        Act::new(Op::PortString { is_out: false, port, size, at: to, elements }, nothing)
    }

    /// `RDMSR` in ring 0. An SEV-ES guest reads its GHCB MSR without an exit.
    ///
    /// # Errors
    ///
    /// `#GP` for a register that neither KVM nor userspace gives; `#VC` in SEV-ES and SNP guests.
    pub fn rdmsr(&self, index: u32) -> Act<u64> {
        Act::new(Op::Rdmsr { index }, value)
    }

    /// `WRMSR` in ring 0. An SEV-ES guest writes its GHCB MSR without an exit.
    ///
    /// # Errors
    ///
    /// `#GP` for a register or a value that neither KVM nor userspace takes; `#VC` in SEV-ES and SNP guests.
    pub fn wrmsr(&self, index: u32, value: u64) -> Act<()> {
        Act::new(Op::Wrmsr { index, value }, nothing)
    }

    /// `CPUID`. Returns EAX, EBX, ECX and EDX.
    ///
    /// # Errors
    ///
    /// `#VC` in SEV-ES and SNP guests; `#UD` outside of x86.
    pub fn cpuid(&self, function: u32, index: u32) -> Act<[u32; 4]> {
        Act::new(Op::Cpuid { function, index }, |outcome| match outcome {
            Outcome::Registers(registers) => Ok(registers),
            other => nothing(other).map(|()| [0; 4]),
        })
    }

    /// `HLT`; `WFI` on arm64 and riscv64.
    pub async fn hlt(&self) {
        // Neither of the two has a result.
        let _ = Act::new(Op::Hlt, nothing).await;
    }

    /// An exception while a double fault is delivered.
    pub async fn triple_fault(&self) {
        let _ = Act::new(Op::TripleFault, nothing).await;
    }

    /// Asks a Hyper-V compatible host for a reset: writes 1 to `HV_X64_MSR_RESET`.
    ///
    /// # Errors
    ///
    /// `#GP` outside of ordinary x86 guests.
    pub fn hyperv_reset(&self) -> Act<()> {
        Act::new(Op::HypervWrite { index: 0x4000_0003, value: 1 }, nothing)
    }

    /// Writes a synthetic register of Hyper-V: `HV_X64_MSR_CRASH_P0` to `P4`, `HV_X64_MSR_CRASH_CTL`, which tells the
    /// host of a crash if bit 63 is set, or `HV_X64_MSR_RESET`.
    ///
    /// # Errors
    ///
    /// `#GP` for another register, and outside of ordinary x86 guests.
    pub fn hyperv_write(&self, index: u32, value: u64) -> Act<()> {
        Act::new(Op::HypervWrite { index, value }, nothing)
    }

    /// A riscv64 SBI call by `ECALL`. Returns a0 and a1.
    ///
    /// # Errors
    ///
    /// `#UD` on other architectures.
    pub fn sbi_call(&self, extension: u64, function: u64, args: [u64; 6]) -> Act<[u64; 2]> {
        Act::new(Op::Sbi { extension, function, args }, |outcome| match outcome {
            Outcome::Bytes(bytes) => {
                let word = |at: usize| {
                    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
                    word.map_or(0, |word| u64::from_le_bytes(*word))
                };
                Ok([word(0), word(8)])
            }
            Outcome::Fault(fault) => Err(fault),
            _ => Ok([0; 2]),
        })
    }

    /// An arm64 PSCI call by `HVC`. Returns x0.
    ///
    /// # Errors
    ///
    /// `#UD` on x86.
    pub fn psci(&self, function: u32, args: [u64; 3]) -> Act<u64> {
        Act::new(Op::Psci { function, args }, value)
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

/// What `PVALIDATE` left in the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pvalidated {
    /// EAX: a number of `exeunt_abi::rmp::instruction`.
    pub code: u64,
    /// The carry flag: the page was in that state already.
    pub unchanged: bool,
}

/// An act on its way: it is put down for the engine at the first poll and awaits its outcome after that.
///
/// It resolves to the exception that the guest gets, or to what the instruction leaves.
#[derive(Debug)]
#[must_use = "an act that is not awaited does not happen"]
pub struct Act<T> {
    op: Option<Op>,
    read: fn(Outcome) -> Result<T, GuestFault>,
}

impl<T> Act<T> {
    pub(super) const fn new(op: Op, read: fn(Outcome) -> Result<T, GuestFault>) -> Self {
        Self { op: Some(op), read }
    }
}

impl<T> Future for Act<T> {
    type Output = Result<T, GuestFault>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.op.take() {
            Some(op) => {
                put_op(op);
                Poll::Pending
            }
            None => take_outcome().map_or(Poll::Pending, |outcome| Poll::Ready((self.read)(outcome))),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an act hands its outcome over")]
pub(super) fn value(outcome: Outcome) -> Result<u64, GuestFault> {
    match outcome {
        Outcome::Value(value) => Ok(value),
        Outcome::Fault(fault) => Err(fault),
        _ => Ok(0),
    }
}

/// The carry flag that `PVALIDATE` left.
fn carry(outcome: Outcome) -> Result<bool, GuestFault> {
    pvalidated(outcome).map(|left| left.unchanged)
}

fn pvalidated(outcome: Outcome) -> Result<Pvalidated, GuestFault> {
    value(outcome).map(|left| Pvalidated { code: left & 0xffff_ffff, unchanged: left >> 32 & 1 != 0 })
}

pub(super) fn nothing(outcome: Outcome) -> Result<(), GuestFault> {
    value(outcome).map(|_| ())
}
