//! The course of one run.

use super::family::{Family, Start, system};
use super::output::Speech;
use super::supervision::Supervision;
use super::watch::{Sample, Watch};
use super::{Ended, Launch, LaunchError, Progress, Ran, Target, Via, binary, threads};
use crate::notify::Filter;
use crate::plan::{PLAN_VARIABLE, RING_VARIABLE};
use crate::record::{Record, What};
use crate::ring::Reader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PRELOAD: &str = "LD_PRELOAD";

impl Launch {
    /// Starts the VMM, waits until the run is over, ends what is left of it, and says what was seen.
    ///
    /// `cancel` ends the run when it becomes true. `progress` is called now and then.
    ///
    /// # Errors
    ///
    /// The VMM could not be started. Nothing is left of the attempt.
    pub fn run(&self, cancel: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Result<Ran, LaunchError> {
        let name = self.command.first().ok_or(LaunchError::Empty)?;
        let search = self.variable("PATH");
        let target = binary::look(name, search.as_deref(), self.via, !self.shim.is_empty())?;
        let mut run = Run::start(self, &target)?;
        let end = run.watch(self, cancel, progress);
        Ok(run.finish(self, target, end))
    }

    /// A variable as the VMM gets it, but for ours.
    fn variable(&self, name: &str) -> Option<OsString> {
        let given = self.env.iter().rev().find(|(other, _)| other == name);
        given.map(|(_, value)| value.clone()).or_else(|| std::env::var_os(name))
    }

    fn environment(&self, ring: &str, shim: Option<&str>) -> Vec<(OsString, OsString)> {
        let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        all.extend(self.env.iter().cloned());
        all.insert(PLAN_VARIABLE.into(), self.plan.to_string().into());
        all.insert(RING_VARIABLE.into(), ring.into());
        if let Some(shim) = shim {
            let users = all.get(&OsString::from(PRELOAD)).cloned();
            all.insert(PRELOAD.into(), binary::preload(shim, users.as_deref()));
        }
        all.into_iter().collect()
    }
}

/// A run under way.
struct Run {
    start: Instant,
    family: Family,
    reader: Reader,
    records: Vec<Record>,
    output: OwnedFd,
    output_open: bool,
    speech: Speech,
    watch: Watch,
    trouble: Vec<String>,
    /// Who answers the VMM's calls, if they come to us.
    supervision: Option<Supervision>,
    /// The memory that the dynamic linker loads the shim from, which helpers that are executed later need, too.
    _shim: Option<OwnedFd>,
}

/// How often the log is looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// How much of what is said after the end is kept.
const LAST_WORDS_BYTES: usize = 4096;
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(50);

impl Run {
    fn start(launch: &Launch, target: &Target) -> Result<Self, LaunchError> {
        let reader = Reader::new(launch.ring_bytes).map_err(|error| {
            let source = std::io::Error::from_raw_os_error(error.0);
            LaunchError::System { what: "memfd_create", source }
        })?;
        let ring = path_of(&reader.file());
        let shim = (target.via == Via::Shim).then(|| load(launch.shim)).transpose()?;
        let shim_path = shim.as_ref().map(path_of);
        let (output, of_vmm) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| system("pipe", error))?;
        rustix::io::ioctl_fionbio(&output, true).map_err(|error| system("ioctl", error))?;
        let filter = (target.via == Via::Notify).then(|| Filter::for_stage(launch.plan.stage));
        let start = Instant::now();
        let (family, listener) = Family::start(&Start {
            path: &target.path,
            command: &launch.command,
            env: &launch.environment(&ring, shim_path.as_deref()),
            directory: launch.directory.as_deref(),
            output: of_vmm.as_fd(),
            filter: filter.as_ref(),
            mark: &format!("{RING_VARIABLE}={ring}"),
        })?;
        let supervision = listener.map(|listener| Supervision::start(listener, &launch.plan, &reader));
        Ok(Self {
            start,
            family,
            reader,
            records: Vec::new(),
            output,
            output_open: true,
            speech: Speech::new(launch.output_bytes),
            watch: Watch::new(start, launch.timeout, launch.settle),
            trouble: Vec::new(),
            supervision: supervision.transpose()?,
            _shim: shim,
        })
    }

    fn watch(&mut self, launch: &Launch, cancel: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Ended {
        let mut told = self.start;
        loop {
            self.wait();
            self.family.listen();
            self.take_records();
            self.take_output();
            let now = Instant::now();
            if now.saturating_duration_since(told) >= PROGRESS {
                told = now;
                progress(self.progress(now));
            }
            if let Some(ended) = self.decide(now) {
                progress(self.progress(now));
                return ended;
            }
            if cancel.load(Ordering::Relaxed) {
                return Ended::Cancelled;
            }
            // A VMM that does not die of the first signal has had its time.
            if now.saturating_duration_since(self.start) > launch.timeout.saturating_mul(2) {
                return Ended::TimedOut;
            }
        }
    }

    fn progress(&self, now: Instant) -> Progress {
        let elapsed = now.saturating_duration_since(self.start);
        Progress { records: self.records.len(), exits: self.watch.exits(), elapsed }
    }

    fn decide(&mut self, now: Instant) -> Option<Ended> {
        let vmm = self.watch.vmm();
        let sample = Sample {
            now,
            entries: self.reader.entries(),
            hung: self.reader.is_hung(),
            first: self.family.first_status(),
            vmm: vmm.and_then(|pid| self.family.status_of(pid)),
            gone: self.family.is_gone(),
        };
        self.watch.decide(sample, || vmm.is_some_and(threads::is_inside))
    }

    /// Waits for output, for the end of a process, or for the next look at the log.
    fn wait(&self) {
        let socket = self.family.socket();
        let mut waits = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&self.output, PollFlags::IN)];
        let count = if self.output_open { 2 } else { 1 };
        let (waits, _) = waits.split_at_mut(count);
        let _ = poll(waits, Some(&TICK));
    }

    fn take_records(&mut self) {
        let now = Instant::now();
        while let Some(record) = self.reader.next_record() {
            if enters(&record.what) {
                self.speech.enters();
            }
            self.watch.see(&record, now);
            self.records.push(record);
        }
    }

    /// Takes what is there, and not more than a flood brings between two looks at the log.
    fn take_output(&mut self) {
        self.speech.look();
        let mut bytes = [0_u8; 16384];
        for _ in 0..64 {
            match rustix::io::read(&self.output, &mut bytes) {
                Ok(0) => self.output_open = false,
                Ok(count) => {
                    self.speech.take(bytes.get(..count).unwrap_or_default());
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(_) => {}
            }
            return;
        }
    }

    fn finish(mut self, launch: &Launch, target: Target, end: Ended) -> Ran {
        let took = self.start.elapsed();
        let by_itself = matches!(end, Ended::Exited(_) | Ended::Killed(_) | Ended::Lost);
        if by_itself && !self.family.is_gone() {
            self.trouble.push("the VMM ended and left processes behind, which were ended".into());
        }
        if self.family.lost_its_keeper() {
            self.trouble.push("the process that watches over the VMM was killed during the run".into());
        }
        self.take_output();
        // What the VMM says when it is told to end is no sign of anything.
        let last_words = Speech::new(launch.output_bytes.min(LAST_WORDS_BYTES));
        let (startup, mut output) = std::mem::replace(&mut self.speech, last_words).finish();
        // What the VMM does when it is told to end belongs to nobody, so the supervisor stops before, and tells of the
        // last exits, which it knows only now.
        let mut supervised = self.supervision.take();
        if let (Some(supervision), false) = (&mut supervised, by_itself) {
            self.trouble.extend(supervision.stop());
            self.take_records();
        }
        let grace = if end == Ended::Lost { Duration::ZERO } else { launch.grace };
        if !self.family.end(grace) {
            self.trouble.push("a process of the VMM cannot be killed: it waits in the kernel".into());
        }
        if let (Some(supervision), true) = (&mut supervised, by_itself) {
            self.trouble.extend(supervision.stop());
        }
        self.take_output();
        if by_itself {
            while let Some(record) = self.reader.next_left() {
                self.records.push(record);
            }
        }
        if self.reader.is_full() {
            self.trouble
                .push("more crossed the boundary than there was room for: records are missing".into());
        }
        if self.reader.is_torn() {
            self.trouble
                .push("the log of records was damaged: the VMM died while it wrote, or wrote to it".into());
        }
        let is_complete = !self.reader.is_full() && !self.reader.is_torn();
        let (_, last_words) = self.speech.finish();
        if by_itself {
            output.join(&last_words);
        }
        self.trouble.extend(hints(end, target.via, &self.records, &output.text));
        Ran {
            records: self.records,
            is_complete,
            end,
            startup,
            output,
            last_words,
            via: target.via,
            why: target.why,
            trouble: self.trouble,
            took,
        }
    }
}

/// A vCPU was entered.
const fn enters(what: &What) -> bool {
    matches!(what, What::Run(_) | What::Inside { .. } | What::PlainRuns { .. })
}

/// What the end of a run says about the way in, with what to do next.
fn hints(end: Ended, via: Via, records: &[Record], output: &str) -> Vec<String> {
    let mut hints = Vec::new();
    for record in records {
        if let What::Trouble { why } = &record.what {
            hints.push(why.clone());
        }
    }
    let opened = records.iter().any(|record| matches!(record.what, What::Opened { .. }));
    let hint = match (end, via) {
        (Ended::Killed(libc::SIGSYS), Via::Shim) => {
            "a seccomp filter of the VMM's own killed it (SIGSYS), perhaps for a call of the shim: try `--via notify`"
        }
        (Ended::Killed(libc::SIGSYS), Via::Notify) => {
            "a seccomp filter of the VMM's own killed it (SIGSYS) for a call of its own: no supervisor can undo that, \
             start the VMM without its filter"
        }
        _ if opened => return hints,
        // These are the words of the GNU C library's dynamic linker.
        (_, Via::Shim) if output.contains("cannot be preloaded") => {
            "the dynamic linker did not load the shim, its message is in the output: try `--via notify`"
        }
        (_, Via::Shim) => {
            "the VMM did not open /dev/kvm through its C library: if it makes system calls directly or starts a \
             static program, try `--via notify`"
        }
        (_, Via::Notify) => "the VMM did not open /dev/kvm: check its command and its output",
    };
    hints.push(hint.into());
    hints
}

/// A path to a descriptor of ours that other processes of this user can open.
fn path_of(file: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Puts the shim into memory that has a path and that nobody can change.
fn load(shim: &[u8]) -> Result<OwnedFd, LaunchError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("exeunt-shim", flags).map_err(|error| system("memfd_create", error))?;
    let mut file = std::fs::File::from(file);
    file.write_all(shim).map_err(|source| LaunchError::System { what: "write", source })?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(|error| system("fcntl", error))?;
    Ok(file.into())
}
