//! Virtual machines, and what a client in one says.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Stop, debian, tools};

/// QEMU for one architecture.
pub(super) struct Qemu {
    program: PathBuf,
    /// The folder that its packages were unpacked to, if it is not installed.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The installed one, or one that is unpacked in the cache.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn find(arch: &str, package: &str, cache: &Path, offline: bool) -> Result<Self, Stop> {
        let name = format!("qemu-system-{arch}");
        if let Some(program) = tools::find(&name) {
            return Ok(Self { program, root: None });
        }
        let root = cache.join(package);
        let program = root.join("usr/bin").join(&name);
        if !root.join("complete").is_file() {
            if offline {
                return Err(Stop::Skip(format!("{name} is neither installed nor in {}", cache.display())));
            }
            debian::unpack_with_dependencies(package, &root)?;
        }
        Ok(Self { program, root: Some(root) })
    }

    /// A command with the arguments that every machine has.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            for folder in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(root.join(folder));
            }
            let libraries = format!("{}-linux-gnu", std::env::consts::ARCH);
            let folders = ["usr/lib", "lib"].map(|lib| root.join(lib).join(&libraries));
            let path = std::env::join_paths(folders).unwrap_or_default();
            command.env("LD_LIBRARY_PATH", path);
        }
        command.args(["-nographic", "-no-reboot", "-nic", "none"]);
        command
    }
}

/// How a client ended.
pub(super) enum Ended {
    /// It told its summary.
    Done(Value),
    /// It told why there is nothing to compare with.
    Skipped(String),
    /// It told neither: the last of what it said.
    Silent(String),
}

/// Starts a client or its machine, prints its progress, and waits for its last word.
///
/// # Errors
///
/// It could not be started.
pub(super) fn listen(mut command: Command, timeout: u64) -> Result<Ended, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    let output = child.stdout.take().ok_or("no output")?;
    let (to, from) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if to.send(line).is_err() {
                break;
            }
        }
    });
    let until = Instant::now() + Duration::from_secs(timeout);
    let mut last = Vec::new();
    let ended = loop {
        let Ok(line) = from.recv_timeout(until.saturating_duration_since(Instant::now())) else {
            break Ended::Silent(last.join(" | "));
        };
        match said(&line) {
            Some(("done", text)) => match serde_json::from_str(text) {
                Ok(summary) => break Ended::Done(summary),
                Err(error) => last.push(error.to_string()),
            },
            Some(("skipped", reason)) => break Ended::Skipped(reason.to_owned()),
            Some(("progress" | "kernel", text)) => println!("  {text}"),
            _ if !line.is_empty() => last.push(line),
            _ => {}
        }
        if last.len() > 5 {
            last.remove(0);
        }
    };
    // It may be over already, and a machine has nothing to lose.
    let _ = child.kill();
    let _ = child.wait();
    drop(from);
    let _ = reader.join();
    Ok(ended)
}

/// The word and the text of a line that is the client's own.
fn said(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("rig: ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn the_last_word_is_found_among_what_the_kernel_says() {
        let text =
            r#"echo 'KVM: hello'; echo 'rig: progress 5'; echo 'rig: done {"different": 3}'; echo bye"#;
        let Ended::Done(summary) = listen(script(text), 30).unwrap() else { panic!("no summary") };
        assert_eq!(summary["different"], 3);
        let text = "echo 'rig: skipped there is no /dev/kvm'";
        let Ended::Skipped(reason) = listen(script(text), 30).unwrap() else { panic!("not skipped") };
        assert_eq!(reason, "there is no /dev/kvm");
    }

    #[test]
    fn who_says_nothing_is_ended_and_quoted() {
        let Ended::Silent(text) = listen(script("echo 'Kernel panic'"), 30).unwrap() else { panic!() };
        assert_eq!(text, "Kernel panic");
        let before = Instant::now();
        let Ended::Silent(_) = listen(script("exec sleep 60"), 1).unwrap() else { panic!() };
        assert!(before.elapsed() < Duration::from_secs(30));
    }
}
