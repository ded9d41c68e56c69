//! Builds the client and runs it under a supervisor.

use exeunt_interpose::notify::{Ended, Filter, Supervisor, install_in_child};
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::{Record, What};
use exeunt_interpose::ring::{Reader, Writer};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The client, linked statically; `None` without a C compiler or a static C library, which is said.
pub(crate) fn client() -> Option<&'static Path> {
    static CLIENT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        // The test program run again by somebody who may not write where it was built.
        if let Some(built) = std::env::var_os("EXEUNT_TEST_CLIENT") {
            return Some(built.into());
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify/client.c");
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("notify-client");
        let fresh = to.with_extension(std::process::id().to_string());
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o"])
            .args([&fresh, &source])
            .output();
        match built {
            // Another run of these tests may be using the one before.
            Ok(output) if output.status.success() => std::fs::rename(fresh, &to).is_ok().then_some(to),
            Ok(output) => {
                println!("skipped: cc cannot build the client: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: there is no C compiler: {error}");
                None
            }
        }
    };
    CLIENT.get_or_init(build).as_deref()
}

/// What a run brought.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) output: String,
    pub(crate) status: ExitStatus,
    pub(crate) records: Vec<Record>,
    pub(crate) ended: Ended,
}

impl Ran {
    /// Exits that somebody may judge, by reason and result.
    pub(crate) fn runs(&self) -> Vec<(u32, Result<(), i32>)> {
        let runs = self.records.iter().filter_map(|record| match &record.what {
            What::Run(run) => Some((run.after.exit_reason, run.result.map_err(|errno| errno.0))),
            _ => None,
        });
        runs.collect()
    }
}

/// A run that does not end by itself is a bug.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Run<'a> {
    pub(crate) command: Command,
    pub(crate) plan: &'a Plan,
    pub(crate) filter: Filter,
    /// What is done to a client that does not end by itself.
    pub(crate) end: End,
}

/// What ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    ByItself,
    /// The client is killed after this time.
    Killed(Duration),
    /// The supervisor is stopped after this time, and goes.
    Stopped(Duration),
}

impl<'a> Run<'a> {
    /// The client in one of its modes. `None` if it cannot be built.
    pub(crate) fn new(mode: &str, plan: &'a Plan) -> Option<Self> {
        let mut command = Command::new(client()?);
        command.arg(mode);
        Some(Self { command, plan, filter: Filter::for_stage(plan.stage), end: End::ByItself })
    }

    pub(crate) fn run(self) -> Ran {
        let Self { mut command, plan, filter, end } = self;
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).stdin(Stdio::null()).process_group(0);
        let handover = install_in_child(&mut command, &filter).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut reader = Reader::new(16 << 20).unwrap();
        let sink = Arc::new(Writer::of(reader.file()).unwrap());
        let listener = handover.listener().unwrap();
        let mut supervisor = Supervisor::new(listener, plan, sink, None).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let answering = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || supervisor.run(&stop).unwrap())
        };
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            let elapsed = started.elapsed();
            match end {
                End::Killed(after) if elapsed > after => child.kill().unwrap(),
                End::Stopped(after) if elapsed > after => stop.store(true, Ordering::Relaxed),
                _ if elapsed > DEADLINE => {
                    stop.store(true, Ordering::Relaxed);
                    child.kill().unwrap();
                }
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut output = String::new();
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        let ended = answering.join().unwrap();
        assert!(started.elapsed() < DEADLINE, "the client did not end: {output}");
        let mut records = Vec::new();
        while let Some(record) = reader.next_left() {
            records.push(record);
        }
        Ran { output, status, records, ended }
    }
}

/// The model with a scene.
pub(crate) fn scene(name: &str) -> Plan {
    Plan::new(Stage::Scripted).with_scene(name)
}

/// Runs the client under a plan. `None` if it cannot be built.
pub(crate) fn run(mode: &str, plan: &Plan) -> Option<Ran> {
    Run::new(mode, plan).map(Run::run)
}
