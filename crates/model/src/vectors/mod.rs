//! The recorded vectors, replayed through the model's own `KVM_RUN`. `vectors/README.md` says what they hold.

mod dispatch;
mod dispatch_handlers;
mod events;
mod guest_request;
mod msr_protocol;
mod psc;
mod psc_msr;
mod stage;

use flate2::read::GzDecoder;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// A field of a row.
struct Row(Value);

impl Row {
    fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some()
    }

    fn list(&self, field: &str) -> Vec<Row> {
        self.0[field].as_array().into_iter().flatten().cloned().map(Row).collect()
    }

    fn get(&self, field: &str) -> Row {
        Row(self.0[field].clone())
    }

    /// A decimal number.
    fn int(&self, field: &str) -> i64 {
        self.get(field).as_int()
    }

    fn as_int(&self) -> i64 {
        self.0.as_i64().unwrap_or_else(|| panic!("no number: {}", self.0))
    }

    fn as_u64(&self) -> u64 {
        u64::try_from(self.as_int()).unwrap()
    }

    fn is(&self, field: &str) -> bool {
        self.int(field) != 0
    }

    /// A hexadecimal number, which the files hold as a string.
    fn hex(&self, field: &str) -> u64 {
        self.get(field).as_hex()
    }

    fn as_str(&self) -> &str {
        self.0.as_str().unwrap_or_else(|| panic!("no string: {}", self.0))
    }

    fn as_hex(&self) -> u64 {
        u64::from_str_radix(self.as_str(), 16).unwrap()
    }

    /// A list of hexadecimal numbers.
    fn hexes(&self, field: &str) -> Vec<u64> {
        self.list(field).iter().map(Row::as_hex).collect()
    }

    /// A list of decimal numbers.
    fn ints(&self, field: &str) -> Vec<i64> {
        self.list(field).iter().map(Row::as_int).collect()
    }
}

/// Replays every row of a file, each of which the model has to reproduce. The count is asserted, so that none is lost
/// unnoticed.
fn replay(name: &str, rows: usize, check: impl Fn(&Row)) {
    let path = format!("{}/../../vectors/kernel/{name}.jsonl.gz", env!("CARGO_MANIFEST_DIR"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut seen = 0;
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let row = Row(serde_json::from_str(&line.unwrap()).unwrap());
        seen += 1;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&row)));
        if let Err(panic) = result {
            eprintln!("{name}, row: {}", row.0);
            std::panic::resume_unwind(panic);
        }
    }
    println!("{name}: {seen} reproduced");
    assert_eq!(seen, rows, "{name}");
}
