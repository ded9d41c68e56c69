//! The leaf: one vCPU's way through the exits that are confidential, inside of somebody else's loop.

use std::ops::Range;

use exeunt::certs::Lease;
use exeunt::layer::trace::Observer;
use exeunt::{Answer, Policy, Stop, Watch};
use exeunt_abi::kvm::run::{ExitReason, RunPage, UNION_BYTES};
use exeunt_abi::{CertsForm, Errno, Kernel};
use exeunt_proto::exit::{self, Entered, Exit};
use exeunt_proto::host::Host;
use exeunt_proto::reply::{Reply, VmgexitReply};

/// A live `kvm_run`, outside of `KVM_RUN`.
pub trait Live {
    /// `exit_reason`.
    fn reason(&self) -> ExitReason;

    /// Copies the page out, from `exit_reason` to the end of the union. What is before it stays zero, because other
    /// threads write there.
    fn take(&self, page: &mut RunPage);

    /// Writes bytes into the union, `offset` bytes behind its start.
    fn put(&mut self, offset: usize, bytes: &[u8]);

    /// Makes the next entries return with `EINTR` before they run the guest: sets a bit of `immediate_exit` that
    /// nobody else sets or clears. Only an answer with certificates that are locked asks for it.
    fn hold(&mut self);

    /// Takes that back.
    fn release(&mut self);
}

/// What became of an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Served {
    /// It is answered: enter again.
    Served,
    /// It is none of the confidential exits, or no exit: go on with the `match` that was there before. The page is as
    /// the kernel left it.
    NotOurs,
    /// The vCPU is not to be entered again. What to log and which status to end with is in the [`Stop`].
    Stop(Stop),
}

/// The exits that a [`Leaf`] services: hypercalls, memory faults, requests for certificates, calls of a TD, system
/// events, triple faults, and the `VMGEXIT` of the proposal `vmgexit-v10`.
///
/// Port I/O, MMIO, MSRs, `HLT`, interrupt windows, failures of KVM and failed entries stay with the VMM.
#[must_use]
pub const fn is_ours(exit: &Exit) -> bool {
    matches!(
        exit,
        Exit::Hypercall(_)
            | Exit::MemoryFault(_)
            | Exit::SnpReqCerts(_)
            | Exit::Tdx(_)
            | Exit::SystemEvent(_)
            | Exit::Shutdown
            | Exit::Vmgexit { .. }
    )
}

/// What one vCPU keeps from exit to exit: its host, who watches, and whether it gets on.
#[derive(Debug)]
pub struct Leaf<H, O = ()> {
    kernel: Kernel,
    host: H,
    observer: O,
    watch: Watch,
    page: RunPage,
    /// Leases that end when KVM has taken the answer, and how many exits came since.
    held: Vec<Lease>,
    held_exits: u32,
}

/// Exits that may follow from answers alone. The longest request, a page-state change, has 253 entries.
const MAX_HELD: u32 = 1024;

impl<H: Host> Leaf<H> {
    /// A leaf for one vCPU. `kernel` says which kernel writes the page: [`Kernel::default`] is right on x86-64 from
    /// Linux 5.18 on.
    pub fn new(kernel: Kernel, host: H) -> Self {
        let (watch, page) = (Watch::default(), RunPage::zeroed());
        Self { kernel, host, observer: (), watch, page, held: Vec::new(), held_exits: 0 }
    }

    /// The same with someone who is told of each event.
    pub fn observed<O: Observer>(self, observer: O) -> Leaf<H, O> {
        let Self { kernel, host, watch, page, held, held_exits, .. } = self;
        Leaf { kernel, host, observer, watch, page, held, held_exits }
    }
}

impl<H: Host, O: Observer> Leaf<H, O> {
    /// Services the exit that `KVM_RUN` brought, if it is one of ours: one copy of the page, the effects on the host,
    /// and the bytes of the answer written back, `ret` last.
    ///
    /// `entered` is the result of `KVM_RUN`. Call it after each, `EINTR` too, before anything else looks at the page:
    /// certificates that come with a lock on their file stay locked until KVM has said with `EINTR` that it took them.
    pub fn serve(&mut self, entered: Entered, live: &mut impl Live, policy: &Policy) -> Served {
        if self.is_held() {
            if entered == Err(Errno::EINTR) {
                self.release(live);
                return Served::NotOurs;
            }
            self.held_exits = self.held_exits.saturating_add(1);
            if self.held_exits > MAX_HELD {
                return self.stop(Stop::Undrained { exits: MAX_HELD }, live);
            }
            // A VMM that takes its own kick back by a plain store has taken this back as well.
            live.hold();
        }
        if !may_be_ours(entered, live.reason()) {
            if entered.is_ok() {
                // The vCPU got on: the next memory fault is a first one.
                self.watch = Watch::default();
            }
            return Served::NotOurs;
        }
        live.take(&mut self.page);
        let decoded = exit::decode(entered, &self.page, self.kernel);
        let Ok(exit) = decoded.as_ref() else { return Served::NotOurs };
        if !is_ours(exit) {
            return Served::NotOurs;
        }
        self.observer.exit(entered, &self.page, &decoded);
        match self.answer(exit, policy) {
            Ok(answer) => self.reply(answer, live),
            Err(stop) => {
                if policy.wants_dump(&stop) {
                    self.host.dump(exit);
                }
                self.stop(stop, live)
            }
        }
    }

    /// Whether an answer is held until KVM has taken it: the next entry will not run the guest.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn answer(&mut self, exit: &Exit, policy: &Policy) -> Result<Answer, Stop> {
        self.watch.note(exit)?;
        let plan = policy.plan(exit)?;
        self.watch.note_plan(exit, &plan)?;
        self.observer.plan(&plan);
        // The port page is for port I/O, which is not ours.
        Ok(plan.carry_out_observed(&mut self.host, &mut [], &mut self.observer))
    }

    fn reply(&mut self, answer: Answer, live: &mut impl Live) -> Served {
        let reply = answer.reply;
        let lease = answer.encode(self.kernel, &mut self.page);
        for span in spans(reply, self.kernel) {
            live.put(span.start, self.page.exit.get(span).unwrap_or_default());
        }
        if let Some(lease) = lease.filter(Lease::is_guarded) {
            live.hold();
            self.held.push(lease);
        }
        self.observer.reply(reply, &self.page);
        Served::Served
    }

    /// Ends the run: nothing is held any more, and the observer knows.
    pub(crate) fn stop(&mut self, stop: Stop, live: &mut impl Live) -> Served {
        if self.is_held() {
            self.release(live);
        }
        self.observer.stop(&stop);
        Served::Stop(stop)
    }

    fn release(&mut self, live: &mut impl Live) {
        live.release();
        self.held.clear();
        self.held_exits = 0;
    }

    #[cfg(test)]
    pub(crate) const fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }

    /// The host, for who made the leaf.
    pub const fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }
}

/// Tells by the number alone that an exit is none of ours, so that the others cost one load.
fn may_be_ours(entered: Entered, reason: ExitReason) -> bool {
    match entered {
        Ok(()) => !matches!(
            reason,
            ExitReason::IO
                | ExitReason::MMIO
                | ExitReason::HLT
                | ExitReason::X86_RDMSR
                | ExitReason::X86_WRMSR
                | ExitReason::FAIL_ENTRY
                | ExitReason::INTERNAL_ERROR
        ),
        Err(errno) => matches!(errno, Errno::EFAULT | Errno::EHWPOISON),
    }
}

/// The bytes of the union that an answer is made of, payload first and `ret` last.
fn spans(reply: Reply, kernel: Kernel) -> impl Iterator<Item = Range<usize>> {
    let spans = match reply {
        Reply::None => [0..0, 0..0],
        Reply::Conversion(_) | Reply::UnknownHypercall => [0..0, 56..64],
        Reply::Certs(_) if kernel.dialect.certs_form() == CertsForm::Coco => [16..20, 20..24],
        Reply::Certs(_) => [8..16, 16..24],
        Reply::Vmgexit(VmgexitReply::Page(_)) => [0..0, 8..16],
        Reply::Vmgexit(VmgexitReply::Msr(_)) => [0..8, 8..16],
        Reply::Tdx(_) => [TDX_ARGS..TDX_END, TDX_RET..TDX_ARGS],
        // Neither is an answer to one of ours.
        Reply::MmioRead(_) | Reply::Msr(_) => [0..UNION_BYTES, 0..0],
    };
    spans.into_iter().filter(|span| !span.is_empty())
}

/// `tdx.unknown.ret` and the `ret` of each other member, behind flags and number.
const TDX_RET: usize = 16;
/// What follows it: arguments, or the registers of the answer to `GetTdVmCallInfo`.
const TDX_ARGS: usize = 24;
/// The end of the longest answer: `ret`, `leaf` and four registers.
const TDX_END: usize = 64;

#[cfg(test)]
mod tests;
