//! What happened, in order: who did what.

use exeunt::Plan;
use exeunt::layer::trace::Observer;
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_proto::exit::{DecodeError, Entered, EventType, Exit, SystemEvent};
use exeunt_proto::host::{Action, Backing};
use exeunt_proto::reply::{CertsReply, Reply, VmgexitReply};
use exeunt_proto::termination::SevTermination;
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Write;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "who", rename_all = "kebab-case")]
pub enum Event {
    /// The VMM did something outside of an exit.
    Vmm {
        /// What.
        text: String,
    },
    /// The guest did something that leaves it.
    Guest {
        /// Which vCPU.
        vcpu: u64,
        /// What.
        text: String,
    },
    /// The guest found something in its registers or memory.
    Saw {
        /// Which vCPU.
        vcpu: u64,
        /// What.
        text: String,
    },
    /// `KVM_RUN` came back.
    Kernel {
        /// 0, or the name of the error.
        result: String,
        /// The exit reason; stale with most errors.
        reason: String,
        /// The bytes of the union that belong to the exit, in hex.
        bytes: String,
        /// What they mean.
        meaning: String,
    },
    /// What is to be done.
    Plan {
        /// What.
        text: String,
    },
    /// What was done to the host.
    Effect {
        /// What.
        text: String,
        /// `ok`, or the name of the error.
        result: String,
    },
    /// What was answered.
    Reply {
        /// What.
        text: String,
    },
    /// How a VMM with other headers, or of another word size, reads the page.
    Read {
        /// Whose headers, and the word size.
        reader: String,
        /// What it makes of the bytes.
        text: String,
    },
}

/// Events in the order in which they happened. It is shared by all who add to it.
#[derive(Debug, Default)]
pub struct Log(RefCell<Vec<Event>>);

impl Log {
    /// Adds an event.
    pub fn add(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }

    /// Adds something that the VMM does.
    pub fn vmm(&self, text: impl Into<String>) {
        self.add(Event::Vmm { text: text.into() });
    }

    /// Takes the events out.
    #[must_use]
    pub fn into_events(self) -> Vec<Event> {
        self.0.into_inner()
    }
}

/// Writes down each station of an exit.
pub(crate) struct Recorder<'a> {
    pub(crate) log: &'a Log,
    /// Names of the exits so far.
    pub(crate) exits: Vec<String>,
    /// Called with the page of each system event.
    pub(crate) on_system_event: Option<fn(&RunPage, &Log)>,
}

impl Observer for Recorder<'_> {
    fn exit(&mut self, entered: Entered, page: &RunPage, exit: &Result<Exit, DecodeError>) {
        let name = match (entered, exit) {
            // By meaning, because proposals have other numbers.
            (_, Ok(Exit::MemoryFault(_))) => "MEMORY_FAULT".into(),
            (_, Ok(Exit::SnpReqCerts(_))) => "SNP_REQ_CERTS".into(),
            (_, Ok(Exit::Vmgexit { .. })) => "VMGEXIT".into(),
            (Err(errno), _) => errno.to_string(),
            (Ok(()), _) => page.reason().name().map_or_else(|| page.exit_reason.to_string(), str::to_string),
        };
        self.exits.push(name);
        self.log.add(Event::Kernel {
            result: entered.map_or_else(|errno| errno.to_string(), |()| "0".into()),
            reason: page.reason().to_string(),
            bytes: payload_hex(page, exit),
            meaning: match exit {
                Ok(exit) => meaning(exit),
                Err(error) => error.to_string(),
            },
        });
        if page.reason() == ExitReason::SYSTEM_EVENT && entered.is_ok() {
            if let Some(read) = self.on_system_event {
                read(page, self.log);
            }
        }
    }

    fn plan(&mut self, plan: &Plan<'_>) {
        self.log.add(Event::Plan { text: plan.to_string() });
    }

    fn effect(&mut self, action: &Action<'_>, result: Result<(), Errno>) {
        self.log.add(Event::Effect {
            text: describe_action(action),
            result: result.map_or_else(|errno| errno.to_string(), |()| "ok".into()),
        });
    }

    fn reply(&mut self, reply: Reply, _: &RunPage) {
        let text = match reply {
            Reply::None => return,
            Reply::Conversion(answer) => format!("hypercall.ret = {}", ret(answer.ret())),
            Reply::UnknownHypercall => "hypercall.ret = -KVM_ENOSYS".into(),
            Reply::Certs(answer @ CertsReply::TooSmall { pages }) => {
                format!("snp_req_certs.npages = {pages}, ret = {}", ret(answer.ret()))
            }
            Reply::Certs(answer) => format!("snp_req_certs.ret = {}", ret(answer.ret())),
            Reply::Vmgexit(VmgexitReply::Page(code)) => format!("vmgexit.ret = {code:#x}"),
            Reply::Vmgexit(VmgexitReply::Msr(response)) => format!("vmgexit.ghcb_msr = {response:#x}"),
            Reply::Tdx(answer) => format!("tdx: {answer:x?}"),
            Reply::Msr(answer) => format!("msr: {answer:x?}"),
            Reply::MmioRead(data) => format!("mmio.data = {}", hex(&data)),
        };
        self.log.add(Event::Reply { text });
    }
}

fn ret(value: u64) -> String {
    match i32::try_from(value) {
        Ok(number) if number != 0 => format!("{number} ({})", Errno(number)),
        _ => value.to_string(),
    }
}

/// The bytes of the union that the exit is made of, in words of 8 bytes.
fn payload_hex(page: &RunPage, exit: &Result<Exit, DecodeError>) -> String {
    hex(page.exit.get(..payload_bytes(exit)).unwrap_or_default())
}

/// How many bytes of the union the exit is made of.
pub(crate) fn payload_bytes(exit: &Result<Exit, DecodeError>) -> usize {
    let words = |count: u32| 8 + 8 * (count.min(16) as usize);
    match exit {
        Ok(Exit::Io(_) | Exit::Vmgexit { .. }) => 16,
        Ok(Exit::Mmio(_) | Exit::MemoryFault(_) | Exit::SnpReqCerts(_) | Exit::Rdmsr(_) | Exit::Wrmsr(_)) => {
            24
        }
        Ok(Exit::Hypercall(_)) => 72,
        Ok(Exit::FailEntry(_)) => 12,
        Ok(Exit::InternalError(error)) => words(error.data.count),
        // Also where the kernel did not write them: these are the bytes of the quarrel.
        Ok(Exit::SystemEvent(event)) => words(event.data.count.max(1)),
        Ok(Exit::Notify { .. }) => 4,
        Ok(Exit::Tdx(_) | Exit::Other(_)) => 64,
        _ => 0,
    }
}

/// Words of 8 bytes, as they are in memory.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 8 == 0 {
            text.push(' ');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn meaning(exit: &Exit) -> String {
    match exit {
        Exit::Again(errno) => format!("{errno}: enter again; the exit reason is stale"),
        Exit::Io(io) => {
            let direction = if io.is_out { "out" } else { "in" };
            format!("port {:#x} {direction}, {} x {} bytes", io.port, io.count, io.size)
        }
        Exit::Mmio(mmio) => {
            let verb = if mmio.is_write { "write of" } else { "read of" };
            format!("{verb} {} bytes at {}", mmio.len, mmio.gpa)
        }
        Exit::Hlt => "the guest halted".into(),
        Exit::Hypercall(call) => {
            let [gpa, pages, attributes, ..] = call.args;
            match call.nr {
                12 => {
                    format!("MAP_GPA_RANGE gpa {gpa:#x}, {pages} pages of 4 KiB, attributes {attributes:#x}")
                }
                nr => format!("hypercall {nr}, arguments {:x?}", call.args),
            }
        }
        Exit::Shutdown => "triple fault; no payload".into(),
        Exit::FailEntry(fail) => format!("entry refused, reason {:#x}, CPU {}", fail.reason, fail.cpu),
        Exit::InternalError(error) => format!("suberror {}, data {:x?}", error.suberror, error.data),
        Exit::SystemEvent(event) => describe_event(event),
        Exit::Notify { flags } => format!("notify, flags {flags:#x}"),
        Exit::MemoryFault(fault) => {
            let kind = if fault.private { "private" } else { "shared" };
            format!("{kind} access to {:#x} bytes at {} does not fit", fault.size, fault.gpa)
        }
        Exit::SnpReqCerts(request) => {
            format!("certificates wanted at {}, room for {} pages", request.gpa, request.pages)
        }
        Exit::Vmgexit { ghcb_msr } => format!("VMGEXIT with the GHCB MSR {ghcb_msr:#x}, undecoded"),
        Exit::ApResetHold => "the vCPU waits for a startup interrupt".into(),
        Exit::Tdx(call) => format!("{:x?}", call.call),
        Exit::Rdmsr(read) => format!("read of MSR {:#x}", read.index),
        Exit::Wrmsr(write) => format!("write of {:#x} to MSR {:#x}", write.value, write.index),
        Exit::Other(other) => format!("{} without a meaning here", other.reason),
        _ => "an exit of a kind without a text".into(),
    }
}

fn describe_event(event: &SystemEvent) -> String {
    let data = match event.data.as_slice() {
        [] => "no data".into(),
        data => format!("data {data:x?}"),
    };
    match (event.event, event.data.first()) {
        (EventType::SevTerm, Some(msr)) => format!("SEV_TERM, {data}: {}", SevTermination::from_msr(msr)),
        (kind, _) => format!("{kind}, {data}"),
    }
}

fn describe_action(action: &Action<'_>) -> String {
    match action {
        Action::SetAttributes { range, to } => format!("set attributes of {range} to {to}"),
        Action::Discard { range, backing } => {
            let backing = if *backing == Backing::Shared { "shared" } else { "private" };
            format!("discard the {backing} memory of {range}")
        }
        Action::WriteGuest { gpa, bytes } => format!("write {} bytes to the guest at {gpa}", bytes.len()),
        _ => "an effect of a kind without a text".into(),
    }
}
