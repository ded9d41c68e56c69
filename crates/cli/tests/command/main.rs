//! The command as a user types it, with good and with bad input.

mod abi;
mod certs;
mod certs_fetch;
mod check;
mod check_reports;
mod explain;
mod explore;
mod migrate;
#[cfg(target_os = "linux")]
mod quote;
mod rules;
mod run;
mod snapshot;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn exeunt(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exeunt")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a mistake is answered with, on standard error, with status 2 and nothing on standard output.
fn mistake(arguments: &[&str], output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(stdout(output), "", "{arguments:?}");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(text.starts_with("exeunt: "), "{text}");
    text
}

/// A folder for one test's files, gone when the test is. No two tests take the same name.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exeunt-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left for the system to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
