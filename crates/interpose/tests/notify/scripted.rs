//! The model in the place of the kernel.

use crate::client::{End, Run, client, run, scene};
use exeunt_interpose::notify::Ended;
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::What;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

#[test]
fn both_devices_are_there_by_every_call_and_path_whatever_the_host_has() {
    let Some(ran) = run("paths", &Plan::new(Stage::Scripted)) else { return };
    let expected = "\
        /dev/kvm: access 0 faccessat 0 stat 0 mode 20666 rdev ae8 statx 0 mode 20666 rdev a:e8\n\
        /dev/no-such-device: access -2 faccessat -2 stat -2 statx -2\n\
        versions 12 12 12\n\
        close on exec 1 0 1\n";
    assert!(ran.output.starts_with(expected), "{}", ran.output);
    // What the model does not answer, the kernel does.
    let rest = ran.output.trim_start_matches(expected);
    assert!(rest.contains("bad address -14\nother file -25\nno file -9\n"), "{rest}");
    assert_eq!((ran.status.code(), ran.ended), (Some(0), Ended::Over));
}

#[test]
fn a_guest_converts_pages_and_the_run_ends_with_its_processes() {
    let Some(ran) = run("one", &scene("conversion-there-and-back")) else { return };
    assert_eq!(ran.output, "vcpu 0: 4 exits, 3 conversions, end: exit 5\n");
    let runs = ran.runs();
    assert_eq!(runs, [(3, Ok(())), (3, Ok(())), (3, Ok(())), (5, Ok(()))]);
    assert!(ran.records.iter().any(|record| record.what == What::SceneOver));
    assert_eq!((ran.status.code(), ran.ended), (Some(0), Ended::Over));
}

#[test]
fn two_vcpus_run_on_two_threads() {
    for _ in 0..10 {
        let Some(ran) = run("two", &scene("conversions-that-overlap")) else { return };
        let expected =
            "vcpu 0: 7 exits, 6 conversions, end: exit 5\nvcpu 1: 7 exits, 6 conversions, end: exit 5\n";
        assert_eq!(ran.output, expected);
    }
}

#[test]
fn a_number_counts_only_while_its_file_is_behind_it() {
    let Some(ran) = run("numbers", &scene("conversion-there-and-back")) else { return };
    assert_eq!(ran.output, "through a copy: 0 exit 3\nclosed: -9\nreused: -25\n");
}

#[test]
fn a_vmm_cannot_take_the_pages_of_a_vcpu_from_under_its_supervisor() {
    let Some(ran) = run("shortened", &scene("conversion-there-and-back")) else { return };
    assert_eq!(ran.output, "lengths: -1 -1\nvcpu 0: 4 exits, 3 conversions, end: exit 5\n");
    assert_eq!((ran.status.code(), ran.ended), (Some(0), Ended::Over));
}

#[test]
fn a_child_cannot_use_its_parents_vm_and_can_make_its_own() {
    let Some(ran) = run("forks", &scene("conversion-there-and-back")) else { return };
    let expected = "\
        child: system 12 vm -5 vcpu -5\n\
        vcpu 0: 4 exits, 3 conversions, end: exit 5\n\
        vcpu 0: 4 exits, 3 conversions, end: exit 5\n";
    assert_eq!(ran.output, expected);
    let mut pids: Vec<u32> = ran.records.iter().map(|record| record.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2);
}

#[test]
fn a_vmm_may_have_a_filter_of_its_own_that_kills() {
    let Some(ran) = run("filtered", &scene("conversion-there-and-back")) else { return };
    assert_eq!(ran.output, "vcpu 0: 4 exits, 3 conversions, end: exit 5\n");
    let Some(ran) = run("filtered-kill", &scene("conversion-there-and-back")) else { return };
    assert_eq!((ran.status.signal(), ran.ended), (Some(libc::SIGSYS), Ended::Over));
}

/// Runs a test of this program as an ordinary user, where this is the superuser. The supervisor has the same rights as its
/// client then. `false`: it is an ordinary user already.
fn as_ordinary_user(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let Some(client) = client() else { return true };
    let own = std::env::current_exe().unwrap();
    let scratch = std::env::temp_dir().join(format!("exeunt-notify-{}-{test}", std::process::id()));
    std::fs::create_dir(&scratch).unwrap();
    let [program, copy] = ["test", "client"].map(|name| scratch.join(name));
    std::fs::copy(own, &program).unwrap();
    std::fs::copy(client, &copy).unwrap();
    for path in [&scratch, &program, &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", &format!("scripted::{test}")])
        .env("EXEUNT_TEST_CLIENT", &copy)
        .current_dir("/")
        .output();
    std::fs::remove_dir_all(&scratch).unwrap();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
        Err(error) => println!("skipped: setpriv does not run: {error}"),
    }
    true
}

#[test]
fn an_ordinary_user_needs_nothing() {
    if !as_ordinary_user("an_ordinary_user_needs_nothing") {
        a_guest_converts_pages_and_the_run_ends_with_its_processes();
    }
}

#[test]
fn a_process_that_cannot_be_looked_into_is_named_once() {
    // Nothing is closed to the superuser.
    if as_ordinary_user("a_process_that_cannot_be_looked_into_is_named_once") {
        return;
    }
    let Some(ran) = run("closed", &Plan::new(Stage::Scripted)) else { return };
    let [record] = ran.records.as_slice() else { panic!("{:?}", ran.records) };
    assert!(matches!(&record.what, What::Trouble { why } if why.contains("forbids")), "{record:?}");
}

#[test]
fn a_vmm_that_dies_or_does_nothing_ends_the_supervisor() {
    let plan = scene("conversion-there-and-back");
    let Some(ran) = run("nothing", &plan) else { return };
    assert_eq!((ran.status.code(), ran.ended, ran.records.len()), (Some(0), Ended::Over, 0));
    let Some(mut run) = Run::new("one", &plan) else { return };
    run.command.env_clear();
    assert_eq!(run.run().ended, Ended::Over);
}

#[test]
fn a_vmm_that_is_killed_in_kvm_run_ends_the_supervisor() {
    let plan = scene("conversion-there-and-back");
    let Some(run) = Run::new("sleeps", &plan) else { return };
    let ran = Run { end: End::Killed(Duration::from_millis(50)), ..run }.run();
    assert_eq!((ran.output.as_str(), ran.status.signal()), ("sleeps\n", Some(libc::SIGKILL)));
    assert_eq!(ran.ended, Ended::Over);
}

#[test]
fn a_supervisor_stops_when_it_is_told_to_and_no_call_hangs() {
    let plan = scene("conversion-there-and-back");
    let Some(run) = Run::new("sleeps", &plan) else { return };
    let ran = Run { end: End::Stopped(Duration::from_millis(50)), ..run }.run();
    // `ENOSYS` is what the kernel says when nobody listens any more.
    assert_eq!(ran.output, "sleeps\nvcpu 1: 0 exits, 0 conversions, end: Function not implemented, exit 0\n");
    assert_eq!((ran.status.code(), ran.ended), (Some(0), Ended::Stopped));
}
