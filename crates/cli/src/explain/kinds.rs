//! The kinds of numbers and pages, one row each.

use super::explanation::Explanation;
use super::input::Input;
use super::{
    Settings, caps, certs, errno, event, exit_code, exit_info, exits, ghcb_msr, ghcb_page, ioctls, map_gpa,
    message, psc, report, run_page, vcpu_events,
};
use crate::Failure;

/// What a kind takes, and who explains it.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// One number, or a name.
    Number(fn(&str, &Settings) -> Result<Explanation, Failure>),
    /// Three numbers.
    Numbers(fn(&[String]) -> Result<Explanation, Failure>),
    /// A file or hex digits.
    Bytes(fn(&Input, &Settings) -> Result<Explanation, Failure>),
    /// A file of lines.
    Log,
}

/// One kind.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) example: &'static str,
    pub(super) takes: Takes,
}

/// Every kind, as `--list` shows them.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "exit",
        about: "kvm_run.exit_reason",
        example: "43",
        takes: Takes::Number(|text, settings| exits::explain(text, settings.kernel.dialect)),
    },
    Kind {
        name: "event",
        about: "system_event.type",
        example: "6",
        takes: Takes::Number(|text, settings| event::explain(text, settings.kernel.dialect)),
    },
    Kind {
        name: "sev-term",
        about: "data[0] of a SEV_TERM event",
        example: "0x21100",
        takes: Takes::Number(|text, _| ghcb_msr::termination(text)),
    },
    Kind {
        name: "errno",
        about: "a result of KVM_RUN",
        example: "EFAULT",
        takes: Takes::Number(|text, _| errno::explain(text)),
    },
    Kind {
        name: "map-gpa",
        about: "the arguments of KVM_HC_MAP_GPA_RANGE",
        example: "0x100000 512 0x11",
        takes: Takes::Numbers(map_gpa::explain),
    },
    Kind {
        name: "ghcb-msr",
        about: "the GHCB MSR, request or response",
        example: "0x10000000001014",
        takes: Takes::Number(|text, _| ghcb_msr::explain(text)),
    },
    Kind {
        name: "exit-code",
        about: "SW_EXITCODE of a page-based request",
        example: "0x80000010",
        takes: Takes::Number(|text, _| exit_code::explain(text)),
    },
    Kind {
        name: "sw-exitinfo1",
        about: "SW_EXITINFO1 of an answer",
        example: "2",
        takes: Takes::Number(|text, _| exit_info::first(text)),
    },
    Kind {
        name: "sw-exitinfo2",
        about: "SW_EXITINFO2 of an answer",
        example: "0x0000010000000000",
        takes: Takes::Number(|text, _| exit_info::second(text)),
    },
    Kind {
        name: "psc-entry",
        about: "one entry of a page-state change",
        example: "0x110000000200000",
        takes: Takes::Number(|text, _| psc::entry(text)),
    },
    Kind {
        name: "ioctl",
        about: "an ioctl",
        example: "0xc008aeba",
        takes: Takes::Number(|text, _| ioctls::explain(text)),
    },
    Kind {
        name: "cap",
        about: "a capability",
        example: "215",
        takes: Takes::Number(|text, _| caps::explain(text)),
    },
    Kind {
        name: "run-page",
        about: "kvm_run: 288 bytes, or its union of 256",
        example: "kvm_run.bin --errno EFAULT",
        takes: Takes::Bytes(run_page::explain),
    },
    Kind {
        name: "ghcb",
        about: "a GHCB page: 4096 bytes",
        example: "ghcb.bin",
        takes: Takes::Bytes(|input, _| ghcb_page::explain(input)),
    },
    Kind {
        name: "psc",
        about: "a page-state change with its entries",
        example: "psc.bin",
        takes: Takes::Bytes(|input, _| psc::descriptor(input)),
    },
    Kind {
        name: "message",
        about: "an SNP guest message: 96 bytes",
        example: "request.bin",
        takes: Takes::Bytes(|input, _| message::explain(input)),
    },
    Kind {
        name: "certs",
        about: "a certificate table",
        example: "certs.bin",
        takes: Takes::Bytes(|input, _| certs::explain(input)),
    },
    Kind {
        name: "report",
        about: "an SNP attestation report: 1184 bytes",
        example: "report.bin",
        takes: Takes::Bytes(|input, _| report::explain(input)),
    },
    Kind {
        name: "events",
        about: "kvm_vcpu_events of x86: 64 bytes",
        example: "events.bin",
        takes: Takes::Bytes(|input, _| vcpu_events::explain(input)),
    },
    Kind { name: "log", about: "lines of QEMU, dmesg or strace", example: "qemu.log", takes: Takes::Log },
];

/// The kind with this name.
pub(super) fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// One line for each kind.
pub(super) fn list() -> String {
    use std::fmt::Write as _;
    KINDS.iter().fold(String::new(), |mut text, kind| {
        let example = format!("exeunt explain {} {}", kind.name, kind.example);
        let _ = writeln!(text, "{:<12} {:<39} {example}", kind.name, kind.about);
        text
    })
}
