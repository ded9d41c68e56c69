//! Bugs on purpose: a model with one of them must not pass.

use crate::half::{Answer, Half};
use crate::script::{Features, Script, Step};
use exeunt_abi::Dialect;
use exeunt_abi::kvm::events::VALID_TRIPLE_FAULT;
use exeunt_abi::kvm::run::ExitReason;

/// One rule of the kernel that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The union is cleared before an exit is written: bytes that the kernel leaves stale are zero.
    ClearedUnion,
    /// `KVM_GET_VCPU_EVENTS` does not report a triple fault that is pending.
    LostTripleFault,
    /// `KVM_RUN` with `immediate_exit` writes `KVM_EXIT_INTR`.
    FreshReason,
    /// A hypercall's result reaches the guest with 32 bits.
    ShortRax,
    /// Another release is imitated than the one that runs.
    OtherDialect,
}

impl Flaw {
    /// Every flaw.
    pub const ALL: [Self; 5] =
        [Self::ClearedUnion, Self::LostTripleFault, Self::FreshReason, Self::ShortRax, Self::OtherDialect];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClearedUnion => "cleared-union",
            Self::LostTripleFault => "lost-triple-fault",
            Self::FreshReason => "fresh-reason",
            Self::ShortRax => "short-rax",
            Self::OtherDialect => "other-dialect",
        }
    }

    /// The flaw with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flaw| flaw.name() == name)
    }

    fn spoil(self, step: &Step, answer: &mut Answer) {
        let reason = answer.part("exit_reason").and_then(|bytes| bytes.first_chunk().copied());
        let reason = reason.map(|bytes| ExitReason(u32::from_le_bytes(bytes)));
        let entered = answer.result.is_ok();
        for (name, bytes) in &mut answer.seen {
            match (self, *name) {
                (Self::ClearedUnion, "union") if entered && reason == Some(ExitReason::IO) => {
                    bytes.iter_mut().skip(16).for_each(|byte| *byte = 0);
                }
                (Self::LostTripleFault, "events") => {
                    // `flags` is at 20, `triple_fault.pending` at 28.
                    let flags = bytes.get(20..).and_then(|bytes| bytes.first_chunk().copied());
                    let has_flag = flags.map_or(0, u32::from_le_bytes) & VALID_TRIPLE_FAULT != 0;
                    bytes.iter_mut().skip(28).take(usize::from(has_flag)).for_each(|byte| *byte = 0);
                }
                (Self::FreshReason, "exit_reason") if *step == Step::EnterImmediately && !entered => {
                    *bytes = ExitReason::INTR.0.to_le_bytes().to_vec();
                }
                (Self::ShortRax, "log") => {
                    for word in bytes.chunks_exact_mut(8) {
                        word.iter_mut().skip(4).for_each(|byte| *byte = 0);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A half with a flaw.
#[derive(Clone, Copy, Debug)]
pub struct Flawed<H> {
    /// The half.
    pub half: H,
    /// Its flaw, if any.
    pub flaw: Option<Flaw>,
}

impl<H: Half> Half for Flawed<H> {
    fn play(&self, script: &Script, features: Features) -> Vec<Answer> {
        let Some(flaw) = self.flaw else { return self.half.play(script, features) };
        let dialect = match (flaw, features.dialect) {
            (Flaw::OtherDialect, Dialect::Linux6_1 | Dialect::Linux7_2) => Dialect::Linux6_12,
            (Flaw::OtherDialect, _) => Dialect::Linux7_2,
            (_, dialect) => dialect,
        };
        let mut answers = self.half.play(script, Features { dialect, ..features });
        for (step, answer) in script.steps.iter().zip(answers.iter_mut().skip(1)) {
            flaw.spoil(step, answer);
        }
        answers
    }
}
