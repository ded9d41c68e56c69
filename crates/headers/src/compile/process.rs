//! Runs a program with a time limit, without a shell.

use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Runs a command to its end. `None` means that it was stopped, with everything that it had started.
pub(super) fn run(command: &mut Command, limit: Duration) -> io::Result<Option<ExitStatus>> {
    // A compiler is a driver of others: they are stopped together as one group.
    let mut child = command.process_group(0).spawn()?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            stop(&mut child)?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn stop(child: &mut Child) -> io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // The child has not been waited for, so its number is still its own.
    if group.is_none_or(|group| kill_process_group(group, Signal::KILL).is_err()) {
        child.kill()?;
    }
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_too_long_is_stopped_and_what_ends_tells_its_status() {
        let started = Instant::now();
        let limit = Duration::from_millis(50);
        assert!(run(Command::new("sleep").arg("30"), limit).unwrap().is_none());
        assert!(started.elapsed() < Duration::from_secs(10));
        let status = run(&mut Command::new("false"), Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(status.code(), Some(1));
        assert!(run(&mut Command::new("no-such-program-at-all"), limit).is_err());
    }
}
