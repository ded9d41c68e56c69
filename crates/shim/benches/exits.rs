//! Question: what does each way in add to one `KVM_RUN`, and how many exits a second does the model bring in a VMM's own
//! process? Compare with `strace -f -e trace=ioctl`.
//! Unit: ns per port-I/O exit as the VMM sees it, and of processor time in its own process, which a busy machine changes
//! less; how many times bare each is; best of 7 runs, each way in turn. Command: `cargo bench -p exeunt-shim --bench exits`. It needs a C compiler, and `/dev/kvm` for all but the last line.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../tests/shim/program.rs"]
mod program;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    exits::main();
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod exits {
    use super::program::Program;
    use exeunt_interpose::launch::{Launch, Via};
    use exeunt_interpose::plan::{Plan, Stage};
    use std::process::Command;
    use std::sync::atomic::AtomicBool;

    const RUNS: usize = 7;

    /// One way to run the program.
    struct Way<'a> {
        name: &'static str,
        run: Box<dyn Fn() -> Option<[f64; 2]> + 'a>,
        best: [Option<f64>; 2],
    }

    pub(super) fn main() {
        let Some(program) = Program::compile("rate") else { return };
        let shim: &'static [u8] = Vec::leak(std::fs::read(super::program::library()).unwrap());
        let plain = |before: &'static [&'static str]| {
            let words: Vec<&str> = [before, &[program.path(), "20000"]].concat();
            move || {
                let output = Command::new(words[0]).args(&words[1..]).output().ok()?;
                nanoseconds(&String::from_utf8_lossy(&output.stdout))
            }
        };
        let launched = |via, plan: Plan, exits: &'static str| {
            let command = vec![program.path().into(), exits.into()];
            let mut launch = Launch::new(command, plan, shim);
            launch.via = Some(via);
            move || {
                let ran = launch.run(&AtomicBool::new(false), &mut |_| {}).ok()?;
                [ran.startup, ran.output, ran.last_words].iter().find_map(|text| nanoseconds(&text.text))
            }
        };
        let observe = || Plan::new(Stage::Observe);
        let scripted = || Plan::new(Stage::Scripted).with_scene("endless-port-io");
        let way = |name, run| Way { name, run, best: [None; 2] };
        let mut ways = [
            way("bare", Box::new(plain(&[]))),
            way("shim-observe", Box::new(launched(Via::Shim, observe(), "20000"))),
            way("notify-observe", Box::new(launched(Via::Notify, observe(), "20000"))),
            way("strace", Box::new(plain(&["strace", "-f", "-e", "trace=ioctl", "-o", "/dev/null"]))),
            way("shim-scripted", Box::new(launched(Via::Shim, scripted(), "3000000"))),
        ] as [Way<'_>; 5];
        for _ in 0..RUNS {
            for way in &mut ways {
                let Some(each) = (way.run)() else { continue };
                for (best, each) in way.best.iter_mut().zip(each) {
                    *best = Some(best.map_or(each, |best| best.min(each)));
                }
            }
        }
        let bare = ways[0].best;
        for Way { name, best, .. } in &ways {
            let figures: Vec<String> = best
                .iter()
                .zip(&bare)
                .zip(["ns/exit", "ns of the process's own"])
                .map(|((best, bare), unit)| match (best, bare) {
                    (Some(best), Some(bare)) => format!("{best:.0} {unit} ({:.2} times bare)", best / bare),
                    (Some(best), None) => format!("{best:.0} {unit}"),
                    (None, _) => format!("- {unit}"),
                })
                .collect();
            println!("exits/{name} {}", figures.join(", "));
        }
    }

    /// What the program says of itself: `... a second, 290.6 ns each, 280.1 ns of the processor's`.
    fn nanoseconds(text: &str) -> Option<[f64; 2]> {
        let (_, rest) = text.split_once("a second, ")?;
        let (seen, rest) = rest.split_once(" ns each, ")?;
        let (own, _) = rest.split_once(" ns of")?;
        Some([seen.parse().ok()?, own.parse().ok()?])
    }
}
