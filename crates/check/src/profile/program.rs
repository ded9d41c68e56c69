//! Programs: where they are, and what they say when they are asked.

use super::Probe;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may think about a question.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of an answer.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Where a program is: at this path if the name has a `/`, in `PATH` otherwise.
pub(super) fn find(name: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(is_program)
}

/// Whether a program answers as the probe wants.
pub(super) fn answers(program: &Path, probe: &Probe) -> bool {
    let mut command = Command::new(program);
    command.args(&probe.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let Some(stdout) = child.stdout.take() else { return false };
    let (tell, hear) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut text);
        let _ = tell.send(text);
    });
    // What a program leaves behind may hold its output open.
    let text = if ends(&mut child) { hear.recv_timeout(PATIENCE).unwrap_or_default() } else { Vec::new() };
    text.windows(probe.says.len().max(1)).any(|part| part == probe.says.as_bytes())
}

/// Waits for the end of a program, or ends it.
fn ends(child: &mut Child) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    // One that has ended meanwhile cannot be killed, and does not have to be.
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Whether a file name fits a pattern, in which a `*` stands for anything.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| fits(after, rest)))
        }),
    }
}

/// The text of a file, if it is no larger than a profile may be.
pub(super) fn read_small(path: &Path, max_bytes: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(max_bytes + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > max_bytes { Err("larger than 1 MiB".into()) } else { Ok(text) }
}
