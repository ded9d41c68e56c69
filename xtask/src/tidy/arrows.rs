//! Dependencies run one way. Cargo rules out cycles, not wrong arrows, so the table stands here.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Finding;
use super::tree::{File, Tree};

pub(super) const HOLDS: &str = "\
    a workspace crate depends on the crates that its row allows, \
    and abi and proto on nothing else but zerocopy";

/// What one package may see. Normal, dev and build dependencies are the same to this table: a test that needs
/// a forbidden arrow belongs into a crate further right.
struct Room {
    package: &'static str,
    dir: &'static str,
    sees: &'static [&'static str],
    /// `None` leaves dependencies from outside to review.
    outside: Option<&'static [&'static str]>,
}

const ABI: &str = "exeunt-abi";
const PROTO: &str = "exeunt-proto";
const RUNS: &str = "exeunt-runs";
const SERVICE: &str = "exeunt";
const MODEL: &str = "exeunt-model";
const SCENES: &str = "exeunt-scenes";
const SHIM: &str = "exeunt-shim";
const SUBJECT: &str = "exeunt-subject";
const CPU: &str = "exeunt-cpu";
const LINUX: &str = "exeunt-linux";
const HEADERS: &str = "exeunt-headers";
const CERTS: &str = "exeunt-certs";
const QUOTE: &str = "exeunt-quote";
const ADAPTERS: &str = "exeunt-adapters";
const C: &str = "exeunt-c";
const CHECK: &str = "exeunt-check";
const RIG: &str = "exeunt-rig";
const INTERPOSE: &str = "exeunt-interpose";
const CLI: &str = "exeunt-cli";

/// What a VMM adds: policy, and the providers and adapters around it.
const VMM: &[&str] = &[ABI, PROTO, SERVICE, CERTS, QUOTE, ADAPTERS];
const HALVES: &[&str] = &[ABI, PROTO, SERVICE, CERTS, QUOTE, ADAPTERS, MODEL, CPU, LINUX];
/// What judges both halves, ours and others.
const JUDGED: &[&str] =
    &[ABI, PROTO, SERVICE, CERTS, QUOTE, ADAPTERS, MODEL, CPU, LINUX, SCENES, INTERPOSE, SHIM, SUBJECT];
const ALL: &[&str] =
    &[ABI, PROTO, SERVICE, CERTS, QUOTE, ADAPTERS, MODEL, CPU, LINUX, HEADERS, CHECK, INTERPOSE, SCENES];
const FUZZED: &[&str] =
    &[ABI, PROTO, SERVICE, CERTS, QUOTE, ADAPTERS, MODEL, CPU, LINUX, CHECK, SCENES, INTERPOSE];
const WIRE: Option<&[&str]> = Some(&["zerocopy"]);

const ROOMS: &[Room] = &[
    Room { package: ABI, dir: "crates/abi", sees: &[], outside: WIRE },
    Room { package: PROTO, dir: "crates/proto", sees: &[ABI], outside: WIRE },
    Room { package: RUNS, dir: "crates/runs", sees: &[], outside: Some(&[]) },
    Room { package: SERVICE, dir: "crates/service", sees: &[ABI, PROTO, RUNS], outside: None },
    Room { package: CERTS, dir: "crates/certs", sees: &[ABI, PROTO, SERVICE], outside: None },
    Room { package: QUOTE, dir: "crates/quote", sees: &[ABI, PROTO, SERVICE], outside: None },
    Room { package: ADAPTERS, dir: "crates/adapters", sees: &[ABI, PROTO, SERVICE], outside: None },
    Room { package: C, dir: "crates/c", sees: VMM, outside: None },
    Room { package: MODEL, dir: "crates/model", sees: &[ABI, PROTO, RUNS], outside: None },
    Room { package: CPU, dir: "crates/cpu", sees: &[ABI, PROTO, MODEL], outside: None },
    Room { package: SCENES, dir: "crates/scenes", sees: &[ABI, PROTO, MODEL], outside: None },
    Room { package: LINUX, dir: "crates/linux", sees: &[ABI, PROTO], outside: None },
    Room { package: HEADERS, dir: "crates/headers", sees: &[ABI], outside: None },
    Room {
        package: INTERPOSE,
        dir: "crates/interpose",
        sees: &[ABI, PROTO, MODEL, SCENES, LINUX],
        outside: None,
    },
    Room { package: SHIM, dir: "crates/shim", sees: &[ABI, PROTO, MODEL, SCENES, INTERPOSE], outside: None },
    Room {
        package: SUBJECT,
        dir: "crates/subject",
        sees: &[ABI, PROTO, SERVICE, CERTS, ADAPTERS, LINUX],
        outside: None,
    },
    Room { package: CHECK, dir: "crates/check", sees: JUDGED, outside: None },
    Room { package: RIG, dir: "crates/rig", sees: HALVES, outside: None },
    Room { package: CLI, dir: "crates/cli", sees: ALL, outside: None },
    Room { package: "exeunt-fuzz-targets", dir: "crates/fuzz", sees: FUZZED, outside: None },
    Room { package: "xtask", dir: "xtask", sees: &[ABI, HEADERS], outside: None },
    Room { package: "exeunt-no-std", dir: "xtask/no-std", sees: &[ABI, PROTO], outside: Some(&[]) },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut manifests: Vec<(&File, Table)> = Vec::new();
    for file in tree.files().iter().filter(|file| file.name() == "Cargo.toml") {
        match file.text.parse::<Table>() {
            Ok(manifest) => manifests.push((file, manifest)),
            Err(error) => {
                let message = format!("does not parse: {}", error.message());
                findings.push(Finding::new(&file.path, 1, message));
            }
        }
    }
    let renames = renames(&manifests);
    let ours: Vec<&str> = manifests.iter().filter_map(|(_, manifest)| package(manifest)).collect();
    for (file, manifest) in &manifests {
        let Some(package) = package(manifest) else { continue };
        // A fuzz target may look into every room.
        if file.path.starts_with("fuzz/") {
            continue;
        }
        let dir = file.path.strip_suffix("/Cargo.toml").unwrap_or("");
        let room = ROOMS.iter().find(|room| room.package == package && room.dir == dir);
        let Some(room) = room else {
            let message = format!("package `{package}` in `{dir}` is not in the table of arrows");
            findings.push(Finding::new(&file.path, 1, message));
            continue;
        };
        findings.extend(judge(room, file, manifest, &ours, &renames));
    }
    findings
}

fn judge(
    room: &Room,
    file: &File,
    manifest: &Table,
    ours: &[&str],
    renames: &BTreeMap<&str, &str>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Dependency { kind, key, value } in dependencies(manifest) {
        let package = value.get("package").and_then(Value::as_str);
        let package = package.or_else(|| renames.get(key).copied()).unwrap_or(key);
        let from = room.package;
        let is_ours = ours.contains(&package) || ROOMS.iter().any(|room| room.package == package);
        let message = if is_ours {
            // A package may name itself in its dev-dependencies, to switch a feature on.
            if room.sees.contains(&package) || package == from {
                continue;
            }
            format!("`{from}` must not depend on `{package}`")
        } else {
            let allowed = room.outside.is_none_or(|outside| outside.contains(&package));
            if allowed || kind == "dev-dependencies" {
                continue;
            }
            format!("`{from}` may have no dependency from outside but zerocopy, not `{package}`")
        };
        findings.push(Finding::new(&file.path, line_of(&file.text, key), message));
    }
    findings
}

struct Dependency<'m> {
    kind: &'static str,
    key: &'m str,
    value: &'m Value,
}

/// Every dependency of a manifest, those of single targets too.
fn dependencies(manifest: &Table) -> Vec<Dependency<'_>> {
    const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let mut all = Vec::new();
    for table in std::iter::once(manifest).chain(targets) {
        for kind in KINDS {
            let entries = table.get(kind).and_then(Value::as_table).into_iter().flatten();
            all.extend(entries.map(|(key, value)| Dependency { kind, key, value }));
        }
    }
    all
}

/// From the key to the package, for the workspace's dependencies that have another name than their package.
fn renames<'m>(manifests: &'m [(&File, Table)]) -> BTreeMap<&'m str, &'m str> {
    let root = manifests.iter().find(|(file, _)| file.path == "Cargo.toml");
    let workspace = root.and_then(|(_, manifest)| manifest.get("workspace"));
    let shared = workspace.and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    let entries = shared.into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.as_str(), value.get("package")?.as_str()?))).collect()
}

fn package(manifest: &Table) -> Option<&str> {
    manifest.get("package")?.get("name")?.as_str()
}

/// The line that declares the dependency, or the first.
fn line_of(text: &str, key: &str) -> usize {
    let declares = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        let in_header = line.starts_with('[') && line.trim_end().ends_with(&format!(".{key}]"));
        let rest = line.strip_prefix(key);
        in_header || rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=', '"']))
    };
    text.lines().position(declares).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests;
