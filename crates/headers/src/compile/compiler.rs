//! Finding a compiler for a target, and running it.

use super::scratch::Scratch;
use super::{CompileError, TIME_LIMIT, process};
use crate::dwarf;
use crate::target::Target;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

/// A command that compiles C for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    program: &'static str,
    option: Option<&'static str>,
}

/// The commands that may compile for a target, best first.
fn candidates(target: Target) -> Vec<Compiler> {
    let clang = |option| Compiler { program: "clang", option: Some(option) };
    let gcc = |program| Compiler { program, option: None };
    let multilib = |option| Compiler { program: "gcc", option: Some(option) };
    match target {
        Target::X86_64 => {
            vec![multilib("-m64"), gcc("x86_64-linux-gnu-gcc"), clang("--target=x86_64-linux-gnu")]
        }
        // No library is linked, so GCC needs no multilib package for its other two ABIs.
        Target::I386 => vec![multilib("-m32"), gcc("i686-linux-gnu-gcc"), clang("--target=i386-linux-gnu")],
        Target::X32 => {
            vec![multilib("-mx32"), gcc("x86_64-linux-gnux32-gcc"), clang("--target=x86_64-linux-gnux32")]
        }
        Target::Aarch64 => {
            vec![gcc("aarch64-linux-gnu-gcc"), gcc("gcc"), clang("--target=aarch64-linux-gnu")]
        }
        Target::Arm => vec![
            gcc("arm-linux-gnueabihf-gcc"),
            gcc("arm-linux-gnueabi-gcc"),
            clang("--target=arm-linux-gnueabihf"),
        ],
        Target::Riscv64 => {
            vec![gcc("riscv64-linux-gnu-gcc"), gcc("gcc"), clang("--target=riscv64-linux-gnu")]
        }
    }
}

/// The first command that compiles for the target, or a sentence with all that were tried.
///
/// # Errors
///
/// When none does.
pub fn find(target: Target) -> Result<Compiler, String> {
    let candidates = candidates(target);
    let tried: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    let works = |compiler: &&Compiler| {
        // What a compiler says about its target proves less than an object file.
        let object = compiler.compile("char probe;\n", &["-c".into(), "-nostdinc".into()]);
        object.is_ok_and(|object| object.is_ok_and(|object| dwarf::is_for(&object, target)))
    };
    let found = candidates.iter().find(works).cloned();
    found.ok_or_else(|| format!("no compiler ({})", tried.join(", ")))
}

impl Compiler {
    /// True if errors can be asked to point into the generated file rather than into a macro.
    pub(super) fn is_gcc(&self) -> bool {
        self.program.ends_with("gcc")
    }

    /// Compiles a text. The inner result is what the compiler wrote: its output, or its complaints.
    pub(crate) fn compile(
        &self,
        text: &str,
        arguments: &[OsString],
    ) -> Result<Result<Vec<u8>, String>, CompileError> {
        let failed = |source| CompileError::Io { compiler: self.to_string(), source };
        let ran = self.run(text, arguments).map_err(failed)?;
        ran.ok_or_else(|| CompileError::TimedOut { compiler: self.to_string() })
    }

    fn run(&self, text: &str, arguments: &[OsString]) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let scratch = Scratch::new()?;
        std::fs::write(scratch.path().join("exeunt.c"), text)?;
        let mut command = Command::new(self.program);
        command.args(self.option).args(arguments).args(["-o", "out", "exeunt.c"]);
        // Complaints are read by this program, and headers of this machine must not slip in.
        command.env("LC_ALL", "C").env("TMPDIR", scratch.path());
        for variable in ["CPATH", "C_INCLUDE_PATH", "GCC_COLORS"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(scratch.path().join("errors"))?);
        command.current_dir(scratch.path());
        let Some(status) = process::run(&mut command, TIME_LIMIT)? else { return Ok(None) };
        if status.success() {
            return Ok(Some(Ok(std::fs::read(scratch.path().join("out"))?)));
        }
        let errors = std::fs::read(scratch.path().join("errors"))?;
        Ok(Some(Err(String::from_utf8_lossy(&errors).into_owned())))
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        self.option.map_or(Ok(()), |option| write!(f, " {option}"))
    }
}
