//! Reading scenario files: every key is known, every value is checked before anything runs.

use super::{
    Case, EFFECTS, Expect, Migration, QUOTE_ANSWERS, QuoteConfig, Scenario, VmConfig, effect_kind, errno,
    shipped,
};
use exeunt::certs::{Certificates, CertsError, CheckedTable};
use exeunt::layer::inject::EffectFault;
use exeunt::policy::{EventPolicy, FaultPolicy};
use exeunt::tdx::QuoteLimits;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, PAGE_SIZE};
use exeunt_scenes::programs;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The most memory that a scenario may give its guest, 1 TiB.
const MAX_MEMORY: u64 = 1 << 40;
/// The most vCPUs.
const MAX_VCPUS: u32 = 256;
/// The largest scenario file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// No scenario of this name is shipped.
    #[error("no scenario is named '{name}'; shipped are {shipped}; a file is named by a path such as ./{name}.toml",
            shipped = super::NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the scenario {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The text is not TOML, has an unknown key, or a value of the wrong type.
    #[error("{origin}:{line}: {message}")]
    Parse {
        /// Where the text is from.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A value has no meaning.
    #[error("{origin}: {message}")]
    Invalid {
        /// Where the text is from.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Certs(#[from] CertsError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileToml {
    title: String,
    mail: Option<String>,
    vm: VmToml,
    guest: Option<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(rename = "case")]
    cases: Vec<CaseToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct VmToml {
    #[serde(rename = "type")]
    vm_type: String,
    arch: Option<String>,
    memory: u64,
    vcpus: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CaseToml {
    title: String,
    vm: Option<VmToml>,
    guest: Option<String>,
    #[serde(default)]
    dialects: Vec<String>,
    capabilities: Option<Vec<String>>,
    certificates: Option<CertificatesToml>,
    quotes: Option<QuotesToml>,
    #[serde(default)]
    firmware_status: u32,
    #[serde(default)]
    faults: Vec<FaultToml>,
    #[serde(default)]
    interrupts: Vec<u32>,
    memory_faults: Option<String>,
    reset: Option<String>,
    #[serde(default)]
    readers: bool,
    migration: Option<MigrationToml>,
    #[serde(default)]
    expect: ExpectToml,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CertificatesToml {
    Word(String),
    File { file: PathBuf },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotesToml {
    answer: String,
    #[serde(default)]
    after: u32,
    slots: Option<u8>,
    #[serde(default)]
    interrupt: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultToml {
    effect: String,
    nth: u32,
    errno: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MigrationToml {
    source_capability: bool,
    target_capability: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ExpectToml {
    end: Option<String>,
    end_says: Option<String>,
    exits: Option<Vec<String>>,
    #[serde(default)]
    saw: Vec<String>,
    #[serde(default)]
    read: Vec<String>,
}

/// Loads a scenario by its name, or from a file.
///
/// What contains a `/` or ends in `.toml` is a file; anything else is the name of a shipped scenario.
///
/// # Errors
///
/// Whatever is wrong with it. Nothing has been run.
pub fn load(argument: &str) -> Result<Scenario, ScenarioError> {
    let path = Path::new(argument);
    let is_file = argument.contains('/') || path.extension().is_some_and(|extension| extension == "toml");
    if !is_file {
        return shipped(argument);
    }
    let text = read_file(path)?;
    let name = path.file_stem().map_or_else(|| argument.into(), |stem| stem.to_string_lossy().into_owned());
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    parse_with(&name, argument, &text, |file| CheckedTable::read(&folder.join(file)))
}

fn read_file(path: &Path) -> Result<String, ScenarioError> {
    use std::io::{Error, ErrorKind, Read};
    let failed = |source| ScenarioError::Read { path: path.into(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(Error::new(ErrorKind::FileTooLarge, "larger than 1 MiB")));
    }
    Ok(text)
}

/// Parses and checks a scenario. `read_certs` reads a certificate file by the name that the scenario gives it.
pub(super) fn parse_with(
    name: &str,
    origin: &str,
    text: &str,
    read_certs: impl Fn(&Path) -> Result<CheckedTable, CertsError>,
) -> Result<Scenario, ScenarioError> {
    let file: FileToml = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        ScenarioError::Parse { origin: origin.into(), line, message: one_line(error.message()) }
    })?;
    if file.cases.is_empty() {
        return Err(ScenarioError::Invalid { origin: origin.into(), message: "it has no case".into() });
    }
    let mut cases = Vec::new();
    for case in &file.cases {
        let certificates = match &case.certificates {
            Some(CertificatesToml::File { file }) => Certificates::Table(read_certs(file)?),
            Some(CertificatesToml::Word(word)) => match word.as_str() {
                // The chain of the host's processor is put in when the VM is there.
                "none" | "host" => Certificates::None,
                "busy" => Certificates::Busy,
                "broken" => Certificates::Broken,
                _ => {
                    let known = "none, busy, broken, host, or { file = \"...\" }";
                    return Err(invalid(origin, &case.title, &format!("certificates are {known}")));
                }
            },
            None => Certificates::None,
        };
        let checked = check_case(&file, case, certificates);
        cases.push(checked.map_err(|message| invalid(origin, &case.title, &message))?);
    }
    Ok(Scenario { name: name.into(), title: file.title, mail: file.mail, cases })
}

/// A scenario out of a text. Files that it names are found from the working directory.
///
/// # Errors
///
/// Whatever is wrong with it, with `name.toml` for its origin.
pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
    parse_with(name, &format!("{name}.toml"), text, CheckedTable::read)
}

fn invalid(origin: &str, case: &str, message: &str) -> ScenarioError {
    ScenarioError::Invalid { origin: origin.into(), message: format!("case '{case}': {message}") }
}

/// A message of the TOML crate without its line breaks.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn check_case(file: &FileToml, case: &CaseToml, certificates: Certificates) -> Result<Case, String> {
    let vm = check_vm(case.vm.as_ref().unwrap_or(&file.vm))?;
    let guest = case.guest.as_ref().or(file.guest.as_ref()).ok_or("no guest is named")?;
    if !programs::exists(guest) {
        return Err(format!("no guest is named '{guest}'; there are {}", programs::names().join(", ")));
    }
    let mut dialects = all(&case.dialects, "dialect", Dialect::from_name)?;
    if dialects.is_empty() {
        dialects.push(Dialect::default());
    }
    let migration = case.migration.as_ref().map(|migration| Migration {
        source_capability: migration.source_capability,
        target_capability: migration.target_capability,
    });
    Ok(Case {
        title: case.title.clone(),
        vm,
        guest: guest.clone(),
        dialects,
        capabilities: all(
            case.capabilities.as_ref().unwrap_or(&file.capabilities),
            "capability",
            Cap::from_name,
        )?,
        certificates,
        host_certificates: matches!(&case.certificates, Some(CertificatesToml::Word(word)) if word == "host"),
        quotes: case.quotes.as_ref().map(|quotes| check_quotes(quotes, vm.vm_type)).transpose()?,
        firmware_status: case.firmware_status,
        faults: case.faults.iter().map(check_fault).collect::<Result<_, _>>()?,
        interrupts: case.interrupts.clone(),
        memory_faults: match case.memory_faults.as_deref() {
            None | Some("stop") => FaultPolicy::Stop,
            Some("convert") => FaultPolicy::Convert,
            Some(other) => return Err(format!("memory-faults is stop or convert, not '{other}'")),
        },
        reset: match case.reset.as_deref() {
            None | Some("stop") => EventPolicy::Stop,
            Some("ignore") => EventPolicy::Ignore,
            Some(other) => return Err(format!("reset is stop or ignore, not '{other}'")),
        },
        readers: case.readers,
        migration,
        expect: Expect {
            end: case.expect.end.clone(),
            end_says: case.expect.end_says.clone(),
            exits: case.expect.exits.clone(),
            saw: case.expect.saw.clone(),
            read: case.expect.read.clone(),
        },
    })
}

fn check_vm(vm: &VmToml) -> Result<VmConfig, String> {
    let vm_type = VmType::from_name(&vm.vm_type).ok_or_else(|| {
        let known: Vec<_> = VmType::ALL.iter().map(|vm_type| vm_type.name()).collect();
        format!("no VM type is named '{}'; there are {}", vm.vm_type, known.join(", "))
    })?;
    let arch = match &vm.arch {
        None => Arch::default(),
        Some(name) => {
            Arch::from_name(name).ok_or_else(|| format!("arch is x86_64, arm64 or riscv64, not '{name}'"))?
        }
    };
    if vm.memory == 0 || vm.memory % PAGE_SIZE != 0 || vm.memory > MAX_MEMORY {
        return Err(format!("memory is a multiple of 4096 bytes up to 1 TiB, not {}", vm.memory));
    }
    let vcpus = vm.vcpus.unwrap_or(1);
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(format!("vcpus is 1 to {MAX_VCPUS}, not {vcpus}"));
    }
    Ok(VmConfig { vm_type, arch, memory_bytes: vm.memory, vcpus })
}

fn check_quotes(quotes: &QuotesToml, vm_type: VmType) -> Result<QuoteConfig, String> {
    let known = QUOTE_ANSWERS.iter().find(|(name, _)| *name == quotes.answer);
    let (_, answer) = known.ok_or_else(|| {
        let names: Vec<_> = QUOTE_ANSWERS.iter().map(|(name, _)| *name).collect();
        format!("the answer of quotes is one of {}, not '{}'", names.join(", "), quotes.answer)
    })?;
    if vm_type != VmType::Tdx {
        return Err("only TDs ask for quotes".into());
    }
    let slots = quotes.slots.map_or(QuoteLimits::default().slots, usize::from);
    Ok(QuoteConfig { answer: *answer, after: quotes.after, slots, interrupt: quotes.interrupt })
}

fn check_fault(fault: &FaultToml) -> Result<EffectFault, String> {
    let kind = effect_kind(&fault.effect).ok_or_else(|| {
        let known: Vec<_> = EFFECTS.iter().map(|(name, _)| *name).collect();
        format!("no effect is named '{}'; there are {}", fault.effect, known.join(", "))
    })?;
    let errno = errno(&fault.errno).ok_or_else(|| format!("no error is named '{}'", fault.errno))?;
    if fault.nth == 0 {
        return Err("effects are counted from 1".into());
    }
    Ok(EffectFault { kind, nth: fault.nth, errno })
}

/// Looks up each name.
fn all<T>(names: &[String], what: &str, from_name: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    names.iter().map(|name| from_name(name).ok_or_else(|| format!("no {what} is named '{name}'"))).collect()
}

#[cfg(test)]
mod tests;
