//! Programs that stand in for VMMs, and the look at what they leave behind.

use super::super::{Launch, Ran};
use crate::plan::{Plan, Stage};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

/// A directory of a test, in which its programs run, and which they carry in their environment.
pub(super) struct Scratch(PathBuf);

/// Where the processes of a test can be told from others.
const VARIABLE: &str = "EXEUNT_LAUNCH_TEST";

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exeunt-launch-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("cwd")).unwrap();
        Self(path)
    }

    pub(super) fn launch(&self, command: Vec<OsString>) -> Launch {
        let mut launch = Launch::new(command, Plan::new(Stage::Observe), b"");
        launch.env.push((VARIABLE.into(), self.0.clone().into()));
        launch.directory = Some(self.0.join("cwd"));
        launch.ring_bytes = 1 << 20;
        launch
    }

    pub(super) fn launch_sh(&self, script: &str) -> Launch {
        self.launch(["/bin/sh", "-c", script].map(OsString::from).into())
    }

    /// Some process of the test is left.
    pub(super) fn has_processes(&self) -> bool {
        let mark = format!("{VARIABLE}={}", self.0.display());
        let mut processes = fs::read_dir("/proc").unwrap().flatten();
        processes.any(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
    }

    /// Neither a process nor a file of the test is left.
    pub(super) fn assert_clean(&self) {
        assert!(!self.has_processes(), "a process is left of {}", self.0.display());
        let left: Vec<_> =
            fs::read_dir(self.0.join("cwd")).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(scratch: &Scratch, mut launch: Launch, change: impl FnOnce(&mut Launch)) -> Ran {
    change(&mut launch);
    let before = own_children();
    let ran = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    scratch.assert_clean();
    let left: Vec<i32> = own_children().into_iter().filter(|pid| !before.contains(pid)).collect();
    // Tests beside this one have children of their own, but none of them stays a zombie.
    let zombies: Vec<&i32> = left.iter().filter(|pid| is_zombie(**pid)).collect();
    assert!(zombies.is_empty(), "{zombies:?}");
    ran
}

pub(super) fn run_sh(scratch: &Scratch, script: &str, change: impl FnOnce(&mut Launch)) -> Ran {
    run(scratch, scratch.launch_sh(script), change)
}

/// Runs a program in C with this body of `main`, if there is a compiler.
pub(super) fn run_c(name: &str, body: &str, change: impl FnOnce(&mut Launch)) -> Option<Ran> {
    let mut ran = None;
    with_c(name, body, |scratch, program| {
        ran = Some(run(scratch, scratch.launch(vec![program.into()]), change));
    });
    ran
}

/// A library that does nothing, in the place of the shim, if there is a compiler.
pub(super) fn empty_shim() -> Option<&'static [u8]> {
    let scratch = Scratch::new("shim");
    let library = scratch.0.join("shim.so");
    let arguments = ["-shared", "-fPIC", "-x", "c", "/dev/null", "-o"];
    let built = Command::new("cc").args(arguments).arg(&library).stdin(Stdio::null()).status().ok()?;
    assert!(built.success());
    Some(fs::read(library).unwrap().leak())
}

/// Compiles a program, gives it to the test, and looks whether something is left.
pub(super) fn with_c(name: &str, body: &str, test: impl FnOnce(&Scratch, &Path)) {
    const HEAD: &str = "
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        #include <sys/prctl.h>
        #include <sys/resource.h>
        #include <sys/ioctl.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <linux/filter.h>
        #include <linux/kvm.h>
        #include <linux/seccomp.h>
    ";
    let scratch = Scratch::new(name);
    let (source, program) = (scratch.0.join("vmm.c"), scratch.0.join("vmm"));
    fs::write(&source, format!("{HEAD}\nint main(void) {{ {body}\n return 0; }}\n")).unwrap();
    let built = Command::new("cc").args(["-w", "-o"]).args([&program, &source]).stdin(Stdio::null()).status();
    match built {
        Ok(status) => assert!(status.success(), "{name} does not compile"),
        Err(error) => {
            println!("skipped, no C compiler: {error}");
            return;
        }
    }
    test(&scratch, &program);
    scratch.assert_clean();
}

/// Runs one test of this program in a second process, with orders in its environment.
pub(super) fn this_test_again(test: &str, program: &Path, scratch: &Scratch) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(PROGRAM, program).env(DIRECTORY, &scratch.0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// The same, where the end of a child is ignored from the beginning. It succeeds if the test does. `None` where `env`
/// cannot do that.
pub(super) fn this_test_with_children_ignored(test: &str, program: &Path, scratch: &Scratch) -> Option<bool> {
    let ignoring = || {
        let mut command = Command::new("env");
        command.arg("--ignore-signal=CHLD").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    if !ignoring().arg("true").status().is_ok_and(|status| status.success()) {
        println!("skipped, `env` does not know --ignore-signal");
        return None;
    }
    let mut command = ignoring();
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test]);
    Some(command.env(PROGRAM, program).env(DIRECTORY, &scratch.0).status().unwrap().success())
}

const PROGRAM: &str = "EXEUNT_LAUNCH_TEST_PROGRAM";
const DIRECTORY: &str = "EXEUNT_LAUNCH_TEST_DIRECTORY";

/// The orders that this process was given, if it is a second one.
pub(super) fn orders() -> Option<(Scratch, OsString)> {
    let (program, directory) = (std::env::var_os(PROGRAM)?, std::env::var_os(DIRECTORY)?);
    Some((Scratch(directory.into()), program))
}

fn stat_fields(pid: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(String::from).collect())
}

fn own_children() -> Vec<i32> {
    let own = std::process::id().to_string();
    let names =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let ours = numbers.filter(|pid| stat_fields(pid).is_some_and(|fields| fields.get(1) == Some(&own)));
    ours.filter_map(|pid| pid.parse().ok()).collect()
}

fn is_zombie(pid: i32) -> bool {
    let state = || stat_fields(&pid.to_string()).and_then(|fields| fields.first().cloned());
    // A run of another test may be between the end of its keeper and the moment when it takes the status.
    (0..50).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        state().as_deref() == Some("Z")
    })
}
