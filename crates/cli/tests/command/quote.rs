//! `exeunt quote`: the service for tests and its client, each a process of its own.

use super::{Folder, exeunt, stdout};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A service that has begun to listen. It ends after its clients, or with the test.
struct Service(Child);

impl Service {
    fn start(address: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
        command.args(["quote", "serve", "--listen", address]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening at {address}; the quotes are SIMULATED\n"));
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mistake(arguments: &[&str]) -> String {
    super::mistake(arguments, &exeunt(arguments))
}

/// A folder, the address of a service in it, and the file of a report.
fn place(name: &str) -> (Folder, String, String) {
    let folder = Folder::new(name);
    let report: Vec<u8> = (0..1024u32).map(|index| index.to_le_bytes()[0]).collect();
    let report = folder.file("td.report", report);
    let address = format!("unix:{}/socket", folder.path());
    (folder, address, report)
}

#[test]
fn a_quote_comes_from_one_process_to_the_other_and_says_that_it_is_simulated() {
    let (folder, address, report) = place("quote-get");
    let mut service = Service::start(&address, &["--count", "2"]);
    let out = format!("{}/td.quote", folder.path());
    let output = exeunt(&["quote", "get", "--to", &address, "--report", &report, "--out", &out]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let quote = std::fs::read(&out).unwrap();
    assert!(quote.starts_with(b"SIMULATED"));
    assert!(quote.ends_with(&(128..192).collect::<Vec<u8>>()), "the data of the report");
    assert_eq!(stdout(&output), format!("a quote of {} bytes in {out}\n", quote.len()));
    let printed = exeunt(&["quote", "get", "--to", &address, "--report", &report]);
    assert!(stdout(&printed).starts_with("53494d554c41544544"), "the same in hex");
    assert!(service.0.wait().unwrap().success(), "it ends after two clients");
}

#[test]
fn a_service_that_misbehaves_is_one_line_and_status_2() {
    for (arguments, expected) in [
        (["--fail", "0x11001"].as_slice(), "the service failed with 0x11001"),
        (&["--garbage"], "version 23130"),
        (&["--close-early"], "the connection to the quoting service broke"),
        (&["--delay", "60000"], "timed out"),
    ] {
        let (_folder, address, report) = place("quote-misbehaves");
        let _service = Service::start(&address, arguments);
        let line = mistake(&["quote", "get", "--to", &address, "--report", &report, "--timeout", "1"]);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
}

#[test]
fn an_address_without_a_service_and_a_report_that_is_none_are_one_line_and_status_2() {
    let (folder, address, report) = place("quote-mistakes");
    let line = mistake(&["quote", "get", "--to", &address, "--report", &report]);
    assert!(line.contains("cannot reach the quoting service at unix:"), "{line}");
    let large = folder.file("large", vec![0; 65537]);
    let empty = folder.file("empty", b"");
    for (report, expected) in [
        (large.as_str(), "more than 65536 bytes"),
        (&empty, "a message with nothing in it"),
        ("/missing", "cannot read the report"),
    ] {
        let line = mistake(&["quote", "get", "--to", &address, "--report", report]);
        assert!(line.contains(expected), "{line}");
    }
    let line = mistake(&["quote", "serve", "--listen", "unix:/missing/socket"]);
    assert!(line.contains("cannot listen at unix:/missing/socket"), "{line}");
}
