//! A kernel half that plays scripts, and what it answers.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod on_kvm;
mod on_model;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod watchdog;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use on_kvm::OnKvm;
pub use on_model::OnModel;

use crate::script::{Act, Features, LOG_BYTES, Script, Step};
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::{DIRECTION_OUT, ExitReason, Io};
use exeunt_proto::host::{Events, Vcpu};
use zerocopy::IntoBytes;

/// What a step came to, as far as both halves promise the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result of the call.
    pub result: Result<u64, Errno>,
    /// What can be seen after it: parts with their names.
    pub seen: Vec<(&'static str, Vec<u8>)>,
}

impl Answer {
    /// A call that shows nothing but its result.
    #[must_use]
    pub const fn of(result: Result<u64, Errno>) -> Self {
        Self { result, seen: Vec::new() }
    }

    /// A call without a value.
    #[must_use]
    pub fn done(result: Result<(), Errno>) -> Self {
        Self::of(result.map(|()| 0))
    }

    /// A part of what can be seen.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        self.seen.iter().find(|(part, _)| *part == name).map(|(_, bytes)| bytes.as_slice())
    }
}

/// A kernel half that can play scripts.
pub trait Half {
    /// Makes a new VM and does all steps in order. The first answer is that of `KVM_CREATE_VM`; if it is an error
    /// there are no others.
    fn play(&self, script: &Script, features: Features) -> Vec<Answer>;
}

/// A VM in the middle of a script.
trait Machine {
    type Vcpu: Vcpu + Events;

    /// The vCPU.
    fn vcpu(&mut self) -> &mut Self::Vcpu;

    /// A step that is not a matter of the port.
    fn other(&mut self, step: &Step) -> Answer;

    /// The log of the guest.
    fn log(&mut self, bytes: &mut [u8]);
}

/// Does the steps of a script.
///
/// A guest that shut itself down is not run again: an AMD CPU leaves its state undefined then.
fn perform_all<M: Machine>(machine: &mut M, script: &Script) -> Vec<Answer> {
    let shuts_down = script.acts.contains(&Act::TripleFault);
    let mut answers = vec![Answer::done(Ok(()))];
    let mut is_down = false;
    for step in &script.steps {
        if is_down && matches!(step, Step::Enter | Step::EnterImmediately) {
            break;
        }
        let answer = perform(machine, step);
        let reason = answer.part("exit_reason").and_then(|bytes| bytes.first_chunk().copied());
        let is_shutdown = reason.map(u32::from_le_bytes) == Some(ExitReason::SHUTDOWN.0);
        is_down |= shuts_down && is_shutdown && answer.result.is_ok();
        answers.push(answer);
    }
    answers
}

/// Does one step.
fn perform<M: Machine>(machine: &mut M, step: &Step) -> Answer {
    match *step {
        Step::Fill(byte) => {
            machine.vcpu().page_mut().exit.fill(byte);
            Answer::done(Ok(()))
        }
        Step::PutUnion { offset, value } => {
            machine.vcpu().page_mut().set_bytes(offset.into(), &value.to_le_bytes());
            Answer::done(Ok(()))
        }
        Step::PutPort(value) => {
            if let Some(data) = machine.vcpu().port_data().first_chunk_mut() {
                *data = value.to_le_bytes();
            }
            Answer::done(Ok(()))
        }
        Step::Enter => {
            let entered = machine.vcpu().enter();
            seen_after(machine, entered)
        }
        Step::EnterImmediately => {
            let entered = machine.vcpu().enter_immediately();
            seen_after(machine, entered)
        }
        Step::GetEvents => match machine.vcpu().events() {
            Ok(events) => Answer { result: Ok(0), seen: vec![("events", events.as_bytes().to_vec())] },
            Err(errno) => Answer::of(Err(errno)),
        },
        Step::SetEvents(events) => Answer::done(machine.vcpu().set_events(&events)),
        _ => machine.other(step),
    }
}

fn seen_after<M: Machine>(machine: &mut M, entered: Result<(), Errno>) -> Answer {
    let mut log = vec![0; LOG_BYTES];
    machine.log(&mut log);
    let vcpu = machine.vcpu();
    let page = vcpu.page();
    let mut seen = vec![
        ("exit_reason", page.exit_reason.to_le_bytes().to_vec()),
        ("flags", page.flags.to_le_bytes().to_vec()),
        ("union", page.exit.to_vec()),
        ("log", log),
    ];
    let io: Io = page.payload();
    if entered.is_ok() && page.reason() == ExitReason::IO && io.direction == DIRECTION_OUT {
        let bytes = usize::from(io.size).saturating_mul(usize::try_from(io.count).unwrap_or(0));
        seen.push(("port", vcpu.port_data().get(..bytes).unwrap_or_default().to_vec()));
    }
    Answer { result: entered.map(|()| 0), seen }
}
