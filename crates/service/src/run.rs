//! The loop: one exit after the other.

use crate::layer::trace::Observer;
use crate::policy::Policy;
use crate::stop::Stop;
use exeunt_abi::Errno;
use exeunt_proto::exit::{self, Exit, MemoryFault};
use exeunt_proto::host::{Host, Vcpu};
use exeunt_proto::reply;

/// How often in a row the same memory fault may come back before it counts as no progress.
const MAX_REPEATS: u32 = 16;

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
    service(entered, vcpu, host, policy, watch, observer)
}

/// The way of one exit after the entry.
fn service(
    entered: exit::Entered,
    vcpu: &mut impl Vcpu,
    host: &mut impl Host,
    policy: &Policy,
    watch: &mut Watch,
    observer: &mut impl Observer,
) -> Result<(), Stop> {
    let decoded = exit::decode(entered, vcpu.page(), vcpu.kernel()); // bytes -> meaning (pure)
    observer.exit(entered, vcpu.page(), &decoded);
    // Borrowed, because an exit is up to 260 bytes large and moving it costs more than planning it.
    let exit = decoded.as_ref().map_err(|error| *error)?;
    watch.note(exit)?;
    let plan = policy.plan(exit)?; // meaning -> intent (pure)
    observer.plan(&plan);
    let reply = plan.carry_out_observed(host, vcpu.port_data(), observer); // the only side effects
    let kernel = vcpu.kernel();
    reply::encode(reply, kernel, vcpu.page_mut()); // answer -> bytes (pure)
    observer.reply(reply, vcpu.page());
    Ok(())
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
    let mut watch = Watch::default();
    for _ in 0..MAX_DRAINED {
        let entered = vcpu.enter_immediately();
        if entered == Err(Errno::EINTR) {
            return Ok(());
        }
        service(entered, vcpu, host, policy, &mut watch, &mut ())?;
    }
    Err(Stop::Undrained { exits: MAX_DRAINED })
}

/// Notices a vCPU that does not get on: the same memory fault in a row.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    last: Option<(MemoryFault, u32)>,
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
            _ => self.last = None,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
