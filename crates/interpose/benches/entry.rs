//! Question: what does the supervisor add to one `KVM_RUN`? Compare with `strace -f -e trace=ioctl`, which stops each
//! call twice.
//! Unit: ns per exit as the VMM sees them, and added to bare, best of 15 runs. Command: `cargo bench -p exeunt-interpose
//! --bench entry`. It needs a C compiler, and `/dev/kvm` for all but the last line.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    entry::main();
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod entry {
    use exeunt_interpose::dispatch::Sink;
    use exeunt_interpose::notify::{Filter, Supervisor, install_in_child};
    use exeunt_interpose::plan::{Plan, Stage};
    use exeunt_interpose::record::Record;
    use std::io::Read;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    const EXITS: &str = "10000";
    const RUNS: usize = 15;

    /// One way to run the client, and the best of its runs so far.
    struct Way<'a> {
        name: &'static str,
        run: Box<dyn Fn() -> Option<f64> + 'a>,
        best: Option<f64>,
    }

    pub(super) fn main() {
        let Some(client) = client() else { return };
        let under = |name, plan: Plan| {
            let client = client.clone();
            Way { name, run: Box::new(move || supervised(&client, &plan)), best: None }
        };
        // The model's guest halts at once, again and again.
        let model = Plan { max_exits: u32::MAX, ..Plan::new(Stage::Scripted) };
        let traced = || {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-e", "trace=ioctl", "-o", "/dev/null"]).arg(&client);
            plain(strace)
        };
        let mut ways = [
            Way { name: "bare", run: Box::new(|| plain(Command::new(&client))), best: None },
            under("notify-observe", Plan::new(Stage::Observe)),
            under("notify-overlay", Plan::new(Stage::Overlay)),
            Way { name: "strace", run: Box::new(traced), best: None },
            under("notify-scripted", model),
        ];
        // Each way once, and again, so that what else the machine does is shared out.
        for _ in 0..RUNS {
            for way in &mut ways {
                let each = (way.run)();
                way.best = [way.best, each].into_iter().flatten().min_by(f64::total_cmp);
            }
        }
        let bare = ways.first().and_then(|way| way.best);
        for Way { name, best, .. } in &ways {
            match (best, bare) {
                (Some(each), Some(bare)) if *name != "bare" && *name != "notify-scripted" => {
                    println!(
                        "enter/{name} {each:.0} ns/exit, {:.0} added, {:.2} times",
                        each - bare,
                        each / bare
                    );
                }
                (Some(each), _) => println!("enter/{name} {each:.0} ns/exit"),
                (None, _) => println!("enter/{name} skipped: it did not run"),
            }
        }
    }

    fn client() -> Option<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notify/client.c");
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("notify-client");
        let cc = Command::new("cc").args(["-O1", "-static", "-pthread", "-o"]).args([&to, &source]).status();
        if cc.is_ok_and(|status| status.success()) {
            return Some(to);
        }
        println!("skipped: cc cannot build the client");
        None
    }

    /// The client's own words: "10000 exits, 7250 ns each".
    fn ns(output: &str) -> Option<f64> {
        output.split_once(", ")?.1.split(' ').next()?.parse().ok()
    }

    fn plain(mut command: Command) -> Option<f64> {
        let output = command.args(["measure", EXITS]).output().ok()?;
        ns(&String::from_utf8_lossy(&output.stdout))
    }

    #[derive(Debug)]
    struct Nowhere;

    impl Sink for Nowhere {
        fn put(&self, _record: Record) {}
    }

    fn supervised(client: &Path, plan: &Plan) -> Option<f64> {
        let mut command = Command::new(client);
        command.args(["measure", EXITS]).stdout(Stdio::piped());
        let handover = install_in_child(&mut command, &Filter::for_stage(plan.stage)).ok()?;
        let mut child = command.spawn().ok()?;
        let listener = handover.listener().ok()?;
        let mut supervisor = Supervisor::new(listener, plan, Arc::new(Nowhere), None).ok()?;
        supervisor.run(&AtomicBool::new(false)).ok()?;
        let mut output = String::new();
        child.stdout.take()?.read_to_string(&mut output).ok()?;
        child.wait().ok()?;
        ns(&output)
    }
}
