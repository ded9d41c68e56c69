//! Other people's programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a program to its end, and returns what it wrote.
///
/// # Errors
///
/// It could not be started, or failed; the last lines of what it said.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    Err(format!("{name} failed with {}: {}", output.status, last.join("; ")))
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The first file under a folder whose name begins and ends so.
pub(crate) fn find_file(dir: &Path, begins: &str, ends: &str) -> Option<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let fits = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_file() && name.starts_with(begins) && name.ends_with(ends)
    };
    let found = entries.iter().find(fits).cloned();
    let below = || entries.iter().filter(|path| path.is_dir() && !path.is_symlink());
    found.or_else(|| below().find_map(|dir| find_file(dir, begins, ends)))
}
