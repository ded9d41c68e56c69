//! Question: what does it cost an unmodified VMM that somebody looks at each of its exits?
//!
//! The C VMM of `crates/subject/c` runs a guest of a few instructions on the real `/dev/kvm`: bare, with the shim, with the
//! supervisor, and under `strace -f -e trace=ioctl`, in turns. Each time is that of a long run less that of a short one,
//! so that the start is not in it. Then the same VMM plays a scene of the model. Aims: the shim under 1.05 times bare, what
//! the supervisor adds under a third of what strace adds, over 3 million scripted exits a second.
//!
//! Unit: us per `KVM_RUN` that brings port I/O, best of 5 runs; million exits a second. Trust the ratios.
//! Command: `cargo bench -p exeunt-check --bench interposed`.

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    on_linux::main();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    println!("skipped: exeunt runs /dev/kvm on x86-64 Linux only");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod on_linux {
    use exeunt_interpose::launch::{Ended, Launch, Via};
    use exeunt_interpose::plan::{Plan, Stage};
    use exeunt_scenes::situations::PORT_EXITS;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    const ROUNDS: usize = 5;
    const LONG: u32 = 100_000;
    const SHORT: u32 = 1_000;

    /// How the VMM is run.
    #[derive(Clone, Copy)]
    enum Way {
        Bare,
        Shim,
        Supervisor,
        Strace,
    }

    const WAYS: [(&str, Way); 4] = [
        ("bare", Way::Bare),
        ("shim", Way::Shim),
        ("supervisor", Way::Supervisor),
        ("strace -f -e trace=ioctl", Way::Strace),
    ];

    pub(super) fn main() {
        let vmm = match compile() {
            Ok(vmm) => vmm,
            Err(reason) => return println!("skipped: {reason}"),
        };
        match exeunt_linux::probe() {
            Ok(_) => observe(&vmm),
            Err(reason) => println!("skipped: observe: {reason}"),
        }
        scripted(&vmm);
    }

    /// What each way costs, beside each other.
    fn observe(vmm: &Path) {
        let mut best: [Result<f64, String>; 4] = std::array::from_fn(|_| Ok(f64::INFINITY));
        for _ in 0..ROUNDS {
            for ((_, way), best) in WAYS.iter().zip(&mut best) {
                let Ok(before) = best else { continue };
                *best = us_per_exit(*way, vmm).map(|us| us.min(*before));
            }
        }
        let bare = best[0].clone().unwrap_or(f64::NAN);
        for ((name, _), us) in WAYS.iter().zip(&best) {
            match us {
                Ok(us) => println!("observe/{name:<26} {us:7.2} us/exit  {:5.2} of bare", us / bare),
                Err(reason) => println!("skipped: observe/{name}: {reason}"),
            }
        }
        if let [Ok(bare), _, Ok(supervisor), Ok(strace)] = best {
            let part = (supervisor - bare) / (strace - bare);
            println!("observe/what the supervisor adds is {part:.2} of what strace adds");
        }
    }

    fn us_per_exit(way: Way, vmm: &Path) -> Result<f64, String> {
        let (short, long) = (time(way, vmm, SHORT)?, time(way, vmm, LONG)?);
        Ok(long.saturating_sub(short).as_secs_f64() * 1e6 / f64::from(LONG - SHORT))
    }

    fn time(way: Way, vmm: &Path, exits: u32) -> Result<Duration, String> {
        let exits = exits.to_string();
        let via = match way {
            Way::Bare => return run(Command::new(vmm).args(["--exits", &exits])),
            Way::Strace => {
                let mut strace = Command::new("strace");
                strace
                    .args(["-f", "-e", "trace=ioctl", "-o", "/dev/null"])
                    .arg(vmm)
                    .args(["--exits", &exits]);
                return run(&mut strace);
            }
            Way::Shim => Via::Shim,
            Way::Supervisor => Via::Notify,
        };
        launch(Plan::new(Stage::Observe), via, vmm, &exits)
    }

    fn run(command: &mut Command) -> Result<Duration, String> {
        let start = Instant::now();
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let took = start.elapsed();
        match status {
            Ok(status) if status.success() => Ok(took),
            Ok(status) => Err(format!("{command:?} ended with {status}")),
            Err(error) => Err(format!("{}: {error}", command.get_program().to_string_lossy())),
        }
    }

    fn launch(plan: Plan, via: Via, vmm: &Path, exits: &str) -> Result<Duration, String> {
        let command: Vec<OsString> = vec![vmm.into(), "--exits".into(), exits.into()];
        let mut launch = Launch::new(command, plan, exeunt_check::shim::bytes());
        launch.via = Some(via);
        launch.timeout = Duration::from_secs(60);
        let ran = launch.run(&AtomicBool::new(false), &mut |_| {}).map_err(|error| error.to_string())?;
        match ran.end {
            Ended::Exited(0) => Ok(ran.took),
            end => Err(format!("{end:?}: {} {}", ran.output.text, ran.trouble.join("; "))),
        }
    }

    /// Exits of the model, in the VMM's own process and by way of the supervisor.
    fn scripted(vmm: &Path) {
        for (name, via, rounds) in [("shim", Via::Shim, ROUNDS), ("supervisor", Via::Notify, 1)] {
            let best = (0..rounds).try_fold(f64::INFINITY, |best, _| {
                let took = launch(Plan::new(Stage::Scripted).with_scene("ports"), via, vmm, "1")?;
                Ok::<_, String>(best.min(took.as_secs_f64()))
            });
            match best {
                Ok(best) => {
                    println!(
                        "scripted/{name:<25} {:7.2} million exits/s",
                        f64::from(PORT_EXITS) / best / 1e6
                    );
                }
                Err(reason) => println!("skipped: scripted/{name}: {reason}"),
            }
        }
    }

    /// The VMM, with the compiler's usual care.
    fn compile() -> Result<PathBuf, String> {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interposed-vmm");
        let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../subject/c"));
        let files = std::fs::read_dir(sources).map_err(|error| format!("{}: {error}", sources.display()))?;
        let files = files.filter_map(|entry| Some(entry.ok()?.path()));
        let mut cc = Command::new("cc");
        cc.args(["-std=c99", "-D_GNU_SOURCE", "-O2", "-pthread", "-o"]).arg(&program);
        cc.args(files.filter(|path| path.extension().is_some_and(|it| it == "c")));
        run(&mut cc)?;
        Ok(program)
    }
}
