//! `vectors/exits.jsonl`: bytes that kernels wrote, what they mean, and back again.

use exeunt_abi::kvm::run::{RunPage, UNION_BYTES};
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_proto::exit::{DecodeError, Exit, decode, encode};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../vectors/exits.jsonl");

/// What a page was filled with before the kernel wrote to it.
const FILL: u8 = 0xaa;

struct Vector {
    id: String,
    kernel: Kernel,
    entered: Result<(), Errno>,
    page: RunPage,
    meaning: String,
}

fn vectors() -> impl Iterator<Item = Vector> {
    VECTORS.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().unwrap().to_string();
        let mut page = RunPage::zeroed();
        page.exit_reason = u32::try_from(row["reason"].as_u64().unwrap()).unwrap();
        page.set_bytes(0, &bytes(&text("union")));
        Vector {
            id: text("id"),
            kernel: Kernel {
                dialect: Dialect::from_name(&text("dialect")).unwrap(),
                arch: Arch::from_name(&text("arch")).unwrap(),
            },
            entered: match text("rc").as_str() {
                "0" => Ok(()),
                name => Err(Errno::from_name(name).unwrap()),
            },
            page,
            meaning: text("exit"),
        }
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len(), 2 * UNION_BYTES);
    (0..UNION_BYTES).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn describe(decoded: &Result<Exit, DecodeError>) -> String {
    match decoded {
        Ok(Exit::Hypercall(call)) => {
            let [gpa, pages, attributes, ..] = call.args;
            format!("hypercall {} {gpa:#x} {pages} {attributes:#x} flags {:#x}", call.nr, call.flags)
        }
        Ok(Exit::MemoryFault(fault)) => {
            let kind = if fault.private { "private" } else { "shared" };
            format!("memory fault {kind} {} {:#x}", fault.gpa, fault.size)
        }
        Ok(Exit::SystemEvent(event)) => format!("event {} {:x?}", event.event, event.data.as_slice()),
        Ok(Exit::Vmgexit { ghcb_msr }) => format!("vmgexit {ghcb_msr:#x}"),
        Ok(Exit::Io(io)) => {
            format!("io {} {:#x} {} {}", if io.is_out { "out" } else { "in" }, io.port, io.size, io.count)
        }
        Ok(Exit::Again(errno)) => format!("again {errno}"),
        Ok(Exit::Shutdown) => "shutdown".into(),
        Ok(Exit::Hlt) => "hlt".into(),
        Err(DecodeError::Failed { errno, .. }) => format!("failed {errno}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_recorded_exit_means_what_was_recorded() {
    for vector in vectors() {
        let decoded = decode(vector.entered, &vector.page, vector.kernel);
        assert_eq!(describe(&decoded), vector.meaning, "{}", vector.id);
    }
    assert_eq!(vectors().count(), 35);
}

#[test]
fn every_recorded_exit_is_written_again_byte_for_byte() {
    for vector in vectors() {
        let Ok(exit) = decode(vector.entered, &vector.page, vector.kernel) else { continue };
        let mut page = RunPage::zeroed();
        page.exit = [FILL; UNION_BYTES];
        let entered = encode(&exit, vector.kernel, &mut page);
        assert_eq!(entered, vector.entered, "{}", vector.id);
        assert_eq!(page.exit, vector.page.exit, "{}", vector.id);
        if exit.reason(vector.kernel.dialect).is_some() {
            assert_eq!(page.exit_reason, vector.page.exit_reason, "{}", vector.id);
        }
    }
}
