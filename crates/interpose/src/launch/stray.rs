//! Processes of a run whose keeper was killed. They are known by their environment.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

/// How often all processes are looked at. One that is being born is seen in the next round.
const ROUNDS: usize = 20;

/// Ends every process with this text in its environment. True if none is left.
pub(super) fn end(mark: &str) -> bool {
    for _ in 0..ROUNDS {
        let found = marked(mark);
        if found.is_empty() {
            return true;
        }
        for pid in found {
            // The number may have been given to another process: so it is held, and looked at again.
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
                if is_marked(pid, mark) {
                    let _ = pidfd_send_signal(&process, Signal::KILL);
                }
            }
        }
        sleep(Duration::from_millis(5));
    }
    false
}

fn marked(mark: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    numbers.filter(|pid| is_marked(*pid, mark)).collect()
}

fn is_marked(pid: Pid, mark: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}
