//! What `strace` wrote down.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The start of the path that marks a scene.
pub(crate) const MARK: &str = "/exeunt/scene/";

/// One system call as far as a filter can see it: its name, and the number that says what it does, where there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    name: String,
    number: Option<u64>,
}

/// All calls in order, with the marks between them.
pub(crate) struct Trace {
    lines: Vec<String>,
}

impl Call {
    pub(crate) fn new(name: &str, number: Option<u64>) -> Self {
        Self { name: name.into(), number }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn has_number(&self) -> bool {
        self.number.is_some()
    }

    /// Which argument is the number.
    pub(crate) fn index_of_number(name: &str) -> Option<usize> {
        match name {
            "ioctl" | "fallocate" | "fcntl" => Some(1),
            "madvise" => Some(2),
            _ => None,
        }
    }

    /// Reads `PID name(argument, argument...`. What is no call is left out.
    fn read(line: &str) -> Option<Self> {
        let (_, call) = line.split_once(' ')?;
        let (name, arguments) = call.trim_start().split_once('(')?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let number = Self::index_of_number(name)
            .and_then(|index| parse(arguments.split([',', ')']).nth(index)?.split_whitespace().next()?));
        Some(Self { name: name.into(), number })
    }
}

/// A number in decimal or hex.
pub(crate) fn parse(number: &str) -> Option<u64> {
    match number.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    }
}

impl Trace {
    /// The calls of one scene, of all threads: what is between its mark and the next.
    pub(crate) fn of_scene(&self, scene: &str) -> Vec<Call> {
        let mark = format!("\"{MARK}{scene}\"");
        let after = self.lines.iter().skip_while(|line| !line.contains(&mark)).skip(1);
        let calls: Vec<_> = after.clone().take_while(|line| !line.contains(MARK)).collect();
        assert!(after.count() > calls.len(), "the scene {scene} does not end");
        // A call that another thread interrupts is on two lines, and the second has no name.
        calls.into_iter().filter_map(|line| Call::read(line)).collect()
    }
}

/// Plays one ignored test of this program under `strace`.
///
/// # Errors
///
/// Why there is no trace.
pub(crate) fn of_child(test: &str) -> Result<Trace, String> {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    match probe {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("strace may not trace here: {status}")),
        Err(error) => return Err(format!("strace: {error}")),
    }
    let name = format!("{}.{}.strace", test.replace("::", "-"), std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("strace")
        .args(["-f", "-X", "raw", "-s", "200", "-o"])
        .arg(&file)
        .arg(program)
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .output()
        .map_err(|error| error.to_string())?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let written = fs::read_to_string(&file).map_err(|error| error.to_string())?;
    fs::remove_file(&file).map_err(|error| error.to_string())?;
    Ok(Trace { lines: written.lines().map(str::to_owned).collect() })
}

#[test]
fn a_trace_is_read_as_it_is_written() {
    let text = "\
        7 statx(-100, \"/exeunt/scene/a\", , 0, 0x7ffc) = -1 ENOENT (No such file or directory)\n\
        7 ioctl(3, 0x4020aed2, 0x7ffc5cfc9540) = -1 EINVAL (Invalid argument)\n\
        7 fallocate(4, 0x3, 0, 4096)        = 0\n\
        8 futex(0x7f, 0x80, 2, NULL <unfinished ...>\n\
        7 madvise(0x7ff7836d4000, 4096, 0x17 <unfinished ...>\n\
        8 <... futex resumed>) = 0\n\
        7 getpid() = 7\n\
        7 --- SIGSEGV {si_signo=SIGSEGV} ---\n\
        7 statx(-100, \"/exeunt/scene/b\", , 0, 0x7ffc) = -1 ENOENT (No such file or directory)\n\
        7 +++ exited with 0 +++";
    let trace = Trace { lines: text.lines().map(str::to_owned).collect() };
    let expected = [
        Call::new("ioctl", Some(0x4020_aed2)),
        Call::new("fallocate", Some(3)),
        Call::new("futex", None),
        Call::new("madvise", Some(0x17)),
        Call::new("getpid", None),
    ];
    assert_eq!(trace.of_scene("a"), expected);
}
