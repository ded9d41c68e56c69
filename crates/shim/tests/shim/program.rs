//! Compiles the programs, and runs them with the library.

#![allow(dead_code, reason = "the tests and the benchmark each need a part of it")]

use exeunt_interpose::plan::{PLAN_VARIABLE, Plan, RING_VARIABLE};
use exeunt_interpose::record::{Record, What};
use exeunt_interpose::ring::Reader;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio, id};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A program, which is removed when this is dropped.
pub(crate) struct Program {
    path: PathBuf,
}

/// What became of a program.
pub(crate) struct Ran {
    pub(crate) output: String,
    pub(crate) errors: String,
    pub(crate) records: Vec<What>,
    /// How many processes made calls.
    pub(crate) processes: usize,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Program {
    /// `None` where there is no C compiler, or one without KVM's header.
    pub(crate) fn compile(name: &str) -> Option<Self> {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/programs").join(format!("{name}.c"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("exeunt-shim-{}-{number}-{name}", id()));
        let compiled = Command::new("cc")
            .args(["-O1", "-D_FORTIFY_SOURCE=2", "-pthread", "-o"])
            .args([&path, &source])
            .output();
        match compiled {
            Ok(output) if output.status.success() => Some(Self { path }),
            Ok(output) => {
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(errors.contains("linux/kvm.h"), "{errors}");
                eprintln!("skipped: there are no kernel headers");
                None
            }
            Err(error) => {
                eprintln!("skipped: there is no C compiler: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    pub(crate) fn run(&self, plan: &Plan) -> Ran {
        Self::run_command(Command::new(&self.path), plan)
    }

    /// `None` where nobody may become another user.
    pub(crate) fn run_as_nobody(&self, plan: &Plan) -> Option<Ran> {
        let able = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "true"]).status();
        if !able.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this process cannot become another user");
            return None;
        }
        let copy = std::env::temp_dir().join(format!("exeunt-shim-{}-library.so", id()));
        fs::copy(library(), &copy).unwrap();
        let ring = std::env::temp_dir().join(format!("exeunt-shim-{}-ring", id()));
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups"]).arg(&self.path);
        let ran = Self::run_with(command, plan, &copy);
        let _ = (fs::remove_file(copy), fs::remove_file(ring));
        Some(ran)
    }

    pub(crate) fn run_without_plan(&self) -> Ran {
        let output = Command::new(&self.path).env("LD_PRELOAD", library()).output().unwrap();
        Ran::of(&output, vec![])
    }

    fn run_command(command: Command, plan: &Plan) -> Ran {
        Self::run_with(command, plan, &library())
    }

    fn run_with(mut command: Command, plan: &Plan, library: &Path) -> Ran {
        let mut reader = Reader::new(64 << 20).unwrap();
        // Another user cannot look into this process, and gets the descriptor itself.
        let inherited = rustix::io::fcntl_dupfd_cloexec(reader.file(), 700).unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let ring = format!("/proc/self/fd/{}", inherited.as_raw_fd());
        let output = command
            .env("LD_PRELOAD", library)
            .env(PLAN_VARIABLE, plan.to_string())
            .env(RING_VARIABLE, ring)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        drop(inherited);
        let records: Vec<Record> = std::iter::from_fn(|| reader.next_left()).collect();
        assert!(!reader.is_full() && !reader.is_torn());
        Ran::of(&output, records)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Ran {
    fn of(output: &Output, records: Vec<Record>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (written, mut errors) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            errors.push_str(&output.status.to_string());
        }
        let processes = records.iter().map(|record| record.pid).collect::<BTreeSet<u32>>().len();
        let records = records.into_iter().map(|record| record.what).collect();
        Self { output: written, errors, records, processes }
    }
}

/// The library. Cargo builds one for no test of its own package, so it is asked to.
pub(crate) fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "-q",
            "--locked",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the library does not build");
        profile.join("libexeunt_shim.so")
    });
    built.clone()
}
