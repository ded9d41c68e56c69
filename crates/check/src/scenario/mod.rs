//! Scenario files.

mod load;
mod shipped;

use exeunt::certs::Certificates;
use exeunt::layer::inject::{EffectFault, EffectKind};
use exeunt::policy::{EventPolicy, FaultPolicy};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno};

pub use load::{ScenarioError, load, parse};
pub use shipped::{NAMES, shipped};

/// A scenario, checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: the file's name without `.toml`.
    pub name: String,
    /// One line.
    pub title: String,
    /// The mail on the kernel's lists that it follows: author, date, subject.
    pub mail: Option<String>,
    /// What is run, in order.
    pub cases: Vec<Case>,
}

/// One VM, one guest, one run.
#[derive(Clone, Debug)]
pub struct Case {
    /// One line.
    pub title: String,
    /// The VM.
    pub vm: VmConfig,
    /// The program that each vCPU runs.
    pub guest: String,
    /// Kernels that the expectations hold for; each is run unless another is asked for.
    pub dialects: Vec<Dialect>,
    /// Capabilities that the VMM enables.
    pub capabilities: Vec<Cap>,
    /// What the guest gets that asks for certificates.
    pub certificates: Certificates,
    /// The certificates are those of the host's processor, which are SIMULATED.
    pub host_certificates: bool,
    /// Where TDs get quotes; `None` for nowhere.
    pub quotes: Option<QuoteConfig>,
    /// The status of the firmware's answers.
    pub firmware_status: u32,
    /// Effects that fail.
    pub faults: Vec<EffectFault>,
    /// Entries that are interrupted, counted from 1.
    pub interrupts: Vec<u32>,
    /// What a memory fault leads to.
    pub memory_faults: FaultPolicy,
    /// What a reset leads to.
    pub reset: EventPolicy,
    /// Whether the page is also read as VMMs of other word sizes and older headers read it.
    pub readers: bool,
    /// Save in one VM and restore in another, instead of just running.
    pub migration: Option<Migration>,
    /// What must be seen.
    pub expect: Expect,
}

/// The VM of a case.
#[derive(Clone, Copy, Debug)]
pub struct VmConfig {
    /// The type.
    pub vm_type: VmType,
    /// The architecture.
    pub arch: Arch,
    /// Bytes of memory, from address 0.
    pub memory_bytes: u64,
    /// vCPUs.
    pub vcpus: u32,
}

/// Where the TDs of a case get quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuoteConfig {
    /// What comes of each request.
    pub answer: QuoteAnswer,
    /// Exits after the request until it is answered; 0 for at once, before the TD goes on.
    pub after: u32,
    /// Requests that may wait for their answer at the same time.
    pub slots: usize,
    /// Whether the VMM can send interrupts.
    pub interrupt: bool,
}

/// What comes of a request for a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteAnswer {
    /// A quote that says that it is SIMULATED.
    Simulated,
    /// The service cannot be reached.
    Unavailable,
    /// The service makes no quote.
    Failed,
    /// The provider drops the request.
    Forgotten,
    /// A quote that is larger than the buffer.
    TooLarge,
}

const QUOTE_ANSWERS: [(&str, QuoteAnswer); 5] = [
    ("simulated", QuoteAnswer::Simulated),
    ("unavailable", QuoteAnswer::Unavailable),
    ("failed", QuoteAnswer::Failed),
    ("forgotten", QuoteAnswer::Forgotten),
    ("too-large", QuoteAnswer::TooLarge),
];

/// A migration with a pending triple fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The source enables `KVM_CAP_X86_TRIPLE_FAULT_EVENT`.
    pub source_capability: bool,
    /// The target does.
    pub target_capability: bool,
}

/// What must be seen in a case.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The keyword of the end, see [`crate::runner::End`].
    pub end: Option<String>,
    /// A part of the text of the end.
    pub end_says: Option<String>,
    /// Exits, by name, in order; `KVM_RUN` without one counts as the name of its error.
    pub exits: Option<Vec<String>>,
    /// Parts of what the guest says it saw, in order.
    pub saw: Vec<String>,
    /// Parts of what the readers read, in order.
    pub read: Vec<String>,
}

const EFFECTS: [(&str, EffectKind); 3] = [
    ("set-attributes", EffectKind::SetAttributes),
    ("discard", EffectKind::Discard),
    ("write-guest", EffectKind::WriteGuest),
];

/// The effect with this name in a scenario file.
fn effect_kind(name: &str) -> Option<EffectKind> {
    EFFECTS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// The error with this name, `EINTR` and the like.
fn errno(name: &str) -> Option<Errno> {
    Errno::from_name(name)
}
