//! Layouts by compiler: real headers, compiled for each target, and read back from the debug information.
//!
//! The headers are those of an installed tree: `linux/kvm.h` in the folder, `asm/kvm.h` in it or in the folder of the
//! architecture beside it, as Debian has it. Nothing else of the machine's headers is used, so that a cross compiler
//! needs no C library.

mod compiler;
mod constants;
mod process;
mod scratch;

pub use compiler::{Compiler, find};

use crate::dwarf::{self, DwarfError};
use crate::target::Target;
use crate::tree::{Absent, Image, Scope, Tree};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How long one run of a compiler may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Why headers could not be read.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The folder does not exist or is no folder.
    #[error("cannot read the headers in {}: {source}", dir.display())]
    Unreadable {
        /// As given.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is no tree of installed headers: it has no linux/kvm.h", dir.display())]
    NotHeaders {
        /// As given.
        dir: PathBuf,
    },
    /// No target could be looked at.
    #[error("{} cannot be compiled for any target: {}", dir.display(), reasons(absent))]
    NoTarget {
        /// As given.
        dir: PathBuf,
        /// Why, for each target.
        absent: Vec<Absent>,
    },
    /// The compiler refused the headers.
    #[error("{} does not compile for {target} with {compiler}: {line}", dir.display())]
    Refused {
        /// As given.
        dir: PathBuf,
        /// For which target.
        target: Target,
        /// The command.
        compiler: String,
        /// Its first error, with file and line.
        line: String,
    },
    /// The compiler did not come back.
    #[error("{compiler} was stopped after {} s", TIME_LIMIT.as_secs())]
    TimedOut {
        /// The command.
        compiler: String,
    },
    /// The compiler could not be started, or its files not written or read.
    #[error("cannot run {compiler}: {source}")]
    Io {
        /// The command.
        compiler: String,
        /// Why.
        source: io::Error,
    },
    /// What the compiler wrote is not understood.
    #[error("the output of {compiler} for {target} cannot be read: {source}")]
    Output {
        /// The command.
        compiler: String,
        /// For which target.
        target: Target,
        /// Why.
        source: DwarfError,
    },
}

fn reasons(absent: &[Absent]) -> String {
    let reasons: Vec<_> = absent.iter().map(|absent| format!("{}: {}", absent.arch, absent.reason)).collect();
    reasons.join("; ")
}

/// What the generated file includes. Headers that a tree does not have, or not for this architecture, are left out.
const INCLUDES: &str = "\
#include <linux/kvm.h>
#if __has_include(<linux/version.h>)
#include <linux/version.h>
#endif
#if __has_include(<linux/errno.h>) && __has_include(<asm/errno.h>)
#include <linux/errno.h>
#endif
#if __has_include(<linux/kvm_para.h>) && __has_include(<asm/kvm_para.h>)
#include <linux/kvm_para.h>
#endif
#if __has_include(<linux/psp-sev.h>)
#include <linux/psp-sev.h>
#endif
#if __has_include(<linux/sev-guest.h>)
#include <linux/sev-guest.h>
#endif
";

/// Reads the headers in a folder for each of `targets` that a compiler is found for and that the tree is made for.
///
/// # Errors
///
/// When the folder holds no headers, when no target at all can be looked at, and when a compiler refuses the headers.
pub fn read(dir: &Path, targets: &[Target]) -> Result<Tree, CompileError> {
    std::fs::read_dir(dir).map_err(|source| CompileError::Unreadable { dir: dir.into(), source })?;
    if !dir.join("linux/kvm.h").is_file() {
        return Err(CompileError::NotHeaders { dir: dir.into() });
    }
    // The compiler runs in a folder of its own.
    let absolute =
        std::path::absolute(dir).map_err(|source| CompileError::Unreadable { dir: dir.into(), source })?;
    let mut images = BTreeMap::new();
    let mut absent = Vec::new();
    for target in targets.iter().copied() {
        let mut missing = |reason: String| absent.push(Absent { arch: target, reason });
        let Some(includes) = includes(&absolute, target) else {
            missing("no asm/kvm.h for it in these headers".into());
            continue;
        };
        let compiler = match find(target) {
            Ok(compiler) => compiler,
            Err(tried) => {
                missing(tried);
                continue;
            }
        };
        let run = Run { dir, target, compiler: &compiler, includes };
        match run.image()? {
            Some(image) => {
                images.insert(target, image);
            }
            None => missing("the asm/kvm.h of these headers is another architecture's".into()),
        }
    }
    if images.is_empty() {
        return Err(CompileError::NoTarget { dir: dir.into(), absent });
    }
    Ok(Tree { name: dir.display().to_string(), images, absent, scope: Scope::Everything })
}

/// The folders to search for headers, if the tree has an `asm` that may be this target's.
fn includes(dir: &Path, target: Target) -> Option<Vec<PathBuf>> {
    let triplets: &[&str] = match target {
        Target::X86_64 => &["x86_64-linux-gnu"],
        // The `asm` of x86 is one for its three ABIs.
        Target::I386 => &["i386-linux-gnu", "x86_64-linux-gnu"],
        Target::X32 => &["x86_64-linux-gnux32", "x86_64-linux-gnu"],
        Target::Aarch64 => &["aarch64-linux-gnu"],
        Target::Arm => &["arm-linux-gnueabihf", "arm-linux-gnueabi"],
        Target::Riscv64 => &["riscv64-linux-gnu"],
    };
    let beside = triplets.iter().map(|triplet| dir.join(triplet)).find(|own| own.join("asm/kvm.h").is_file());
    match beside {
        Some(own) => Some(vec![own, dir.to_path_buf()]),
        None if dir.join("asm/kvm.h").is_file() => Some(vec![dir.to_path_buf()]),
        None => None,
    }
}

/// The include guard of the target's own `asm/kvm.h`.
const fn guard(target: Target) -> &'static str {
    match target {
        Target::X86_64 | Target::I386 | Target::X32 => "_ASM_X86_KVM_H",
        Target::Aarch64 | Target::Arm => "__ARM_KVM_H__",
        Target::Riscv64 => "__LINUX_KVM_RISCV_H",
    }
}

/// The headers of one folder with the compiler of one target.
struct Run<'r> {
    dir: &'r Path,
    target: Target,
    compiler: &'r Compiler,
    includes: Vec<PathBuf>,
}

impl Run<'_> {
    /// What the target sees, or `None` if `asm` is another architecture's.
    fn image(&self) -> Result<Option<Image>, CompileError> {
        let macros = constants::macros(self, INCLUDES)?;
        // 32-bit ARM had a header of its own under the guard of arm64, up to Linux 5.6.
        let is_arm64 = macros.contains_key("KVM_REG_ARM64_SVE");
        if !macros.contains_key(guard(self.target)) || (self.target == Target::Arm && is_arm64) {
            return Ok(None);
        }
        let object = self.compile(INCLUDES, &["-g", "-fno-eliminate-unused-debug-types"], "-c")?;
        let object = object.map_err(|errors| self.refused(&errors))?;
        let mut found = dwarf::read(&object).map_err(|source| self.output(source))?;
        let values = constants::evaluate(self, INCLUDES, &macros)?;
        found.constants.extend(values.values);
        let wanted = |name: &String| constants::is_of_interest(name);
        let constants = found.constants.into_iter().filter(|(name, _)| wanted(name)).collect();
        Ok(Some(Image { layouts: found.layouts, constants, not_constant: values.not_constant }))
    }

    /// Compiles a text. The inner result is what the compiler wrote: its output, or its complaints.
    fn compile(
        &self,
        text: &str,
        options: &[&str],
        mode: &str,
    ) -> Result<Result<Vec<u8>, String>, CompileError> {
        let mut arguments: Vec<OsString> = [mode, "-w", "-nostdinc"].map(Into::into).to_vec();
        for folder in &self.includes {
            arguments.push("-I".into());
            arguments.push(folder.into());
        }
        arguments.extend(options.iter().map(Into::into));
        self.compiler.compile(text, &arguments)
    }

    fn refused(&self, errors: &str) -> CompileError {
        let is_error = |line: &&str| line.contains(" error: ");
        let first = errors.lines().find(is_error).or_else(|| errors.lines().next());
        CompileError::Refused {
            dir: self.dir.into(),
            target: self.target,
            compiler: self.compiler.to_string(),
            line: first.unwrap_or("without a word").to_string(),
        }
    }

    fn output(&self, source: DwarfError) -> CompileError {
        CompileError::Output { compiler: self.compiler.to_string(), target: self.target, source }
    }
}
