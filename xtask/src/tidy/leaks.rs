//! What the project publishes says nothing about the machine it was written on.

use super::Finding;
use super::tree::{File, Tree};

pub(super) const HOLDS: &str = "\
    no text names a path of a developer's machine, \
    and no Cargo.lock or config.toml a registry but crates.io";

// Written in two parts, so that this file passes its own rule.
const FORBIDDEN: [&str; 4] =
    [concat!("/wor", "k/"), concat!("/hom", "e/"), concat!("/roo", "t/"), concat!("bash", "_jobs")];

const EXTENSIONS: [&str; 13] =
    ["rs", "md", "toml", "sh", "yml", "yaml", "txt", "S", "s", "c", "h", "json", "lock"];

const REGISTRY: &str = "github.com/rust-lang/crates.io-index";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files().iter().filter(|file| is_text(file)) {
        let names_registries = ["Cargo.lock", "config.toml"].contains(&file.name());
        for (index, line) in file.text.lines().enumerate() {
            for word in FORBIDDEN.iter().filter(|word| line.contains(*word)) {
                let message = format!("`{word}` belongs to one machine");
                findings.push(Finding::new(&file.path, index + 1, message));
            }
            if let Some(other) = other_registry(line).filter(|_| names_registries) {
                let message = format!("`{other}` is not the registry that everybody has, {REGISTRY}");
                findings.push(Finding::new(&file.path, index + 1, message));
            }
        }
    }
    findings
}

/// A file without an extension is a script or a licence.
fn is_text(file: &File) -> bool {
    let extension = file.name().trim_start_matches('.').rsplit_once('.').map(|(_, extension)| extension);
    !file.binary && extension.is_none_or(|extension| EXTENSIONS.contains(&extension))
}

/// The first host and path on the line that is not crates.io.
fn other_registry(line: &str) -> Option<&str> {
    let starts = ["https://", "http://"];
    let places = starts.iter().flat_map(|start| line.match_indices(start).map(|(at, _)| at + start.len()));
    let mut addresses = places.filter_map(|at| line.get(at..)?.split(['"', '\'', ' ', '>']).next());
    addresses.find(|address| address.split(['#', '?']).next() != Some(REGISTRY))
}

#[cfg(test)]
mod tests;
