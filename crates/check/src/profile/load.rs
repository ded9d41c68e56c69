//! Reading profiles: every key is known, every value is checked before anything runs.

use super::fill::{self, Piece, Placeholder};
use super::{Ends, Probe, Profile, ProfileError, program, shipped};
use crate::foreign::Stage;
use exeunt_abi::kvm::vm_type::VmType;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The largest profile.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The longest time that a VMM may go on after its guest.
const MAX_SETTLE_MS: u64 = 60_000;
const SETTLE_MS: u64 = 500;
/// What a scene may want of a VMM.
const ORDERS: [&str; 10] = [
    "vm-type",
    "convert-faults",
    "ignore-events",
    "certificates",
    "vcpus",
    "irqchip",
    "memory",
    "shared-memory",
    "save-after",
    "save-twice",
];
const STAGES: [Stage; 3] = [Stage::Observe, Stage::Overlay, Stage::Scripted];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ProfileToml {
    about: String,
    tested: Option<String>,
    program: String,
    #[serde(rename = "match", default)]
    matches: Vec<String>,
    #[serde(rename = "match-if")]
    probe: Option<ProbeToml>,
    stages: Vec<String>,
    vm_type: Option<OneOrMore>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files_in: Vec<String>,
    help: Option<String>,
    #[serde(default)]
    texts: BTreeMap<String, String>,
    settle_ms: Option<u64>,
    #[serde(default)]
    convert_faults: bool,
    #[serde(default)]
    when: BTreeMap<String, Vec<String>>,
    ends: String,
}

/// A name, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::More(names) => names,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeToml {
    args: Vec<String>,
    says: String,
}

/// Loads a profile by its name, or from a file.
///
/// What contains a `/` or ends in `.toml` is a file; anything else is the name of a shipped profile.
///
/// # Errors
///
/// Whatever is wrong with it. Nothing has been run.
pub fn load(argument: &str) -> Result<Profile, ProfileError> {
    let path = Path::new(argument);
    let is_file = argument.contains('/') || path.extension().is_some_and(|extension| extension == "toml");
    if !is_file {
        let unknown = || ProfileError::Unknown { name: argument.into(), shipped: shipped::NAMES.join(", ") };
        return shipped().into_iter().find(|profile| profile.name == argument).ok_or_else(unknown);
    }
    let failed = |reason| ProfileError::Read { path: path.into(), reason };
    let text = program::read_small(path, MAX_FILE_BYTES).map_err(failed)?;
    let name = path.file_stem().map_or_else(|| argument.into(), |stem| stem.to_string_lossy().into_owned());
    parse(&name, argument, &text)
}

/// Parses and checks a profile.
pub(super) fn parse(name: &str, origin: &str, text: &str) -> Result<Profile, ProfileError> {
    let file: ProfileToml = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        ProfileError::Parse { origin: origin.into(), line, message }
    })?;
    check(&file).map_err(|(key, message)| ProfileError::Invalid {
        origin: origin.into(),
        key: key.into(),
        message,
    })?;
    let stages = file.stages.iter().filter_map(|name| stage(name)).collect();
    let vm_types = match &file.vm_type {
        None => vec![VmType::Default],
        Some(types) => types.names().iter().filter_map(|name| VmType::from_name(name)).collect(),
    };
    Ok(Profile {
        name: name.into(),
        title: file.about,
        tested: file.tested,
        program: file.program,
        matches: file.matches,
        probe: file.probe.map(|probe| Probe { args: probe.args, says: probe.says }),
        stages,
        vm_types,
        args: file.args,
        env: file.env,
        files_in: file.files_in,
        help: file.help,
        texts: file.texts,
        settle: Duration::from_millis(file.settle_ms.unwrap_or(SETTLE_MS)),
        convert_faults: file.convert_faults,
        when: file.when,
        ends: if file.ends == "pauses" { Ends::Pauses } else { Ends::Exits },
    })
}

/// The first value that has no meaning: its key, and what is wrong.
fn check(file: &ProfileToml) -> Result<(), (&'static str, String)> {
    let line = |key, text: &str| {
        let is_line = !text.trim().is_empty() && !text.contains(char::is_control);
        if is_line { Ok(()) } else { Err((key, "is one line of text".to_owned())) }
    };
    line("about", &file.about)?;
    line("program", &file.program)?;
    for (key, text) in [("tested", &file.tested), ("help", &file.help)] {
        text.as_ref().map_or(Ok(()), |text| line(key, text))?;
    }
    for pattern in &file.matches {
        line("match", pattern)?;
        if pattern.contains('/') || pattern.trim_matches('*').is_empty() {
            return Err(("match", format!("'{pattern}' is no file name; a '*' stands for a part of one")));
        }
    }
    if let Some(probe) = &file.probe {
        line("match-if", &probe.says)?;
    }
    check_stages(file)?;
    check_types(file)?;
    if !matches!(file.ends.as_str(), "exits" | "pauses") {
        return Err(("ends", format!("a VMM exits or pauses; '{}' is neither", file.ends)));
    }
    if file.settle_ms.is_some_and(|ms| ms > MAX_SETTLE_MS) {
        return Err(("settle-ms", format!("at most {MAX_SETTLE_MS}")));
    }
    if let Some(name) = file.when.keys().find(|name| !ORDERS.contains(&name.as_str())) {
        return Err(("when", format!("no order is named '{name}'; there are {}", ORDERS.join(", "))));
    }
    check_filled(file)
}

fn check_types(file: &ProfileToml) -> Result<(), (&'static str, String)> {
    let Some(names) = file.vm_type.as_ref().map(OneOrMore::names) else { return Ok(()) };
    if let Some(name) = names.iter().find(|name| VmType::from_name(name).is_none()) {
        let known: Vec<_> = VmType::ALL.iter().map(|vm_type| vm_type.name()).collect();
        return Err(("vm-type", format!("no VM type is named '{name}'; there are {}", known.join(", "))));
    }
    match names.len() {
        0 => Err(("vm-type", "none is named".into())),
        1 => Ok(()),
        _ if file.when.contains_key("vm-type") => Ok(()),
        _ => Err(("vm-type", "of several types one is chosen by the arguments `vm-type` in `when`".into())),
    }
}

fn check_stages(file: &ProfileToml) -> Result<(), (&'static str, String)> {
    let known = || STAGES.map(|stage| stage.to_string()).join(", ");
    if file.stages.is_empty() {
        return Err(("stages", format!("none is named; there are {}", known())));
    }
    for (at, name) in file.stages.iter().enumerate() {
        if stage(name).is_none() {
            return Err(("stages", format!("no stage is named '{name}'; there are {}", known())));
        }
        if file.stages.iter().skip(at + 1).any(|other| other == name) {
            return Err(("stages", format!("'{name}' is named twice")));
        }
    }
    Ok(())
}

/// Whatever has placeholders.
fn check_filled(file: &ProfileToml) -> Result<(), (&'static str, String)> {
    let args = file.args.iter().map(|text| ("args", text));
    let env = file.env.values().map(|text| ("env", text));
    let files = file.files_in.iter().map(|text| ("files-in", text));
    let texts = file.texts.values().map(|text| ("texts", text));
    let when = file.when.values().flatten();
    if when.clone().any(|text| text.contains('\0')) {
        return Err(("when", "a zero byte ends an argument".into()));
    }
    for (key, text) in args.chain(env).chain(files).chain(texts) {
        if text.contains('\0') {
            return Err((key, "a zero byte ends an argument".into()));
        }
        for piece in fill::pieces(text).map_err(|message| (key, message))? {
            let Piece::Hole(hole) = piece else { continue };
            match hole {
                Placeholder::File(_) | Placeholder::Text(_) if matches!(key, "files-in" | "texts") => {
                    return Err((key, "a file or a text cannot be named here".into()));
                }
                Placeholder::Text(name) if !file.texts.contains_key(&name) => {
                    return Err((key, format!("there is no '{name}' in texts")));
                }
                Placeholder::File(_) if file.files_in.is_empty() => {
                    return Err((key, "a file is named, and no folder in files-in".into()));
                }
                _ => {}
            }
        }
    }
    for name in file.env.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(("env", format!("'{}' is no name of a variable", name.escape_default())));
        }
    }
    // Linux takes 249 bytes for the name of a file in memory, and a prefix is a part of them.
    if let Some(name) = file.texts.keys().find(|name| name.len() > 200 || name.contains(['/', '\0'])) {
        return Err(("texts", format!("'{}' is no short file name", name.escape_default())));
    }
    Ok(())
}

fn stage(name: &str) -> Option<Stage> {
    STAGES.into_iter().find(|stage| stage.to_string() == name)
}
