//! What comes between the exits of a real kernel, when a VMM runs a guest of its own on `/dev/kvm`.
//!
//! A scene of this kind has no guest program: it waits until the VMM's guest has made some exits, and puts exits in.
//! Only such exits are put in that a kernel could bring there; whether it could is decided when it is known what VM the
//! VMM has made.

use crate::situation::{Orders, Situation};
use exeunt_abi::kvm::run::{
    ExitReason, HYPERCALL_LONG_MODE, Hypercall, MAP_GPA_RANGE, MEMORY_EXIT_FLAG_PRIVATE, MemoryFault,
    RunPage, SystemEvent, event_type, map_gpa_range,
};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Kernel};

/// A scene.
#[derive(Clone, Copy, Debug)]
pub struct Overlay {
    /// Its name.
    pub name: &'static str,
    /// The rules that bite there, as `rules.toml` calls them.
    pub rules: &'static [&'static str],
    /// The type of VM that its exits need; `None` if any will do.
    pub vm_type: Option<VmType>,
    /// What is wanted of the VMM.
    pub orders: Orders,
    /// What is put in, in this order, between exits of the first vCPU.
    pub injections: &'static [Injection],
}

/// One exit that is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// How many exits of the kernel's own come before, since the one before was answered.
    pub after: u32,
    /// The exit.
    pub exit: Injected,
}

/// An exit that can be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// A signal was pending: `EINTR`. The union keeps the bytes of an earlier exit.
    Interrupted,
    /// The vCPU is not started: `EAGAIN`. The page keeps all bytes of an earlier exit.
    NotStarted,
    /// `KVM_EXIT_SHUTDOWN`.
    Shutdown,
    /// An exit that a newer kernel has, and its first bytes.
    Newer {
        /// Its number.
        reason: u32,
        /// The first eight bytes of the union.
        bytes: u64,
    },
    /// `KVM_EXIT_SYSTEM_EVENT` with one word of data, or none.
    Event {
        /// `KVM_SYSTEM_EVENT_*`.
        event: u32,
        /// `data[0]`.
        data: Option<u64>,
    },
    /// `KVM_EXIT_HYPERCALL` for a conversion.
    MapGpaRange {
        /// Where it starts.
        gpa: u64,
        /// How many pages of 4 KiB.
        pages: u64,
        /// The attributes of the hypercall.
        attributes: u64,
    },
    /// `KVM_EXIT_MEMORY_FAULT`, with `EFAULT`.
    MemoryFault {
        /// The access is a private one.
        is_private: bool,
        /// Where it starts.
        gpa: u64,
        /// How long it is.
        bytes: u64,
    },
}

impl Injected {
    /// Writes what the kernel writes, and nothing else; what `KVM_RUN` returns.
    ///
    /// # Errors
    ///
    /// The error that the exit comes with.
    pub fn write(self, page: &mut RunPage) -> Result<(), Errno> {
        match self {
            Self::Interrupted => {
                page.exit_reason = ExitReason::INTR.0;
                Err(Errno::EINTR)
            }
            Self::NotStarted => Err(Errno::EAGAIN),
            Self::Shutdown => {
                page.exit_reason = ExitReason::SHUTDOWN.0;
                Ok(())
            }
            Self::Newer { reason, bytes } => {
                page.exit_reason = reason;
                page.set_bytes(0, &bytes.to_le_bytes());
                Ok(())
            }
            Self::Event { event, data } => {
                page.exit_reason = ExitReason::SYSTEM_EVENT.0;
                // x86 leaves the words that it does not count as they were.
                let mut words: SystemEvent = page.payload();
                (words.event_type, words.ndata) = (event, u32::from(data.is_some()));
                if let (Some(word), [first, ..]) = (data, &mut words.data) {
                    *first = word;
                }
                page.set_payload(&words);
                Ok(())
            }
            Self::MapGpaRange { gpa, pages, attributes } => {
                page.exit_reason = ExitReason::HYPERCALL.0;
                let mut call: Hypercall = page.payload();
                let [_, _, _, fourth, fifth, sixth] = call.args;
                call.args = [gpa, pages, attributes, fourth, fifth, sixth];
                (call.nr, call.ret, call.flags) = (MAP_GPA_RANGE, 0, HYPERCALL_LONG_MODE);
                page.set_payload(&call);
                Ok(())
            }
            Self::MemoryFault { is_private, gpa, bytes } => {
                page.exit_reason = ExitReason::MEMORY_FAULT.0;
                let flags = if is_private { MEMORY_EXIT_FLAG_PRIVATE } else { 0 };
                page.set_payload(&MemoryFault { flags, gpa, size: bytes });
                Err(Errno::EFAULT)
            }
        }
    }
}

impl Overlay {
    /// The scene as a judge of rules knows scenes. Its guest is never run.
    #[must_use]
    pub fn situation(&self, kernel: Kernel) -> Situation {
        let halt = |cpu: exeunt_model::guest::Cpu| -> exeunt_model::device::Program {
            Box::pin(async move {
                cpu.hlt().await;
                Ok(())
            })
        };
        let vm_type = self.vm_type.unwrap_or(VmType::Default);
        Situation { kernel, orders: self.orders, ..Situation::new(self.name, vm_type, halt) }
    }
}

/// The scene of this name.
#[must_use]
pub fn find(name: &str) -> Option<Overlay> {
    all().find(|scene| scene.name == name)
}

/// The first number that no kernel has given to an exit.
const UNKNOWN_EXIT: u32 = 0x40;
/// The first number that no kernel has given to an event.
const UNKNOWN_EVENT: u32 = 9;
/// A termination request through the GHCB MSR: reason set 0, code 1.
const TERMINATION: u64 = 0x1_0100;
/// A page that a small guest has and does not use.
const SPARE_PAGE: u64 = 0x8000;

const PLAIN: Overlay = Overlay { name: "", rules: &[], vm_type: None, orders: NO_ORDERS, injections: &[] };
const NO_ORDERS: Orders = Orders {
    ignore_events: false,
    convert_faults: false,
    certificates: false,
    quotes: false,
    is_32_bit: false,
    task: crate::situation::Task::Run,
};

const fn after(after: u32, exit: Injected) -> Injection {
    Injection { after, exit }
}

const fn convert(attributes: u64) -> Injected {
    Injected::MapGpaRange { gpa: SPARE_PAGE, pages: 1, attributes }
}

/// Far more pages than a guest has.
const TOO_LONG: Injected =
    Injected::MapGpaRange { gpa: SPARE_PAGE, pages: 1 << 40, attributes: map_gpa_range::ENCRYPTED };

const fn event(event: u32, data: Option<u64>) -> Injected {
    Injected::Event { event, data }
}

/// All of them.
pub fn all() -> impl Iterator<Item = Overlay> {
    [RUNS, EVENTS, MEMORY].into_iter().flatten().copied()
}

/// About `KVM_RUN` itself.
const RUNS: &[Overlay] = &[
    Overlay {
        name: "overlay-interrupted",
        rules: &["RN-2"],
        // Twice in a row, and then right after an answer to an exit of the kernel's own.
        injections: &[
            after(1, Injected::Interrupted),
            after(0, Injected::Interrupted),
            after(1, Injected::Interrupted),
        ],
        ..PLAIN
    },
    Overlay {
        name: "overlay-not-started",
        rules: &["RN-2"],
        injections: &[after(1, Injected::NotStarted), after(1, Injected::NotStarted)],
        ..PLAIN
    },
    Overlay {
        name: "overlay-shutdown",
        rules: &["RN-4"],
        injections: &[after(2, Injected::Shutdown)],
        ..PLAIN
    },
    Overlay {
        name: "overlay-newer-exit",
        rules: &["RN-1"],
        injections: &[after(2, Injected::Newer { reason: UNKNOWN_EXIT, bytes: 0x1122_3344_5566_7788 })],
        ..PLAIN
    },
];

/// About system events.
const EVENTS: &[Overlay] = &[
    Overlay {
        name: "overlay-newer-event",
        rules: &["SE-2", "SE-4"],
        injections: &[after(2, event(UNKNOWN_EVENT, Some(u64::MAX)))],
        ..PLAIN
    },
    Overlay {
        name: "overlay-event-with-bit-31",
        rules: &["SE-1"],
        // Whoever drops the bit takes it for a reset.
        injections: &[after(2, event(1 << 31 | event_type::RESET, None))],
        ..PLAIN
    },
    Overlay {
        name: "overlay-event-ignored",
        rules: &["SE-8"],
        orders: Orders { ignore_events: true, ..NO_ORDERS },
        injections: &[after(2, event(event_type::RESET, None))],
        ..PLAIN
    },
    Overlay {
        name: "overlay-termination",
        rules: &["SE-5"],
        vm_type: Some(VmType::Snp),
        injections: &[after(2, event(event_type::SEV_TERM, Some(TERMINATION)))],
        ..PLAIN
    },
];

/// About conversions and faults.
const MEMORY: &[Overlay] = &[
    Overlay {
        name: "overlay-conversion",
        rules: &["HC-3", "RN-2"],
        // The interruption finds the bytes of the hypercall in the page.
        injections: &[
            after(2, convert(map_gpa_range::ENCRYPTED)),
            after(0, Injected::Interrupted),
            after(1, convert(0)),
        ],
        ..PLAIN
    },
    Overlay {
        name: "overlay-conversion-too-long",
        rules: &["HC-3", "HC-6"],
        // KVM refuses a range that goes around at 2^64 and no other.
        injections: &[after(2, TOO_LONG), after(1, TOO_LONG)],
        ..PLAIN
    },
    Overlay {
        name: "overlay-fault",
        rules: &["MF-1"],
        vm_type: Some(VmType::SwProtected),
        injections: &[after(2, Injected::MemoryFault { is_private: true, gpa: SPARE_PAGE, bytes: 0x1000 })],
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_begin_alike_and_lead_back() {
        let names: BTreeSet<&str> = all().map(|scene| scene.name).collect();
        assert_eq!(names.len(), all().count());
        for scene in all() {
            assert!(scene.name.starts_with("overlay-") && !scene.rules.is_empty(), "{scene:?}");
            assert!(!scene.injections.is_empty(), "{scene:?}");
            assert_eq!(find(scene.name).map(|found| found.name), Some(scene.name));
        }
        assert!(find("other").is_none());
    }

    #[test]
    fn the_documentation_has_each_scene_and_no_other() {
        let page = include_str!("../../../docs/checking.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `overlay-")?.split_once('`'));
        let documented: BTreeSet<String> = rows.map(|(name, _)| format!("overlay-{name}")).collect();
        let names: BTreeSet<String> = all().map(|scene| scene.name.into()).collect();
        assert_eq!(documented, names);
    }

    #[test]
    fn an_exit_writes_only_the_bytes_that_its_kernel_writes() {
        let written = |exit: Injected| {
            let stale = RunPage { exit: [0xa5; 256], exit_reason: 2, ..RunPage::zeroed() };
            let mut page = stale.clone();
            let result = exit.write(&mut page);
            let changed = page.exit.iter().zip(&stale.exit).filter(|(one, other)| one != other).count();
            (result, page.exit_reason, changed)
        };
        assert_eq!(written(Injected::Interrupted), (Err(Errno::EINTR), 10, 0));
        assert_eq!(written(Injected::NotStarted), (Err(Errno::EAGAIN), 2, 0));
        assert_eq!(written(Injected::Shutdown), (Ok(()), 8, 0));
        assert_eq!(written(Injected::Newer { reason: 0x40, bytes: 1 }), (Ok(()), 0x40, 8));
        assert_eq!(written(event(2, None)), (Ok(()), 24, 8));
        assert_eq!(written(event(6, Some(0))), (Ok(()), 24, 16));
        // Number, three arguments, the answer and the flags; the other arguments stay.
        assert_eq!(written(convert(0)), (Ok(()), 3, 8 * 6));
        let fault = Injected::MemoryFault { is_private: true, gpa: 0, bytes: 4096 };
        assert_eq!(written(fault), (Err(Errno::EFAULT), 39, 24));
    }
}
