//! What a VMM has decided about the exits of its guests.

use crate::certs::Certificates;
use crate::fault;
use crate::memory::GuestMemory;
use crate::plan::Plan;
use crate::stop::Stop;
use crate::tdx::TdxPolicy;
use crate::terminate::StopKind;
use exeunt_abi::Gpa;
use exeunt_abi::kvm::run::{MAP_GPA_RANGE, NOTIFY_CONTEXT_INVALID};
use exeunt_proto::conversion::{PageRange, map_gpa_range};
use exeunt_proto::exit::{EventType, Exit, Hypercall, SystemEvent};
use exeunt_proto::ghci::FatalError;
use exeunt_proto::termination::SevTermination;
use std::sync::Arc;

/// What a memory fault leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultPolicy {
    /// The end. A guest that follows its specification converts explicitly, so a fault is a bug or an attack.
    #[default]
    Stop,
    /// The page becomes what the access wants it to be.
    Convert,
}

/// What a request of the guest for an end leads to. A host need not honour it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventPolicy {
    /// The run ends with [`Stop::Event`].
    #[default]
    Stop,
    /// The vCPU is entered again.
    Ignore,
    /// As [`EventPolicy::Stop`], and the host is told to keep what it can of the guest: see `Host::dump`.
    Dump,
}

/// The decisions of a VMM. Planning changes nothing, so vCPU threads share one; clones share the memory.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    memory: Arc<GuestMemory>,
    /// Implicit conversion, or not.
    pub memory_faults: FaultPolicy,
    /// `KVM_SYSTEM_EVENT_SHUTDOWN`.
    pub shutdown: EventPolicy,
    /// `KVM_SYSTEM_EVENT_RESET`.
    pub reset: EventPolicy,
    /// `KVM_SYSTEM_EVENT_CRASH`.
    pub crash: EventPolicy,
    /// Whether every other end that is a failure is dumped as well: triple faults, terminations, memory faults, failures
    /// of KVM. See `StopKind::is_failure`.
    pub dumps_failures: bool,
    /// What SNP guests get that ask for certificates.
    pub certificates: Certificates,
    /// What TDs get that make calls.
    pub tdx: TdxPolicy,
}

impl Policy {
    /// The defaults for a VM with this memory: convert what is asked for, stop at faults, give an empty table.
    #[must_use]
    pub fn new(memory: impl Into<Arc<GuestMemory>>) -> Self {
        Self { memory: memory.into(), ..Self::default() }
    }

    /// The memory that the guest has.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Plans the answer to an exit. It is pure: effects are in the plan, and none has happened.
    ///
    /// # Errors
    ///
    /// The exit ends the run.
    pub fn plan(&self, exit: &Exit) -> Result<Plan<'_>, Stop> {
        match exit {
            Exit::Again(_) => Ok(Plan::Resume),
            Exit::Tdx(tdx) => Ok(Plan::Tdx(self.tdx.plan(tdx.call, &self.memory))),
            Exit::Rdmsr(_) | Exit::Wrmsr(_) => Ok(Plan::RefuseMsr),
            Exit::Io(io) => Ok(Plan::PortIo(*io)),
            Exit::Mmio(mmio) => Ok(Plan::Mmio(*mmio)),
            Exit::Hypercall(hypercall) => Ok(self.plan_hypercall(hypercall)),
            Exit::SnpReqCerts(request) => {
                let is_writable = |gpa: Gpa, pages| {
                    PageRange::new(gpa.gfn(), pages).is_some_and(|range| self.memory.is_shared(range))
                };
                Ok(Plan::Certs(self.certificates.plan(*request, is_writable), &self.memory))
            }
            Exit::Vmgexit { ghcb_msr } => Ok(Plan::Vmgexit { ghcb_msr: *ghcb_msr, memory: &self.memory }),
            Exit::MemoryFault(memory_fault) => Ok(match fault::conversion_for(*memory_fault, self)? {
                Some(conversion) => Plan::ConvertForFault { conversion, memory: &self.memory },
                None => Plan::Resume,
            }),
            Exit::SystemEvent(event) => self.plan_event(event),
            Exit::Notify { flags } if flags & NOTIFY_CONTEXT_INVALID == 0 => Ok(Plan::Resume),
            Exit::Notify { flags } => Err(Stop::ContextInvalid { flags: *flags }),
            Exit::Hlt => Err(Stop::Halted),
            Exit::Shutdown => Err(Stop::Shutdown),
            Exit::FailEntry(fail) => Err(Stop::FailEntry(*fail)),
            Exit::InternalError(error) => Err(Stop::InternalError(Box::new(*error))),
            Exit::Other(other) => Err(Stop::UnknownExit(Box::new(*other))),
            exit => Err(Stop::Unplanned(Box::new(*exit))),
        }
    }

    /// Whether the host is to keep what it can of the guest before this end: [`step`](crate::run::step) asks, and who
    /// calls [`Policy::plan`] on his own asks as well.
    #[must_use]
    pub fn wants_dump(&self, stop: &Stop) -> bool {
        match stop.kind() {
            StopKind::Shutdown => self.shutdown == EventPolicy::Dump,
            StopKind::Reset => self.reset == EventPolicy::Dump,
            StopKind::Crash => self.crash == EventPolicy::Dump || self.dumps_failures,
            kind => self.dumps_failures && kind.is_failure(),
        }
    }

    fn plan_hypercall(&self, hypercall: &Hypercall) -> Plan<'_> {
        if hypercall.nr != MAP_GPA_RANGE {
            return Plan::UnknownHypercall;
        }
        let [gpa, pages, attributes, ..] = hypercall.args;
        match map_gpa_range([gpa, pages, attributes]) {
            Ok(conversion) if self.memory.allows(conversion) => {
                Plan::Convert { conversion, memory: &self.memory }
            }
            Ok(conversion) => Plan::NoPrivateMemory(conversion),
            Err(error) => Plan::RefuseConversion(error),
        }
    }

    fn plan_event(&self, exit: &SystemEvent) -> Result<Plan<'_>, Stop> {
        let policy = match exit.event {
            EventType::Shutdown => self.shutdown,
            EventType::Reset => self.reset,
            EventType::Crash => self.crash,
            EventType::SevTerm => {
                let reason = exit.data.first().map(SevTermination::from_msr);
                return Err(reason.map_or_else(|| Stop::Event(Box::new(*exit)), Stop::Terminated));
            }
            EventType::TdxFatal => {
                let error = FatalError::from_words(&exit.data);
                let stop = error.map(|error| Stop::FatalError(Box::new(error)));
                return Err(stop.unwrap_or_else(|| Stop::Event(Box::new(*exit))));
            }
            EventType::Unknown(_) => return Err(Stop::UnknownEvent(Box::new(*exit))),
            _ => EventPolicy::Stop,
        };
        match policy {
            EventPolicy::Ignore => Ok(Plan::Resume),
            EventPolicy::Stop | EventPolicy::Dump => Err(Stop::Event(Box::new(*exit))),
        }
    }
}

#[cfg(test)]
mod tests;
