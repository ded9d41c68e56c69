//! Forms of the ABI that were proposed on the list and never merged.
//!
//! A proposal is a release with changes. What its mail does not show stays as in the release before it.

use super::ctype::{Member, group, u8, u8s, u32, u64, u64s, union};
use super::registry::{Def, everywhere, since};
use super::release::Release::{self, Linux5_10, Linux5_17, Linux6_1, Linux6_12};

/// A change that a mail asked for.
pub(super) struct Proposal {
    pub(super) name: &'static str,
    /// The release that the mail changes, as far as the registry has it.
    pub(super) base: Release,
    /// Structs that exist in releases and look different here.
    pub(super) changes: &'static [(&'static str, &'static [Member])],
    /// Members of the exit union that no release has.
    pub(super) adds: &'static [Def],
    /// Numbers that are different here, or not there.
    pub(super) numbers: &'static [(&'static str, Option<u64>)],
}

impl Proposal {
    /// The form of a struct if the proposal changes it.
    pub(super) fn form(&self, name: &str) -> Option<&'static [Member]> {
        self.changes.iter().find(|(changed, _)| *changed == name).map(|(_, form)| *form)
    }
}

/// `{type, ndata, data[16]}`: code that names `flags` does not compile any more.
const SYSTEM_EVENT_DATA: &[Member] = &[u32("type"), u32("ndata"), u64s("data", 16)];

/// The same with `flags` kept before `data`, as the documentation of the series had it.
const SYSTEM_EVENT_FLAGS_DATA: &[Member] = &[u32("type"), u32("ndata"), u64("flags"), u64s("data", 16)];

const COCO: &[Member] =
    &[u8("nr"), u8s("pad0", 7), union("", &[group("req_certs", &[u64("gfn"), u32("npages"), u32("ret")])])];

const NDATA_VALID: (&str, Option<u64>) = ("KVM_SYSTEM_EVENT_NDATA_VALID", Some(1 << 31));
const SEV_TERM_4: (&str, Option<u64>) = ("KVM_SYSTEM_EVENT_SEV_TERM", Some(4));

/// In the order of their mails.
pub(super) const ALL: &[Proposal] = &[
    // "[PATCH v4 1/3] KVM: X86: Extend KVM_SET_VCPU_EVENTS to inject a SHUTDOWN event", March 2022.
    Proposal {
        name: "shutdown-flag-v4",
        base: Linux5_17,
        changes: &[],
        adds: &[],
        numbers: &[("KVM_VCPUEVENT_SHUTDOWN", Some(0x20))],
    },
    // "[PATCH v4.1] KVM, SEV: Add KVM_EXIT_SHUTDOWN metadata for SEV-ES", April 2022, the header.
    Proposal {
        name: "sev-term-v4.1",
        base: Linux5_17,
        changes: &[("system_event", SYSTEM_EVENT_DATA)],
        adds: &[],
        numbers: &[SEV_TERM_4, NDATA_VALID],
    },
    // The same series as its documentation describes it.
    Proposal {
        name: "sev-term-v4.1-doc",
        base: Linux5_17,
        changes: &[("system_event", SYSTEM_EVENT_FLAGS_DATA)],
        adds: &[],
        numbers: &[SEV_TERM_4, NDATA_VALID],
    },
    // The answers to it: the same struct, and `type` stays a number.
    Proposal {
        name: "sev-term-alternative",
        base: Linux5_17,
        changes: &[("system_event", SYSTEM_EVENT_DATA)],
        adds: &[],
        numbers: &[SEV_TERM_4],
    },
    // "[PATCH v10 31/50] KVM: SEV: Add KVM_EXIT_VMGEXIT", October 2023. Its tree numbers KVM_EXIT_MEMORY_FAULT 38; the
    // mail does not show that exit's struct.
    Proposal {
        name: "vmgexit-v10",
        base: Linux6_1,
        changes: &[],
        adds: &[everywhere("vmgexit", &[since(Linux5_10, &[u64("ghcb_msr"), u64("ret")])])],
        numbers: &[("KVM_EXIT_MEMORY_FAULT", Some(38)), ("KVM_EXIT_VMGEXIT", Some(50))],
    },
    // "[PATCH v1 4/5] KVM: Introduce KVM_EXIT_COCO exit type", June 2024, on a tree between 6.10 and 6.11.
    Proposal {
        name: "coco-v1",
        base: Linux6_12,
        changes: &[],
        adds: &[everywhere("coco", &[since(Linux5_10, COCO)])],
        numbers: &[
            ("KVM_EXIT_COCO", Some(40)),
            ("KVM_EXIT_COCO_REQ_CERTS", Some(0)),
            ("KVM_EXIT_COCO_MAX", Some(1)),
            ("KVM_EXIT_COCO_REQ_CERTS_ERR_INVALID_LEN", Some(1)),
            ("KVM_EXIT_COCO_REQ_CERTS_ERR_GENERIC", Some(1 << 31)),
            ("KVM_CAP_EXIT_COCO", Some(237)),
            // Merged after it, the first with the number that the proposal had taken.
            ("KVM_CAP_X86_APIC_BUS_CYCLES_NS", None),
            ("KVM_CAP_X86_GUEST_MODE", None),
        ],
    },
];

/// Members of the exit union that only proposals have.
pub(super) fn exits() -> impl Iterator<Item = &'static Def> {
    ALL.iter().flat_map(|proposal| proposal.adds)
}

/// Every number that a proposal has an opinion of.
pub(super) fn number_names() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|proposal| proposal.numbers.iter().map(|(name, _)| *name))
}
