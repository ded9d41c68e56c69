//! What the registry holds: structs with the forms they had, and numbers with the release that brought them.

use super::ctype::Member;
use super::release::Release;
use crate::target::Target;

/// A struct through the releases.
pub(super) struct Def {
    /// The tag of the struct, or the name of a member of `kvm_run`'s exit union.
    pub(super) name: &'static str,
    /// Where a header declares it.
    pub(super) targets: &'static [Target],
    pub(super) packed: bool,
    /// Oldest first; each holds until the next. Two of the same release are as it was published and as its stable
    /// series ended.
    pub(super) forms: &'static [Form],
}

/// A struct from a release on.
pub(super) struct Form {
    pub(super) since: Release,
    pub(super) members: &'static [Member],
}

/// A number from a release on.
pub(super) struct Number {
    pub(super) name: &'static str,
    pub(super) value: u64,
    pub(super) since: Release,
}

impl Def {
    /// The members in a release, if it has the struct.
    pub(super) fn members(&self, release: Release) -> Option<&'static [Member]> {
        self.forms.iter().rev().find(|form| form.since <= release).map(|form| form.members)
    }

    /// The members in a release as it was published, before its stable series.
    pub(super) fn members_as_published(&self, release: Release) -> Option<&'static [Member]> {
        let first = self.forms.iter().find(|form| form.since == release);
        first.map(|form| form.members).or_else(|| self.members(release))
    }
}

/// A struct of every architecture.
pub(super) const fn everywhere(name: &'static str, forms: &'static [Form]) -> Def {
    Def { name, targets: &Target::ALL, packed: false, forms }
}

/// A struct of x86 alone.
pub(super) const fn on_x86(name: &'static str, forms: &'static [Form]) -> Def {
    Def { name, targets: Target::X86, packed: false, forms }
}

/// A struct that the compiler is told not to pad.
pub(super) const fn packed(name: &'static str, forms: &'static [Form]) -> Def {
    Def { name, targets: &Target::ALL, packed: true, forms }
}

/// The form from a release on.
pub(super) const fn since(since: Release, members: &'static [Member]) -> Form {
    Form { since, members }
}
