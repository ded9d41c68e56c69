//! Which numbers compete with each other.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A set of names that must have different numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// `KVM_EXIT_*`.
    Exit,
    /// `KVM_CAP_*`.
    Capability,
    /// `KVM_SYSTEM_EVENT_*`.
    SystemEvent,
    /// `KVM_VCPUEVENT_*`: bits of one word.
    VcpuEvent,
    /// `KVM_INTERNAL_ERROR_*`.
    InternalError,
    /// `KVM_MP_STATE_*`.
    MpState,
    /// `KVM_X86_*_VM`.
    VmType,
    /// `KVM_SEV_*`.
    SevCommand,
    /// `KVM_TDX_*`.
    TdxCommand,
}

const PREFIXES: [(Space, &str); 9] = [
    (Space::Exit, "KVM_EXIT_"),
    (Space::Capability, "KVM_CAP_"),
    (Space::SystemEvent, "KVM_SYSTEM_EVENT_"),
    (Space::VcpuEvent, "KVM_VCPUEVENT_"),
    (Space::InternalError, "KVM_INTERNAL_ERROR_"),
    (Space::MpState, "KVM_MP_STATE_"),
    (Space::VmType, "KVM_X86_"),
    (Space::SevCommand, "KVM_SEV_"),
    (Space::TdxCommand, "KVM_TDX_"),
];

/// Parts of a name that say that it is a size, a count, a bit or an argument, and no member of the enumeration.
const NOT_MEMBERS: [&str; 8] =
    ["_MAX", "_SIZE", "_FLAG_", "_PAGE_TYPE_", "_MASK", "_MEASURE_MEMORY_REGION", "_ERR_", "_NR_"];

impl Space {
    /// Where a number belongs, judged by its name and by the names beside it.
    ///
    /// `KVM_EXIT_IO_IN` is an argument of `KVM_EXIT_IO` and no exit: it continues the name of one. Capabilities do
    /// continue each other's names.
    #[must_use]
    pub fn of(name: &str, beside: &BTreeMap<String, u64>) -> Option<Self> {
        let (space, prefix) = PREFIXES.into_iter().find(|(_, prefix)| name.starts_with(prefix))?;
        if NOT_MEMBERS.iter().any(|part| name.contains(part)) {
            return None;
        }
        let in_space = match space {
            Self::VmType => name.ends_with("_VM"),
            Self::Exit | Self::SystemEvent => {
                let mut parts = name.match_indices('_').map(|(at, _)| at).filter(|at| *at > prefix.len());
                !parts.any(|at| name.get(..at).is_some_and(|shorter| beside.contains_key(shorter)))
            }
            _ => true,
        };
        in_space.then_some(space)
    }

    /// Members of a space with their numbers.
    #[must_use]
    pub fn members(self, constants: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
        let own = constants.iter().filter(|(name, _)| Self::of(name, constants) == Some(self));
        own.map(|(name, value)| (name.as_str(), *value)).collect()
    }

    /// Every space.
    pub fn all() -> impl Iterator<Item = Self> {
        PREFIXES.into_iter().map(|(space, _)| space)
    }

    /// One of its numbers, in words.
    #[must_use]
    pub const fn one(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Capability => "capability",
            Self::SystemEvent => "system event",
            Self::VcpuEvent => "vcpu event flag",
            Self::InternalError => "internal error",
            Self::MpState => "mp state",
            Self::VmType => "VM type",
            Self::SevCommand => "SEV command",
            Self::TdxCommand => "TDX command",
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.one())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_sizes_and_flags_are_no_members() {
        let names =
            ["KVM_EXIT_IO", "KVM_EXIT_IO_IN", "KVM_EXIT_IOAPIC_EOI", "KVM_EXIT_COCO", "KVM_CAP_IRQFD"];
        let constants: BTreeMap<String, u64> = names.into_iter().map(|name| (name.to_string(), 0)).collect();
        let cases = [
            ("KVM_EXIT_IO", Some(Space::Exit)),
            ("KVM_EXIT_IO_IN", None),
            ("KVM_EXIT_IOAPIC_EOI", Some(Space::Exit)),
            ("KVM_EXIT_COCO_REQ_CERTS", None),
            ("KVM_EXIT_SNP_REQ_CERTS", Some(Space::Exit)),
            ("KVM_CAP_IRQFD_RESAMPLE", Some(Space::Capability)),
            ("KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2", None),
            ("KVM_X86_SNP_VM", Some(Space::VmType)),
            ("KVM_X86_QUIRK_LINT0_REENABLED", None),
            ("KVM_SEV_NR_MAX", None),
            ("KVM_SEV_SNP_PAGE_TYPE_ZERO", None),
            ("KVM_SEV_INIT2", Some(Space::SevCommand)),
            ("KVM_RUN", None),
        ];
        for (name, space) in cases {
            assert_eq!(Space::of(name, &constants), space, "{name}");
        }
    }
}
