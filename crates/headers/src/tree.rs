//! What a header tree says: layouts and numbers, for each architecture.

use crate::target::Target;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The userspace ABI of one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Tree {
    /// A dialect's name or a folder.
    pub name: String,
    /// What each architecture sees.
    pub images: BTreeMap<Target, Image>,
    /// Architectures that could not be looked at. They are counted and never dropped in silence.
    pub absent: Vec<Absent>,
    /// What the tree would say if it had it: the rest is unknown, not missing.
    #[serde(skip)]
    pub scope: Scope,
}

/// What one architecture sees.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Image {
    /// Structs by name; a member of `kvm_run`'s exit union is `kvm_run.<member>`.
    pub layouts: BTreeMap<String, Layout>,
    /// Macros and enumerators with their value.
    pub constants: BTreeMap<String, u64>,
    /// Macros of interest that are no integer constant on this architecture.
    pub not_constant: Vec<String>,
}

/// Where the bytes of a struct lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// `sizeof`, in bytes.
    pub size: u64,
    /// Where it starts in `kvm_run`, if it is a member of the exit union.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
    /// Every scalar and array, in the order of declaration.
    pub fields: Vec<Field>,
}

/// A scalar or an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The way to it, as C writes it: `get_quote.ret`. Anonymous members have no part in it.
    pub path: String,
    /// From the start of the struct, in bytes.
    pub offset: u64,
    /// In bytes; 0 for a flexible array. A bit-field counts the bytes it touches.
    pub size: u64,
    /// The C type without the underscores of the kernel: `u64[16]`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Which bits, for a bit-field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<Bits>,
}

/// The bits of a bit-field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bits {
    /// The lowest, counted from the field's first byte.
    pub low: u64,
    /// How many.
    pub width: u64,
}

/// An architecture that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// Which.
    pub arch: Target,
    /// Why.
    pub reason: String,
}

/// What a tree can speak about.
#[derive(Clone, Debug, Default)]
pub enum Scope {
    /// All there is: what a header does not define does not exist.
    #[default]
    Everything,
    /// Only these names of structs and constants, in whichever release they exist.
    Only(BTreeSet<String>),
}

impl Scope {
    /// True if the absence of this name means something.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(names) => names.contains(name),
        }
    }

    /// True if the absence of this field of a struct means something.
    ///
    /// The registers behind the exit union are the architecture's, and so are the exits of s390; the registry has neither.
    #[must_use]
    pub fn covers_field(&self, name: &str, path: &str) -> bool {
        let is_outside = name == "kvm_run" && (path.starts_with("s.") || path.starts_with("s390_"));
        matches!(self, Self::Everything) || !is_outside
    }

    /// True if the tree knows which names each of its architectures has. The registry has one list of numbers for all.
    const fn knows_architectures(&self) -> bool {
        matches!(self, Self::Everything)
    }
}

impl Tree {
    /// Both trees can say whether they have this name.
    #[must_use]
    pub(crate) fn both_cover(&self, other: &Self, name: &str) -> bool {
        self.scope.covers(name) && other.scope.covers(name)
    }

    /// Both trees know which names each of their architectures has.
    #[must_use]
    pub(crate) const fn both_know_architectures(&self, other: &Self) -> bool {
        self.scope.knows_architectures() && other.scope.knows_architectures()
    }

    /// The names of all structs on any architecture, `kvm_run` first.
    #[must_use]
    pub fn struct_names(&self) -> BTreeSet<&str> {
        self.images.values().flat_map(|image| image.layouts.keys().map(String::as_str)).collect()
    }

    /// A struct on one architecture.
    #[must_use]
    pub fn layout(&self, target: Target, name: &str) -> Option<&Layout> {
        self.images.get(&target)?.layouts.get(name)
    }
}

impl Layout {
    /// The field with this path.
    #[must_use]
    pub fn field(&self, path: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.path == path)
    }

    /// Fields with bytes in this range.
    pub(crate) fn overlapping(&self, bytes: Range<u64>) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |field| {
            let own = field.bytes();
            own.start < bytes.end && bytes.start < own.end
        })
    }
}

impl Field {
    /// The bytes of the struct that it covers.
    #[must_use]
    pub fn bytes(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }

    /// The author said by the name that nothing is here yet.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let last = self.path.rsplit('.').next().unwrap_or(&self.path).trim_start_matches('_');
        ["pad", "reserved", "rsvd", "unused", "rsv"].iter().any(|prefix| last.starts_with(prefix))
    }
}
