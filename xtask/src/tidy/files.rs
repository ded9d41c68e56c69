//! Reads the tree: the files that git knows or would take, else everything but build output.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::tree::Tree;

/// Reads every file of the project under `root`.
///
/// # Errors
///
/// When a directory or a file that was listed cannot be read. A file that git lists and that has been deleted
/// since is no error.
pub(super) fn read(root: &Path) -> io::Result<Tree> {
    let mut paths = match listed_by_git(root) {
        Some(paths) => paths,
        None => walked(root)?,
    };
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        let full = root.join(&path);
        // A link's target is either in the tree, and is read there, or is not ours.
        if !fs::symlink_metadata(&full).is_ok_and(|data| data.is_file()) {
            continue;
        }
        let text = String::from_utf8(fs::read(&full)?).ok();
        files.push((path, text));
    }
    Ok(Tree::new(files))
}

/// `None` without git or outside of a repository, and when a repository around `root` ignores it.
fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let listing = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    if paths.is_empty() { None } else { Some(paths) }
}

/// Every file under `root`, except in `.git` and in `target` directories.
fn walked(root: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            if !entry.file_type()?.is_dir() {
                paths.push(path);
            } else if name != ".git" && name != "target" {
                waiting.push(path);
            }
        }
    }
    Ok(paths)
}
