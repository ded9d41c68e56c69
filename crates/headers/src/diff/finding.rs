//! What a difference between two trees does to the programs on both sides.

use crate::space::Space;
use crate::target::Target;
use serde::Serialize;
use std::fmt;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether programs stop working.
    pub severity: Severity,
    /// The struct, the field or the space of numbers.
    pub subject: String,
    /// Where it holds.
    pub arches: Vec<Target>,
    /// What it is.
    #[serde(flatten)]
    pub change: Change,
}

/// Whether programs stop working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A program built against one tree misreads a kernel of the other, or does not compile any more.
    Break,
    /// Worth a look in review.
    Note,
}

/// A place in a struct, and in `kvm_run` if the struct is a member of its exit union.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct At {
    /// From the start of the struct, in bytes.
    pub offset: u64,
    /// From the start of `kvm_run`, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_kvm_run: Option<u64>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_kvm_run {
            Some(absolute) => write!(f, "{} ({absolute} in kvm_run)", self.offset),
            None => write!(f, "{}", self.offset),
        }
    }
}

/// What a difference is. Sizes and offsets are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the sentence that a variant prints says what its fields are")]
pub enum Change {
    StructRemoved,
    StructGoneHere,
    StructAdded { size: u64 },
    SizeChanged { from: u64, to: u64 },
    Moved { field: String, from: At, to: At },
    Resized { field: String, at: At, from: u64, to: u64 },
    Retyped { field: String, at: At, from: String, to: String },
    Removed { field: String, at: At, size: u64 },
    Reused { field: String, at: At, size: u64, by: Vec<String> },
    Overlaid { field: String, at: At, over: Vec<String> },
    ReservedUsed { field: String, at: At, size: u64, reserved: Vec<String>, gate: Option<&'static str> },
    PaddingUsed { field: String, at: At, size: u64, gate: Option<&'static str> },
    Added { field: String, at: At, size: u64 },
    Hole { before: String, at: At, size: u64 },
    CompatMoved { field: String, process: At, kernel: At, tree: String },
    CompatResized { field: String, process: u64, kernel: u64, tree: String },
    CompatSize { process: u64, kernel: u64, tree: String },
    CompatCollides { field: String, at: At, old: String, new: String, with: Vec<String> },
    BecomesBitField { constant: String, bit: u32, consumers: &'static [&'static str] },
    NumberChanged { space: Option<Space>, name: String, from: u64, to: u64 },
    NumberRemoved { space: Option<Space>, name: String, value: u64 },
    NumberGoneHere { name: String, value: u64 },
    NumberAdded { space: Option<Space>, name: String, value: u64 },
    NumberReused { space: Space, value: u64, was: Vec<String>, now: Vec<String> },
}

impl Change {
    /// True if nothing that was there is touched.
    #[must_use]
    pub const fn is_addition(&self) -> bool {
        matches!(self, Self::StructAdded { .. } | Self::NumberAdded { .. })
    }
}

/// Names as code, with "and" before the last.
fn names(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// Small numbers in decimal, bits and codes in hex.
fn number(value: u64) -> String {
    if value < 0x1000 { value.to_string() } else { format!("{value:#x}") }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fields().or_else(|| self.compat()).unwrap_or_else(|| self.numbers()))
    }
}

impl Change {
    fn fields(&self) -> Option<String> {
        Some(match self {
            Self::StructRemoved => "removed".into(),
            Self::StructGoneHere => "no longer declared for these architectures".into(),
            Self::StructAdded { size } => format!("added, {size} bytes"),
            Self::SizeChanged { from, to } => format!("sizeof changes from {from} to {to}"),
            Self::Moved { field, from, to } => format!("`{field}` moves from {from} to {to}"),
            Self::Resized { field, at, from, to } => {
                format!("`{field}` at {at} changes its size from {from} to {to}")
            }
            Self::Retyped { field, at, from, to } => {
                format!("`{field}` at {at} changes its type from {from} to {to}")
            }
            Self::Removed { field, at, size } => format!("`{field}` at {at}, {size} bytes, is removed"),
            Self::Reused { field, at, size, by } => format!(
                "`{field}` is removed and its {size} bytes at {at} are re-used by {}: code that names `{field}` no \
                 longer compiles, and binaries read the new field",
                names(by)
            ),
            Self::Overlaid { field, at, over } => {
                format!("new `{field}` at {at} shares its bytes with {}, which stays", names(over))
            }
            Self::ReservedUsed { field, at, size, reserved, gate } => {
                let gate = gate.map_or(String::new(), |gate| format!("; it is valid only with {gate}"));
                format!("new `{field}` at {at}, {size} bytes, takes from {}{gate}", names(reserved))
            }
            Self::PaddingUsed { field, at, size, gate } => {
                let gate = match gate {
                    Some(gate) => format!("it is valid only with {gate}"),
                    None => "reading it from an older kernel gives garbage".into(),
                };
                let padding = "takes bytes that were compiler padding, which older kernels never write";
                format!("new `{field}` at {at}, {size} bytes, {padding}: {gate}")
            }
            Self::Added { field, at, size } => format!("new `{field}` at {at}, {size} bytes"),
            Self::Hole { before, at, size } => {
                format!("{size} bytes of compiler padding at {at}, before `{before}`: pad explicitly")
            }
            _ => return None,
        })
    }

    fn compat(&self) -> Option<String> {
        Some(match self {
            Self::CompatMoved { field, process, kernel, tree } => format!(
                "`{field}` of a process of this ABI is at {process}, and the 64-bit kernel has it at {kernel} [{tree}]"
            ),
            Self::CompatResized { field, process, kernel, tree } => format!(
                "`{field}` has {process} bytes in a process of this ABI and {kernel} in the 64-bit kernel [{tree}]"
            ),
            Self::CompatSize { process, kernel, tree } => format!(
                "sizeof is {process} in a process of this ABI and {kernel} in the 64-bit kernel [{tree}]"
            ),
            Self::CompatCollides { field, at, old, new, with } => format!(
                "`{field}` collides with {}: a process of this ABI built for {old} has it at {at}, where a 64-bit \
                 kernel of {new} has {}",
                names(with),
                names(with)
            ),
            Self::BecomesBitField { constant, bit, consumers } => format!(
                "the scalar becomes a bit-field: {constant} is bit {bit} of it, and whoever compares the whole 32 bits \
                 sees an unknown number. Strict matchers that break: {}",
                consumers.join("; ")
            ),
            _ => return None,
        })
    }

    fn numbers(&self) -> String {
        match self {
            Self::NumberChanged { name, from, to, .. } => {
                format!("{name} changes from {} to {}", number(*from), number(*to))
            }
            Self::NumberRemoved { name, value, .. } => format!("{name} ({}) is removed", number(*value)),
            Self::NumberGoneHere { name, value } => {
                format!("{name} ({}) is no longer defined for these architectures", number(*value))
            }
            Self::NumberAdded { name, value, .. } => format!("{name} ({}) is added", number(*value)),
            Self::NumberReused { space, value, was, now } => {
                format!(
                    "{space} {} is claimed twice: it was {} and is {}",
                    number(*value),
                    names(was),
                    names(now)
                )
            }
            _ => String::new(),
        }
    }
}
