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
    pub(crate) change: Change,
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
pub(crate) struct At {
    /// From the start of the struct, in bytes.
    pub(crate) offset: u64,
    /// From the start of `kvm_run`, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_kvm_run: Option<u64>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_kvm_run {
            Some(absolute) => write!(f, "{} ({absolute} in kvm_run)", self.offset),
            None => write!(f, "{}", self.offset),
        }
    }
}

/// What a difference is. Sizes and offsets are in bytes; what a variant prints says what its fields are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Change {
    StructRemoved,
    /// Only some architectures lost it.
    StructGoneHere,
    StructAdded {
        size: u64,
    },
    SizeChanged {
        from: u64,
        to: u64,
    },
    Moved {
        field: String,
        from: At,
        to: At,
        onto: Vec<String>,
    },
    Resized {
        field: String,
        at: At,
        from: u64,
        to: u64,
    },
    Retyped {
        field: String,
        at: At,
        from: String,
        to: String,
    },
    Removed {
        field: String,
        at: At,
        size: u64,
    },
    /// Removed, and other fields have its bytes.
    Reused {
        field: String,
        at: At,
        size: u64,
        by: Vec<String>,
    },
    /// A new member of a union.
    Overlaid {
        field: String,
        at: At,
        over: Vec<String>,
    },
    /// A new field in bytes that were set aside by name.
    ReservedUsed {
        field: String,
        at: At,
        size: u64,
        reserved: Vec<String>,
        gate: Option<&'static str>,
    },
    /// A new field in bytes that had no name.
    PaddingUsed {
        field: String,
        at: At,
        size: u64,
        gate: Option<&'static str>,
    },
    Added {
        field: String,
        at: At,
        size: u64,
    },
    /// Bytes without a name in a new struct.
    Hole {
        before: String,
        at: At,
        size: u64,
    },
    CompatMoved {
        abi: Target,
        field: String,
        process: At,
        kernel: At,
        tree: String,
    },
    CompatResized {
        abi: Target,
        field: String,
        process: u64,
        kernel: u64,
        tree: String,
    },
    CompatSize {
        abi: Target,
        process: u64,
        kernel: u64,
        tree: String,
    },
    /// An old process finds other fields of a new kernel where its own field was.
    CompatCollides {
        abi: Target,
        field: String,
        at: At,
        old: String,
        new: String,
        with: Vec<String>,
    },
    BecomesBitField {
        constant: String,
        bit: u32,
        consumers: &'static [&'static str],
    },
    NumberChanged {
        space: Option<Space>,
        name: String,
        from: u64,
        to: u64,
    },
    NumberRemoved {
        space: Option<Space>,
        name: String,
        value: u64,
    },
    /// Only some architectures lost it.
    NumberGoneHere {
        name: String,
        value: u64,
    },
    NumberAdded {
        space: Option<Space>,
        name: String,
        value: u64,
    },
    NumberReused {
        space: Space,
        value: u64,
        was: Vec<String>,
        now: Vec<String>,
    },
}

impl Finding {
    /// True if nothing that was there is touched.
    #[must_use]
    pub const fn is_addition(&self) -> bool {
        matches!(self.change, Change::StructAdded { .. } | Change::NumberAdded { .. })
    }
}

/// The difference in words, without subject and architectures.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change.fmt(f)
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

fn bytes(size: u64) -> String {
    if size == 1 { "1 byte".into() } else { format!("{size} bytes") }
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
            Self::StructAdded { size } => format!("added, {}", bytes(*size)),
            Self::SizeChanged { from, to } => format!("sizeof changes from {from} to {to}"),
            Self::Moved { field, from, to, onto } => {
                let onto = match onto.as_slice() {
                    [] => String::new(),
                    onto => format!("; its old bytes now belong to {}", names(onto)),
                };
                format!("`{field}` moves from {from} to {to}{onto}")
            }
            Self::Resized { field, at, from, to } => {
                format!("`{field}` at {at} changes its size from {from} to {to}")
            }
            Self::Retyped { field, at, from, to } => {
                format!("`{field}` at {at} changes its type from {from} to {to}")
            }
            Self::Removed { field, at, size } => format!("`{field}` at {at}, {}, is removed", bytes(*size)),
            Self::Reused { field, at, size, by } => format!(
                "`{field}` is removed and its {} at {at} re-used by {}: code that names `{field}` no \
                 longer compiles, and binaries read the new field",
                bytes(*size),
                names(by)
            ),
            Self::Overlaid { field, at, over } => {
                format!("new `{field}` at {at} overlays {}", names(over))
            }
            Self::ReservedUsed { field, at, size, reserved, gate } => {
                let gate = gate.map_or(String::new(), |gate| format!("; it is valid only with {gate}"));
                format!("new `{field}` at {at}, {}, takes from {}{gate}", bytes(*size), names(reserved))
            }
            Self::PaddingUsed { field, at, size, gate } => {
                let gate = match gate {
                    Some(gate) => format!("it is valid only with {gate}"),
                    None => "reading it from an older kernel gives garbage".into(),
                };
                let padding = "takes bytes that were compiler padding, which older kernels never write";
                format!("new `{field}` at {at}, {}, {padding}: {gate}", bytes(*size))
            }
            Self::Added { field, at, size } => format!("new `{field}` at {at}, {}", bytes(*size)),
            Self::Hole { before, at, size } => {
                format!("{} of compiler padding at {at}, before `{before}`: pad explicitly", bytes(*size))
            }
            _ => return None,
        })
    }

    fn compat(&self) -> Option<String> {
        Some(match self {
            Self::CompatMoved { abi, field, process, kernel, tree } => format!(
                "in {tree}, `{field}` is at {process} for an {abi} process and at {kernel} for its 64-bit kernel"
            ),
            Self::CompatResized { abi, field, process, kernel, tree } => format!(
                "in {tree}, `{field}` has {} for an {abi} process and {} for its 64-bit kernel",
                bytes(*process),
                bytes(*kernel)
            ),
            Self::CompatSize { abi, process, kernel, tree } => {
                format!(
                    "in {tree}, sizeof is {process} for an {abi} process and {kernel} for its 64-bit kernel"
                )
            }
            Self::CompatCollides { abi, field, at, old, new, with } => format!(
                "an {abi} process built for {old} has `{field}` at {at}, where it collides with {} of a 64-bit kernel \
                 of {new}",
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
