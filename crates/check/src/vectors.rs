//! `vectors/exits.jsonl`: the model writes what real kernels wrote, stale bytes included.

use crate::runner::answer_until;
use exeunt_abi::kvm::run::UNION_BYTES;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use serde_json::Value;
use std::fmt::Write;

const VECTORS: &str = include_str!("../../../vectors/exits.jsonl");

#[test]
fn the_model_writes_every_recorded_exit_that_one_of_its_guests_can_provoke() {
    let (mut produced, mut skipped) = (0, 0);
    for line in VECTORS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().unwrap();
        let Some(guest) = row["guest"].as_str() else {
            // It needs a riscv64 guest, one in 32-bit mode, a hole in the host's memory, a signal, or a kernel option.
            println!("skipped: {}: no guest of the model provokes it", text("id"));
            skipped += 1;
            continue;
        };
        let kernel = Kernel {
            dialect: Dialect::from_name(text("dialect")).unwrap(),
            arch: Arch::from_name(text("arch")).unwrap(),
        };
        let entered = match text("rc") {
            "0" => Ok(()),
            name => Err(Errno::from_name(name).unwrap()),
        };
        let reason = u32::try_from(row["reason"].as_u64().unwrap()).unwrap();
        let vm_type = VmType::from_name(text("vm")).unwrap();
        let got = answer_until(guest, vm_type, kernel, [0xaa; UNION_BYTES], reason).unwrap();
        assert_eq!(got.0, entered, "{}", text("id"));
        assert_eq!(hex(&got.1), text("union"), "{}", text("id"));
        produced += 1;
    }
    assert_eq!((produced, skipped), (24, 11));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
