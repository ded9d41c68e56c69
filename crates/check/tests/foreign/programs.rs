//! The VMMs of `crates/subject`, in both languages and linked both ways.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// For a child that has no right to build: the paths of all, in their order.
pub(crate) const GIVEN: &str = "EXEUNT_TEST_PROGRAMS";

static BUILT: [OnceLock<Result<PathBuf, String>>; 4] = [const { OnceLock::new() }; 4];

/// A VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    RustDynamic,
    RustStatic,
    CDynamic,
    CStatic,
}

impl Program {
    pub(crate) const ALL: [Self; 4] = [Self::RustDynamic, Self::RustStatic, Self::CDynamic, Self::CStatic];

    /// Where it is, built once.
    ///
    /// # Errors
    ///
    /// There is no compiler for it.
    pub(crate) fn path(self) -> Result<PathBuf, String> {
        if let Some(built) = std::env::var_os(GIVEN) {
            return std::env::split_paths(&built).nth(self as usize).ok_or_else(|| "it was not built".into());
        }
        let build = || match self {
            Self::RustDynamic => rust(false),
            Self::RustStatic => rust(true),
            Self::CDynamic => c("vmm-dynamic", &[]),
            Self::CStatic => c("vmm-static", &["-static"]),
        };
        BUILT[self as usize].get_or_init(build).clone()
    }
}

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn c(name: &str, extra: &[&str]) -> Result<PathBuf, String> {
    let program = scratch().join(name);
    let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../subject/c")).unwrap();
    let sources = sources.map(|entry| entry.unwrap().path());
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-D_GNU_SOURCE", "-O1", "-pthread"]).args(extra);
    cc.args(sources.filter(|path| path.extension().is_some_and(|it| it == "c")));
    ran(cc.arg("-o").arg(&program))?;
    Ok(program)
}

/// Cargo builds what this test does not depend on: a VMM is a program, and is not looked into.
fn rust(is_static: bool) -> Result<PathBuf, String> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target_dir = scratch().join("subject");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--package", "exeunt-subject", "--target", TARGET]);
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
    let (flags, dir) = if is_static { ("+crt-static", "static") } else { ("-crt-static", "dynamic") };
    let target_dir = target_dir.join(dir);
    cargo.arg("--target-dir").arg(&target_dir).env("RUSTFLAGS", format!("-C target-feature={flags}"));
    ran(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("debug/exeunt-subject"))
}

fn ran(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
