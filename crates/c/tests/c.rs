//! The library as C programs have it: installed, found by pkg-config, linked both ways, and run.

use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Prints that something was not tried, as the other tests of this workspace do.
fn skip(what: &str, reason: &str) {
    eprintln!("skipped: {what}: {reason}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What a program printed, if it ended with the status.
fn output(command: &mut Command, status: i32) -> String {
    let Output { status: got, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(got.code(), Some(status), "{command:?}\n{stdout}{stderr}");
    stdout.into_owned() + &stderr
}

/// Where the libraries are installed for one test; gone with it, because they are large.
struct Stage(PathBuf);

impl Deref for Stage {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Installs the libraries that this test was built with, and says where; `None` where a tool is missing.
fn install(name: &str) -> Option<Stage> {
    for tool in ["make", "cc", "pkg-config"] {
        if !has(tool) {
            skip("C library", &format!("{tool} is not installed"));
            return None;
        }
    }
    // The libraries are where the tests are, or one up.
    let exe = std::env::current_exe().unwrap();
    let artifacts = exe.ancestors().skip(1).take(2).find(|dir| dir.join("libexeunt_c.so").exists());
    let Some(artifacts) = artifacts else {
        skip("C library", "cargo has built no shared library for this target");
        return None;
    };
    let stage = exe.with_file_name(format!("exeunt-c-{name}"));
    let _ = fs::remove_dir_all(&stage);
    let arg = |name: &str, value: &Path| format!("{name}={}", value.display());
    let mut make = Command::new("make");
    make.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(["-s", "install"]);
    output(make.arg(arg("prefix", &stage)).arg(arg("artifacts", artifacts)), 0);
    Some(Stage(stage))
}

fn pkg_config(stage: &Path, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", stage.join("lib/pkgconfig")).env_remove("PKG_CONFIG_LIBDIR");
    output(command.args(args).arg("exeunt"), 0).split_whitespace().map(str::to_owned).collect()
}

/// Compiles an example, and says where the program is.
fn compile(stage: &Path, example: &str, is_static: bool) -> PathBuf {
    let program = stage.join(format!("{example}-{}", if is_static { "static" } else { "shared" }));
    let libs = if is_static { &["--static", "--libs"][..] } else { &["--libs"] };
    // Where both are installed, the linker takes the shared one unless it is told the file.
    let libs = pkg_config(stage, libs).into_iter().map(|flag| match flag.as_str() {
        "-lexeunt" if is_static => "-l:libexeunt.a".to_owned(),
        _ => flag,
    });
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
    cc.args(pkg_config(stage, &["--cflags"])).arg(root().join("examples/c").join(format!("{example}.c")));
    output(cc.args(libs), 0);
    program
}

fn program(stage: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", stage.join("lib"));
    command
}

#[test]
fn recorded_exits_are_answered_with_either_library_and_nothing_leaks() {
    let Some(stage) = install("replay") else { return };
    let vectors = root().join("vectors/exits.jsonl");
    for is_static in [false, true] {
        let replay = compile(&stage, "replay", is_static);
        let said = output(program(&stage, &replay).arg(&vectors), 0);
        assert!(said.starts_with(concat!("libexeunt ", env!("CARGO_PKG_VERSION"), ": ")), "{said}");
        println!("{}", said.trim_end());
        if !has("valgrind") {
            skip("leaks of the C library", "valgrind is not installed");
            continue;
        }
        let mut valgrind = program(&stage, "valgrind");
        valgrind.args(["-q", "--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all"]);
        let said = output(valgrind.arg("--error-exitcode=9").arg(&replay).arg(&vectors), 0);
        assert!(!said.contains("=="), "{said}");
    }
}

#[test]
fn a_vmm_in_c_runs_its_guest_to_a_triple_fault() {
    if !Path::new("/usr/include/linux/kvm.h").exists() {
        return skip("a VMM in C", "no kernel headers are installed (linux-libc-dev)");
    }
    let Some(stage) = install("vmm") else { return };
    let source = fs::read_to_string(root().join("examples/c/vmm.c")).unwrap();
    assert!(source.lines().count() < 60);
    for is_static in [false, true] {
        let vmm = compile(&stage, "vmm", is_static);
        if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            skip("a VMM in C", &format!("/dev/kvm: {error}"));
            continue;
        }
        let said = output(&mut program(&stage, &vmm), 20);
        let end = "warning: triple_fault: the guest was shut down by a triple fault (exit status 20)\n";
        assert_eq!(said, format!("hi\n{end}"));
    }
}

#[test]
fn what_is_installed_is_versioned_and_exports_nothing_but_its_own_names() {
    let Some(stage) = install("names") else { return };
    assert_eq!(pkg_config(&stage, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    let replay = fs::read(compile(&stage, "replay", false)).unwrap();
    let soname = format!("\0libexeunt.so.{major}\0");
    assert!(replay.windows(soname.len()).any(|bytes| bytes == soname.as_bytes()), "{soname:?} is not needed");
    if !has("nm") {
        return skip("exported names", "nm is not installed");
    }
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"]).arg(stage.join("lib/libexeunt.so"));
    let said = output(&mut nm, 0);
    let names: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let header = fs::read_to_string(stage.join("include/exeunt.h")).unwrap();
    for name in &names {
        assert!(name.starts_with("exeunt_") && header.contains(&format!("{name}(")), "{name}");
    }
    assert!(names.len() > 25, "{names:?}");
    let mut make = Command::new("make");
    make.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(["-s", "uninstall"]);
    output(make.arg(format!("prefix={}", stage.display())), 0);
    assert!(!stage.join("lib/libexeunt.so").exists() && !stage.join("include/exeunt.h").exists());
}
