//! Which program a command starts, and which way into it there is.

use super::error::LaunchError;
use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How calls of the VMM are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// The dynamic linker loads a library into the VMM.
    Shim,
    /// The kernel asks exeunt about each call: seccomp user notification.
    Notify,
}

impl Via {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::Notify => "notify",
        }
    }

    /// The way of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Shim, Self::Notify].into_iter().find(|via| via.name() == name)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What will be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The file, found by `PATH` where the command has no slash.
    pub path: PathBuf,
    /// The way in.
    pub via: Via,
    /// Why this way, if it was not asked for.
    pub why: Option<String>,
}

/// Finds the program of a command, looks at it and chooses the way in, if it is not given.
///
/// # Errors
///
/// There is no such program, it cannot be executed here, or the way that was asked for is closed.
pub fn look(
    name: &OsStr,
    search: Option<&OsStr>,
    via: Option<Via>,
    has_shim: bool,
) -> Result<Target, LaunchError> {
    let path = find(name, search)?;
    let linking = linking(&path)?;
    let (via, why) = match (via, linking) {
        (Some(Via::Notify), _) => (Via::Notify, None),
        (Some(Via::Shim), _) if !has_shim => return Err(LaunchError::NoShim),
        (Some(Via::Shim), Err(why)) => return Err(LaunchError::ShimImpossible { path, why }),
        (Some(Via::Shim), Ok(())) => (Via::Shim, None),
        (None, Err(why)) => (Via::Notify, Some(why)),
        (None, Ok(())) if !has_shim => (Via::Notify, Some("this build of exeunt has no shim inside".into())),
        (None, Ok(())) => (Via::Shim, Some("it is dynamically linked".into())),
    };
    Ok(Target { path, via, why })
}

/// What `execvp` searches when there is no `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

fn find(name: &OsStr, search: Option<&OsStr>) -> Result<PathBuf, LaunchError> {
    if name.is_empty() {
        return Err(LaunchError::Empty);
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path);
    }
    let mut refused = None;
    for directory in std::env::split_paths(search.unwrap_or_else(|| OsStr::new(DEFAULT_PATH))) {
        let path =
            if directory.as_os_str().is_empty() { Path::new(".").join(name) } else { directory.join(name) };
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(LaunchError::NotFound { .. } | LaunchError::NotFile { .. }) => {}
            Err(other) => refused = refused.or(Some(other)),
        }
    }
    Err(refused.unwrap_or_else(|| LaunchError::NotInPath { name: name.to_string_lossy().into_owned() }))
}

fn executable(path: &Path) -> Result<(), LaunchError> {
    let Ok(metadata) = path.metadata() else {
        return Err(LaunchError::NotFound { path: path.into() });
    };
    if !metadata.is_file() {
        return Err(LaunchError::NotFile { path: path.into() });
    }
    // For root, access(2) wants one bit of the three, as execve(2) does.
    access(path, Access::EXEC_OK).map_err(|_| LaunchError::NotExecutable { path: path.into() })
}

/// Whether the dynamic linker would load the shim, and if not, why not.
type Linking = Result<(), String>;

/// As many scripts in a row as Linux follows: v6.12 `fs/exec.c`, `exec_binprm`.
const MAX_SCRIPTS: usize = 5;

fn linking(path: &Path) -> Result<Linking, LaunchError> {
    let mut program = path.to_path_buf();
    for _ in 0..=MAX_SCRIPTS {
        executable(&program)?;
        if let Some(why) = raised(&program) {
            // Whatever the file is: the dynamic linker ignores LD_PRELOAD there.
            return elf(&program).map(|_| Err(why));
        }
        let Some(interpreter) = interpreter(&program) else { return elf(&program) };
        program = interpreter;
    }
    Err(LaunchError::ScriptLoop { path: path.into() })
}

/// The program behind `#!`.
fn interpreter(path: &Path) -> Option<PathBuf> {
    // Linux reads this much: `BINPRM_BUF_SIZE`.
    let mut head = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

fn elf(path: &Path) -> Result<Linking, LaunchError> {
    // A program may be executable and not readable; then nothing is known, and the way that needs nothing is taken.
    let Ok(file) = File::open(path) else { return Ok(Err("it cannot be read".into())) };
    let cache = ReadCache::new(file);
    let head = object::ReadRef::read_bytes_at(&cache, 0, 20).unwrap_or_default();
    if !head.starts_with(b"\x7fELF") {
        return Err(LaunchError::NotElf { path: path.into() });
    }
    if let Some(machine) = other_machine(head) {
        return Err(LaunchError::WrongMachine { path: path.into(), machine });
    }
    let bad = |why: String| LaunchError::BadElf { path: path.into(), why };
    let header =
        FileHeader64::<object::LittleEndian>::parse(&cache).map_err(|error| bad(error.to_string()))?;
    let endian = header.endian().map_err(|error| bad(error.to_string()))?;
    if !matches!(header.e_type(endian), ET_EXEC | ET_DYN) {
        return Err(bad("it is an object file, a core or the like".into()));
    }
    let segments = header.program_headers(endian, &cache).map_err(|error| bad(error.to_string()))?;
    for segment in segments {
        let loader = segment.interpreter(endian, &cache).map_err(|error| bad(error.to_string()))?;
        if let Some(loader) = loader {
            return dynamic(path, Path::new(OsStr::from_bytes(loader)));
        }
    }
    Ok(Err("it is statically linked".into()))
}

fn dynamic(path: &Path, loader: &Path) -> Result<Linking, LaunchError> {
    let name = loader.display().to_string();
    if !loader.is_file() {
        return Err(LaunchError::NoLoader { path: path.into(), loader: name });
    }
    // The shim is linked against the C library that this crate was built for.
    let musl = name.contains("musl");
    if musl == cfg!(target_env = "musl") {
        Ok(Ok(()))
    } else {
        Ok(Err(format!("its C library is another, {name}")))
    }
}

/// The name of the processor, if it is not x86-64.
fn other_machine(head: &[u8]) -> Option<String> {
    const CLASS_64: u8 = 2;
    const BIG_ENDIAN: u8 = 2;
    let byte = |at: usize| head.get(at).copied().unwrap_or_default();
    let number = match byte(5) {
        BIG_ENDIAN => u16::from_be_bytes([byte(18), byte(19)]),
        _ => u16::from_le_bytes([byte(18), byte(19)]),
    };
    let name = match number {
        EM_X86_64 if byte(4) == CLASS_64 => return None,
        EM_X86_64 => "x32".into(),
        object::elf::EM_386 => "32-bit x86".into(),
        object::elf::EM_AARCH64 => "aarch64".into(),
        object::elf::EM_ARM => "32-bit ARM".into(),
        object::elf::EM_RISCV => "RISC-V".into(),
        object::elf::EM_PPC64 => "ppc64".into(),
        object::elf::EM_S390 => "s390x".into(),
        other => format!("machine {other} of the ELF numbers"),
    };
    Some(name)
}

/// Why the kernel says `AT_SECURE` when this file is executed, which makes the dynamic linker ignore `LD_PRELOAD`.
///
/// Source: Linux v6.12 `security/commoncap.c`, `cap_bprm_creds_from_file`.
fn raised(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    if changes_identity(&metadata) {
        return Some("it runs as another user or group than its caller (setuid or setgid)".into());
    }
    let is_root = rustix::process::geteuid().is_root() && rustix::process::getuid().is_root();
    let mut value = [0_u8; 64];
    let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut value[..]).is_ok();
    (has_capabilities && !is_root).then(|| "it has file capabilities".into())
}

fn changes_identity(metadata: &Metadata) -> bool {
    let mode = metadata.mode();
    let user = mode & libc::S_ISUID != 0 && metadata.uid() != rustix::process::getuid().as_raw();
    // Without the right of the group to execute, the bit means mandatory locking.
    let group_bits = libc::S_ISGID | libc::S_IXGRP;
    let group = mode & group_bits == group_bits && metadata.gid() != rustix::process::getgid().as_raw();
    user || group
}

/// `LD_PRELOAD` with the shim first, so that libraries that the user loads come after it.
pub(super) fn preload(shim: &str, users: Option<&OsStr>) -> OsString {
    let mut value = OsString::from(shim);
    if let Some(users) = users.filter(|users| !users.is_empty()) {
        value.push(":");
        value.push(users);
    }
    value
}

#[cfg(test)]
#[path = "tests/binary.rs"]
mod tests;
