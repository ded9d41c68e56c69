//! `exeunt migrate`: two processes, a socket, and SIGKILL at every step of both.
//!
//! What is asked after every case: one side owns the VM, and what the guest said to the outside is 0, 1, 2 and so on, each
//! value once and in its order, and for a guest with a triple fault pending one shutdown behind them.

use crate::{Folder, exeunt, stdout};
use exeunt::migrate::{MAX_DATA_BYTES, Message, Offer, TransferId};
use exeunt::snapshot::{Limits, Snapshot};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A VM, and where it is.
struct World {
    folder: Folder,
    kernel: &'static str,
    has_triple_fault: bool,
}

/// Options of one side.
type Options<'a> = &'a [&'a str];

impl World {
    fn new(name: &str, kernel: &'static str, vm_type: &'static str, has_triple_fault: bool) -> Self {
        let world = Self { folder: Folder::new(name), kernel, has_triple_fault };
        let mut start = vec!["start", "--values", "3", "--kernel", kernel, "--type", vm_type];
        if has_triple_fault {
            start.push("--triple-fault");
        }
        let started = world.command(&start, "a", false).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        world
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.path())
    }

    fn command(&self, arguments: Options<'_>, dir: &str, has_arbiter: bool) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
        command.arg("migrate").args(arguments).arg(self.path(dir)).args(["--log", &self.path("log")]);
        if has_arbiter {
            command.args(["--arbiter", &self.path("arbiter")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn receive(&self, options: Options<'_>) -> Child {
        let mut command = self.command(&["receive", "--values", "2", "--kernel", self.kernel], "b", true);
        command.args(["--listen", &self.path("socket")]).args(options).spawn().unwrap()
    }

    /// Waits until the target listens, where the source has little patience.
    fn wait_for_target(&self) {
        while !std::path::Path::new(&self.path("socket")).exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn send(&self, options: Options<'_>) -> Child {
        // A guest that is to be shut down says nothing more.
        let values = if self.has_triple_fault { "0" } else { "2" };
        let mut command = self.command(&["send", "--values", values], "a", true);
        command.args(["--to", &self.path("socket")]).args(options).spawn().unwrap()
    }

    fn recover(&self, dir: &str) -> Output {
        self.command(&["recover", "--values", "2"], dir, true).output().unwrap()
    }

    fn record(&self, dir: &str) -> String {
        let record = std::fs::read_to_string(self.path(&format!("{dir}/record"))).unwrap_or_default();
        record.split(' ').next().unwrap_or_default().to_owned()
    }

    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Starts both sides again, in an order, and asks what has to hold.
    fn settle(&self, case: &str, order: [&str; 2]) {
        let recovered = order.map(|dir| (dir, self.recover(dir)));
        let mut here = Vec::new();
        for (dir, output) in &recovered {
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{case}: recover {dir}: {error}");
            if stdout(output).contains("\"here\":true") {
                here.push(*dir);
            }
        }
        let records = ["a", "b"].map(|dir| self.record(dir));
        assert_eq!(here.len(), 1, "{case}: {here:?} own the VM, records {records:?}");
        assert_eq!(records.iter().filter(|record| *record == "owns").count(), 1, "{case}: {records:?}");
        let mut log = self.log();
        if self.has_triple_fault {
            assert_eq!(log.pop().as_deref(), Some("shutdown"), "{case}: the triple fault is lost");
            assert_eq!(log.len(), 3, "{case}: {log:?}");
        }
        let expected: Vec<String> = (0..log.len()).map(|value| value.to_string()).collect();
        assert_eq!(log, expected, "{case}");
        assert!(log.len() >= 3, "{case}: {log:?}");
    }
}

fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(9)
}

/// The steps of a side, from the program itself.
fn steps(of: &str) -> Vec<String> {
    let text = stdout(&exeunt(&["migrate", "steps"]));
    let steps = text.lines().filter_map(|line| line.strip_prefix(of));
    steps.map(|step| step.trim().to_owned()).collect()
}

/// Calls `run` with each item, several at a time.
fn in_parallel<T: Sync>(items: &[T], run: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((index, item)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).map(|item| (index, item))
                } {
                    run(index, item);
                }
            });
        }
    });
}

/// Steps with each of their moments. A wait and a call of one instant have no middle that could be met.
fn moments(steps: &[String]) -> Vec<String> {
    let moments = ["before", "during", "after"];
    steps.iter().flat_map(|step| moments.map(|when| format!("{step}:{when}"))).collect()
}

/// What has a middle, on the way of a transfer that goes well and behind it.
const MIDDLES: [&str; 14] = [
    "saved",
    "owned",
    "released",
    "offered",
    "data-sent",
    "decided",
    "gave",
    "data",
    "held",
    "holds",
    "checkpointed",
    "recorded",
    "logged",
    "kept",
];

fn has_moment(at: &str) -> bool {
    at.strip_suffix(":during").is_none_or(|step| MIDDLES.contains(&step))
}

#[test]
fn a_vm_goes_to_another_process_and_goes_on_without_a_gap() {
    for (vm_type, has_triple_fault) in [("sw-protected", false), ("default", true)] {
        let world = World::new(&format!("migrate-{vm_type}"), "model", vm_type, has_triple_fault);
        let children = [world.receive(&[]), world.send(&[])];
        let [received, sent] = children.map(|child| child.wait_with_output().unwrap());
        assert_eq!((received.status.code(), sent.status.code()), (Some(0), Some(0)), "{received:?} {sent:?}");
        assert!(stdout(&sent).contains("\"here\":false") && stdout(&received).contains("\"here\":true"));
        assert_eq!((world.record("a").as_str(), world.record("b").as_str()), ("gave", "owns"));
        let expected = if has_triple_fault { 4 } else { 7 };
        assert_eq!(world.log().len(), expected);
        world.settle(vm_type, ["a", "b"]);
    }
}

/// Kills one side at one moment, and starts both again.
fn kill(
    case: &str,
    source: Options<'_>,
    target: Options<'_>,
    has_triple_fault: bool,
    order: [&str; 2],
) -> [Output; 2] {
    let name = format!("migrate-{}-{has_triple_fault}", case.replace([':', ' '], "-"));
    let world = World::new(&name, "model", "sw-protected", has_triple_fault);
    let receive = world.receive(&[&["--patience-ms", "5000"], target].concat());
    let send = world.send(&[&["--patience-ms", "5000"], source].concat());
    let outputs = [send, receive].map(|child| child.wait_with_output().unwrap());
    world.settle(case, order);
    outputs
}

#[test]
fn a_source_that_is_killed_at_any_step_loses_nothing_and_gives_nothing_twice() {
    let steps: Vec<_> = steps("source").into_iter().filter(|step| step != "kept").collect();
    let cases: Vec<_> = moments(&steps).into_iter().filter(|at| has_moment(at)).collect();
    assert!(cases.len() >= 25, "{cases:?}");
    in_parallel(&cases, |index, at| {
        let order = [["a", "b"], ["b", "a"]][index % 2];
        let [sent, _] = kill(&format!("source {at}"), &["--stop-at", at], &[], index % 3 == 0, order);
        assert!(was_killed(&sent), "{at} was not met: {}", String::from_utf8_lossy(&sent.stderr));
    });
}

#[test]
fn a_target_that_is_killed_at_any_step_loses_nothing_and_takes_nothing_twice() {
    let unusual = ["dropped", "dropped-sent", "refusal-sent"];
    let mut steps = steps("target");
    steps.retain(|step| !unusual.contains(&step.as_str()));
    steps.extend(self::steps("owner"));
    let cases: Vec<_> = moments(&steps).into_iter().filter(|at| has_moment(at)).collect();
    assert!(cases.len() >= 30, "{cases:?}");
    in_parallel(&cases, |index, at| {
        let order = [["a", "b"], ["b", "a"]][index % 2];
        let [_, received] = kill(&format!("target {at}"), &[], &["--stop-at", at], index % 3 == 0, order);
        // Of a release that has nothing to write, the middle is met as well.
        assert!(was_killed(&received), "{at} was not met: {}", String::from_utf8_lossy(&received.stderr));
    });
}

#[test]
fn both_killed_in_one_transfer_leave_one_owner() {
    let mut cases = Vec::new();
    for source in
        ["offered:after", "offer-sent:after", "data-sent:during", "data-sent:after", "decided:before"]
    {
        for target in
            ["data:during", "built:after", "held:during", "holds:after", "decided:after", "owned:after"]
        {
            cases.push((source, target));
        }
    }
    in_parallel(&cases, |index, (source, target)| {
        let order = [["a", "b"], ["b", "a"]][index % 2];
        let case = format!("both {source} {target}");
        let killed = kill(&case, &["--stop-at", source], &["--stop-at", target], index % 2 == 0, order);
        assert!(killed.iter().any(was_killed), "{case}");
    });
}

#[test]
fn a_source_that_takes_the_vm_back_keeps_it_and_the_target_drops_its_copy() {
    let mut cases = vec![("source", String::new())];
    for step in ["dropped", "dropped-sent"] {
        cases.extend(["before", "after"].map(|when| ("target", format!("{step}:{when}"))));
    }
    for step in ["kept", "ran", "checkpointed", "recorded", "logged"] {
        cases.extend(["before", "during", "after"].map(|when| ("source", format!("{step}:{when}"))));
    }
    cases.retain(|(_, at)| has_moment(at));
    in_parallel(&cases, |index, (side, at)| {
        let name = format!("migrate-back-{side}-{}", at.replace(':', "-"));
        let world = World::new(&name, "model", "default", index % 2 == 0);
        let go = world.path("go");
        let hold = format!("decided:before={go}");
        let stop: Vec<&str> = if at.is_empty() { Vec::new() } else { vec!["--stop-at", at] };
        let (of_source, of_target) =
            if *side == "source" { (&stop[..], &[][..]) } else { (&[][..], &stop[..]) };
        // The target has a complete copy and has not asked; the source gives up waiting, asks, and goes on.
        let receive = world.receive(&[&["--hold-at", &hold], of_target].concat());
        world.wait_for_target();
        let sent = world.send(&[&["--patience-ms", "1500"], of_source].concat()).wait_with_output().unwrap();
        std::fs::write(&go, "").unwrap();
        let received = receive.wait_with_output().unwrap();
        let killed = if *side == "source" { &sent } else { &received };
        assert_eq!(was_killed(killed), !at.is_empty(), "{at}: {}", String::from_utf8_lossy(&killed.stderr));
        // A source that was killed before it asked is the one case in which the target is first.
        if !at.starts_with("kept") {
            assert!(!was_killed(&received) && received.status.code() == Some(1) || *side == "target");
        }
        world.settle(at, [["a", "b"], ["b", "a"]][index % 2]);
        assert_eq!(world.record("a"), "owns");
        assert!(["dropped", ""].contains(&world.record("b").as_str()), "{}", world.record("b"));
    });
}

#[test]
fn a_target_that_cannot_take_the_vm_says_so_before_it_is_sent_and_nothing_changes() {
    for at in ["", "refusal-sent:before", "refusal-sent:after"] {
        let world =
            World::new(&format!("migrate-refused-{}", at.replace(':', "-")), "model", "default", true);
        let stop: &[&str] = if at.is_empty() { &[] } else { &["--stop-at", at] };
        // This kernel is older than the capability that carries a triple fault.
        let receive = world.receive(&[&["--dialect", "linux-5.17"], stop].concat());
        let sent = world.send(&[]).wait_with_output().unwrap();
        let received = receive.wait_with_output().unwrap();
        assert_eq!(sent.status.code(), Some(1), "{sent:?}");
        assert!(stdout(&sent).contains("\"here\":true,"), "{sent:?}");
        if at.is_empty() {
            assert_eq!(received.status.code(), Some(1));
            assert!(stdout(&received).contains("x86-triple-fault-event (218)"), "{}", stdout(&received));
            let error = String::from_utf8_lossy(&sent.stderr).into_owned();
            assert!(
                error.contains("the VM stays here") && error.contains("a triple fault is pending"),
                "{error}"
            );
        } else {
            assert!(was_killed(&received));
        }
        assert_eq!(world.record("b"), "");
        assert_eq!(std::fs::read_dir(world.path("b")).unwrap().count(), 1, "the lock, and nothing else");
        world.settle(at, ["a", "b"]);
    }
}

#[test]
fn a_vm_of_the_host_goes_on_exactly_where_it_was_whoever_is_killed() {
    let test = "migration on /dev/kvm";
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if let Err(reason) = exeunt_linux::probe() {
        return exeunt_linux::print_skip(test, reason);
    }
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        eprintln!("skipped: {test}: there is no /dev/kvm");
        return;
    }
    let steps = [
        ("", ""),
        ("saved:during", ""),
        ("offered:after", ""),
        ("data-sent:during", ""),
        ("taken:before", ""),
        ("decided:after", ""),
        ("", "built:after"),
        ("", "holds:after"),
        ("", "decided:after"),
        ("", "owned:after"),
        ("", "ran:after"),
        ("", "checkpointed:after"),
        ("", "logged:during"),
        ("decided:before", "holds:after"),
    ];
    for (index, (source, target)) in steps.into_iter().enumerate() {
        let case = format!("kvm {source} {target}");
        let name = format!("migrate-{}", case.replace([':', ' '], "-"));
        let world = World::new(&name, "kvm", "default", false);
        let stop = |at: &'static str| if at.is_empty() { Vec::new() } else { vec!["--stop-at", at] };
        let receive = world.receive(&[&["--patience-ms", "5000"][..], &stop(target)].concat());
        let sent = world.send(&[&["--patience-ms", "5000"][..], &stop(source)].concat());
        let outputs = [sent, receive].map(|child| child.wait_with_output().unwrap());
        assert_eq!(outputs.iter().any(was_killed), case != "kvm  ", "{case}: {outputs:?}");
        world.settle(&case, [["a", "b"], ["b", "a"]][index % 2]);
        assert!(world.log().len() >= 5, "{case}");
    }
}

#[test]
fn a_triple_fault_that_the_host_has_requested_is_delivered_once() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let test = "a triple fault across a migration on /dev/kvm";
        match exeunt_linux::probe() {
            Err(reason) => return exeunt_linux::print_skip(test, reason),
            Ok(kvm) if kvm.check_extension(exeunt_abi::kvm::caps::Cap::X86_TRIPLE_FAULT_EVENT) == 0 => {
                return exeunt_linux::print_skip(test, "this host lacks x86-triple-fault-event (218)");
            }
            Ok(_) => {}
        }
        for target in ["", "holds:after", "owned:after", "ran:after", "recorded:after"] {
            let name = format!("migrate-kvm-fault-{}", target.replace(':', "-"));
            let world = World::new(&name, "kvm", "default", true);
            let stop = if target.is_empty() { Vec::new() } else { vec!["--stop-at", target] };
            let (receive, send) = (world.receive(&stop), world.send(&[]));
            let outputs = [send, receive].map(|child| child.wait_with_output().unwrap());
            assert_eq!(outputs.iter().any(was_killed), !target.is_empty(), "{target}: {outputs:?}");
            world.settle(&format!("kvm fault {target}"), ["b", "a"]);
        }
    }
}

/// What a source of `world` would send: the offer, then the data.
fn stream(world: &World) -> Vec<u8> {
    let file = world.path("snapshot");
    assert!(exeunt(&["snapshot", "save", &file, "--values", "3"]).status.success());
    let bytes = std::fs::read(&file).unwrap();
    let (snapshot, checkpoint) = Snapshot::read(bytes.as_slice(), Limits::default()).unwrap();
    let (origin, needs) = snapshot.head();
    let offer = Offer { transfer: TransferId([9; 16]), checkpoint, bytes: bytes.len() as u64, origin, needs };
    let data = bytes.chunks(MAX_DATA_BYTES).map(|chunk| Message::Data(chunk.to_vec()));
    std::iter::once(Message::Offer(offer)).chain(data).flat_map(|message| message.to_bytes()).collect()
}

/// Sends bytes to a target, ends the sending, and waits for the target to be done.
fn send_raw(world: &World, bytes: &[u8]) -> Output {
    let receive = world.receive(&["--patience-ms", "5000"]);
    let mut socket = loop {
        match UnixStream::connect(world.path("socket")) {
            Ok(socket) => break socket,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    // A target that has refused has closed the socket.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    receive.wait_with_output().unwrap()
}

#[test]
fn a_connection_that_ends_or_lies_leaves_a_target_as_it_was() {
    let world = World::new("migrate-raw", "model", "default", false);
    let whole = stream(&world);
    let mut cases: Vec<Vec<u8>> = (0..24).map(|part| whole[..whole.len() * part / 24].to_vec()).collect();
    cases.push(whole[..whole.len() - 1].to_vec());
    // A byte of the head, of the offer's digest, of a page, and of the end.
    for at in [0, 5, 30, whole.len() / 2, whole.len() - 3] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        cases.push(flipped);
    }
    cases.push([whole.as_slice(), &Message::Data(vec![0]).to_bytes()].concat());
    cases.push(vec![0xff; 1 << 16]);
    for (index, case) in cases.iter().enumerate() {
        let output = send_raw(&world, case);
        // More data than was offered comes too late: the VM is taken before it is read.
        let expected = i32::from(index != cases.len() - 2);
        assert_eq!(output.status.code(), Some(expected), "case {index}: {output:?}");
        if expected == 1 {
            assert_eq!(world.record("b"), "", "case {index}");
            assert_eq!(std::fs::read_dir(world.path("b")).unwrap().count(), 1, "case {index}");
            continue;
        }
        assert_eq!(world.record("b"), "owns");
        std::fs::remove_dir_all(world.path("b")).unwrap();
        std::fs::remove_dir_all(world.path("arbiter")).unwrap();
        std::fs::remove_file(world.path("log")).unwrap();
    }
}

#[test]
fn what_cannot_be_done_is_one_line_and_changes_nothing() {
    let world = World::new("migrate-mistakes", "model", "default", false);
    let error = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let again = world.command(&["start"], "a", false).output().unwrap();
    assert_eq!((again.status.code(), error(&again).contains("has a record already")), (Some(2), true));
    let taken = world.command(&["receive", "--listen", &world.path("socket")], "a", true).output().unwrap();
    assert!(error(&taken).contains("owns a VM and takes no other"), "{}", error(&taken));
    let nothing = world.command(&["send", "--to", &world.path("socket")], "c", true).output().unwrap();
    assert!(error(&nothing).contains("has no VM"), "{}", error(&nothing));
    for confidential in ["sev", "sev-es", "snp", "tdx"] {
        let refused = world.command(&["start", "--type", confidential], "d", false).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        assert!(
            error(&refused).contains("its VMM can read neither memory nor registers"),
            "{}",
            error(&refused)
        );
    }
    // A record that was damaged says neither that the VM is here nor that it is not.
    let path = world.path("a/record");
    let mut record = std::fs::read(&path).unwrap();
    record[7] ^= 1;
    std::fs::write(&path, &record).unwrap();
    let damaged = world.recover("a");
    assert_eq!((damaged.status.code(), stdout(&damaged).as_str()), (Some(2), ""));
    assert!(error(&damaged).contains("not as it was written"), "{}", error(&damaged));
    record[7] ^= 1;
    std::fs::write(&path, &record).unwrap();
    world.settle("mended", ["a", "b"]);
}

#[test]
fn a_side_that_cannot_ask_the_arbiter_does_not_run_and_asks_again_later() {
    let world = World::new("migrate-undecided", "model", "default", false);
    // The arbiter's directory is a file.
    std::fs::write(world.path("arbiter"), "").unwrap();
    let (receive, send) = (world.receive(&[]), world.send(&[]));
    let outputs = [send, receive].map(|child| child.wait_with_output().unwrap());
    for output in &outputs {
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stdout(output).contains("\"here\":null"), "{output:?}");
    }
    for dir in ["a", "b"] {
        assert_eq!(world.recover(dir).status.code(), Some(3));
    }
    assert_eq!((world.record("a").as_str(), world.record("b").as_str()), ("offers", "holds"));
    std::fs::remove_file(world.path("arbiter")).unwrap();
    std::fs::create_dir(world.path("arbiter")).unwrap();
    world.settle("reachable again", ["b", "a"]);
    assert_eq!(world.record("b"), "owns", "the first to ask");
}

#[test]
fn two_processes_cannot_have_one_directory() {
    let world = World::new("migrate-lock", "model", "default", false);
    // Whoever listens has its directory.
    let mut first = world.receive(&[]);
    world.wait_for_target();
    let second = world.recover("b");
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is in use by another process"));
    // A killed process has nothing any more.
    first.kill().unwrap();
    first.wait().unwrap();
    world.settle("after", ["a", "b"]);
}
