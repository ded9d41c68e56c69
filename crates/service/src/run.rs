//! The loop: one exit after the other.

use crate::certs::Lease;
use crate::layer::trace::Observer;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::stop::Stop;
use exeunt_abi::Errno;
use exeunt_proto::exit::{self, Exit, MemoryFault};
use exeunt_proto::host::{Host, Vcpu};

/// How often in a row the same memory fault may come back before it counts as no progress.
const MAX_REPEATS: u32 = 16;

/// How many memory faults in a row may ask for what is so already. Other vCPUs may convert the same pages before this
/// one gets there, each of them once.
const MAX_IDLE_FAULTS: u32 = 4096;

/// Exits that may follow from answers alone. The longest request, a page-state change, has 253 entries.
const MAX_DRAINED: u32 = 1024;

/// Services one exit.
///
/// # Errors
///
/// The exit ends the run. Its answer, if it wants one, has not been written.
pub fn step(vcpu: &mut impl Vcpu, host: &mut impl Host, policy: &Policy) -> Result<(), Stop> {
    step_observed(vcpu, host, policy, &mut Watch::default(), &mut ())
}

/// As [`step`], with a watch that lasts from step to step, and someone who is told of each station.
///
/// # Errors
///
/// As for [`step`], and [`Stop::NoProgress`] from the watch.
pub fn step_observed(
    vcpu: &mut impl Vcpu,
    host: &mut impl Host,
    policy: &Policy,
    watch: &mut Watch,
    observer: &mut impl Observer,
) -> Result<(), Stop> {
    let entered = vcpu.enter(); // the kernel half writes the run page
    match service(entered, vcpu, host, policy, watch, observer)? {
        Some(lease) => commit_observed(lease, vcpu, host, policy, observer),
        None => Ok(()),
    }
}

/// The way of one exit after the entry.
fn service(
    entered: exit::Entered,
    vcpu: &mut impl Vcpu,
    host: &mut impl Host,
    policy: &Policy,
    watch: &mut Watch,
    observer: &mut impl Observer,
) -> Result<Option<Lease>, Stop> {
    let decoded = exit::decode(entered, vcpu.page(), vcpu.kernel()); // bytes -> meaning (pure)
    observer.exit(entered, vcpu.page(), &decoded);
    // Borrowed, because an exit is up to 260 bytes large and moving it costs more than planning it.
    let planned = decoded.as_ref().map_err(|error| Stop::from(*error)).and_then(|exit| {
        watch.note(exit)?;
        let plan = policy.plan(exit)?; // meaning -> intent (pure)
        watch.note_plan(exit, &plan)?;
        Ok(plan)
    });
    let plan = planned.inspect_err(|stop| {
        if let Some(exit) = decoded.as_ref().ok().filter(|_| policy.wants_dump(stop)) {
            host.dump(exit);
        }
        observer.stop(stop);
    })?;
    observer.plan(&plan);
    let answer = plan.carry_out_observed(host, vcpu.port_data(), observer); // the only side effects
    let (reply, kernel) = (answer.reply, vcpu.kernel());
    let lease = answer.encode(kernel, vcpu.page_mut()); // answer -> bytes (pure)
    observer.reply(reply, vcpu.page());
    Ok(lease)
}

/// Hands an answer over while what it speaks of cannot change: enters with `immediate_exit` until KVM says with `EINTR`
/// that nothing is pending, then ends the lease. Exits that follow from the answer are serviced.
///
/// # Errors
///
/// As for [`drain`]. The lease has ended in any case.
pub fn commit(lease: Lease, vcpu: &mut impl Vcpu, host: &mut impl Host, policy: &Policy) -> Result<(), Stop> {
    commit_observed(lease, vcpu, host, policy, &mut ())
}

fn commit_observed(
    lease: Lease,
    vcpu: &mut impl Vcpu,
    host: &mut impl Host,
    policy: &Policy,
    observer: &mut impl Observer,
) -> Result<(), Stop> {
    if lease.is_guarded() { drain_with(vec![lease], vcpu, host, policy, observer) } else { Ok(()) }
}

/// Services exits until one ends the run.
pub fn run(vcpu: &mut impl Vcpu, host: &mut impl Host, policy: &Policy) -> Stop {
    let mut watch = Watch::default();
    loop {
        if let Err(stop) = step_observed(vcpu, host, policy, &mut watch, &mut ()) {
            return stop;
        }
    }
}

/// Hands over every pending answer without running the guest, so that the vCPU can be saved. KVM says that nothing
/// is pending by `EINTR`; success means that an answer led to another exit, which is serviced in its turn.
///
/// Source: Linux v7.2 `Documentation/virt/kvm/api.rst`, the note on pending operations under `KVM_RUN`.
///
/// # Errors
///
/// An exit ends the run, or exits follow each other without an end.
pub fn drain(vcpu: &mut impl Vcpu, host: &mut impl Host, policy: &Policy) -> Result<(), Stop> {
    drain_with(Vec::new(), vcpu, host, policy, &mut ())
}

/// As [`drain`]. Leases that exits on the way bring end with it, too.
fn drain_with(
    mut leases: Vec<Lease>,
    vcpu: &mut impl Vcpu,
    host: &mut impl Host,
    policy: &Policy,
    observer: &mut impl Observer,
) -> Result<(), Stop> {
    let mut watch = Watch::default();
    for _ in 0..MAX_DRAINED {
        let entered = vcpu.enter_immediately();
        if entered == Err(Errno::EINTR) {
            return Ok(());
        }
        leases.extend(service(entered, vcpu, host, policy, &mut watch, observer)?);
    }
    let stop = Stop::Undrained { exits: MAX_DRAINED };
    observer.stop(&stop);
    Err(stop)
}

/// Notices a vCPU that does not get on: the same memory fault in a row, or faults that ask for what is so already.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    last: Option<(MemoryFault, u32)>,
    /// Faults in a row that there was nothing to do about.
    idle: u32,
}

impl Watch {
    /// Takes note of an exit before it is serviced. `EINTR` in between does not count as progress.
    ///
    /// # Errors
    ///
    /// [`Stop::NoProgress`] when the same fault has come too often.
    pub fn note(&mut self, exit: &Exit) -> Result<(), Stop> {
        match (exit, self.last) {
            (Exit::Again(_), _) => {}
            (Exit::MemoryFault(fault), Some((last, repeats))) if *fault == last => {
                let repeats = repeats.saturating_add(1);
                if repeats >= MAX_REPEATS {
                    return Err(Stop::NoProgress { fault: last, repeats });
                }
                self.last = Some((last, repeats));
            }
            (Exit::MemoryFault(fault), _) => self.last = Some((*fault, 1)),
            _ => *self = Self::default(),
        }
        Ok(())
    }

    /// Takes note of what is to be done about the exit.
    ///
    /// # Errors
    ///
    /// [`Stop::NoProgress`] when too many faults in a row, of whichever pages, were nothing to do about.
    pub fn note_plan(&mut self, exit: &Exit, plan: &Plan<'_>) -> Result<(), Stop> {
        match (exit, plan) {
            (Exit::MemoryFault(fault), Plan::Resume) => {
                self.idle = self.idle.saturating_add(1);
                if self.idle >= MAX_IDLE_FAULTS {
                    return Err(Stop::NoProgress { fault: *fault, repeats: self.idle });
                }
            }
            (Exit::Again(_), _) => {}
            _ => self.idle = 0,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
