//! Whatever a VMM does, the run ends, says how, and leaves nothing behind.

mod machine;
mod vmms;

use super::*;
use machine::{Scratch, run_c, run_sh, with_c};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

#[test]
fn the_status_and_the_output_come_back() {
    let scratch = Scratch::new("status");
    let ran = run_sh(&scratch, "echo out; echo err >&2; exit 3", |_| {});
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Exited(3), "out\nerr\n"));
    assert!(ran.trouble.iter().any(|why| why.contains("did not open /dev/kvm")), "{:?}", ran.trouble);
    let ran = run_sh(&scratch, "kill -KILL $$", |_| {});
    assert_eq!(ran.end, Ended::Killed(libc::SIGKILL));
}

#[test]
fn the_vmm_reads_nothing_has_no_terminal_and_no_descriptor_of_ours() {
    let scratch = Scratch::new("plain");
    let script = "cat; ls /proc/self/fd | wc -l; (: < /dev/tty) 2>/dev/null && echo tty; echo done";
    let ran = run_sh(&scratch, script, |_| {});
    // ls has its three and the directory.
    assert_eq!(ran.output.text, "4\ndone\n");
}

#[test]
fn a_vmm_that_hangs_is_ended_at_the_timeout() {
    let scratch = Scratch::new("hangs");
    let start = Instant::now();
    let ran = run_sh(&scratch, "sleep 1000", |launch| launch.timeout = Duration::from_millis(200));
    assert_eq!(ran.end, Ended::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_vmm_that_ignores_sigterm_is_killed() {
    let scratch = Scratch::new("ignores");
    let ran = run_sh(&scratch, "trap '' TERM HUP INT; while :; do sleep 0.05; done", |launch| {
        launch.timeout = Duration::from_millis(200);
    });
    assert_eq!(ran.end, Ended::TimedOut);
}

#[test]
fn a_vmm_has_time_for_its_own_end() {
    let scratch = Scratch::new("grace");
    let ran = run_sh(&scratch, "trap 'echo bye; exit' TERM; while :; do sleep 0.01; done", |launch| {
        launch.timeout = Duration::from_millis(200);
        launch.grace = Duration::from_secs(5);
    });
    assert_eq!(
        (ran.end, ran.output.text.as_str(), ran.last_words.text.as_str()),
        (Ended::TimedOut, "", "bye\n")
    );
}

#[test]
fn a_flood_neither_waits_nor_takes_memory() {
    let scratch = Scratch::new("floods");
    let ran =
        run_sh(&scratch, "echo first; yes | head -c 20000000; echo last", |launch| launch.output_bytes = 64);
    assert_eq!(ran.end, Ended::Exited(0));
    assert!(ran.output.truncated() && ran.output.text.len() < 200, "{:?}", ran.output);
    assert!(
        ran.output.text.starts_with("first\n") && ran.output.text.ends_with("last\n"),
        "{:?}",
        ran.output
    );
}

#[test]
fn a_flood_without_end_is_ended_at_the_timeout() {
    let scratch = Scratch::new("yes");
    let ran = run_sh(&scratch, "yes", |launch| launch.timeout = Duration::from_millis(300));
    assert_eq!(ran.end, Ended::TimedOut);
}

#[test]
fn cancelling_ends_the_run() {
    let scratch = Scratch::new("cancel");
    let launch = scratch.launch_sh("sleep 1000");
    let cancel = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        launch.run(&cancel, &mut |_| {}).unwrap()
    });
    assert_eq!(ran.end, Ended::Cancelled);
    scratch.assert_clean();
}

#[test]
fn progress_is_told_while_the_vmm_runs() {
    let scratch = Scratch::new("progress");
    let mut told = Vec::new();
    let launch = scratch.launch_sh("sleep 0.4");
    launch.run(&AtomicBool::new(false), &mut |progress| told.push(progress.elapsed)).unwrap();
    assert!(told.len() >= 3 && told.is_sorted(), "{told:?}");
}

#[test]
fn a_helper_that_keeps_the_pipe_does_not_keep_the_run() {
    let scratch = Scratch::new("helper");
    let start = Instant::now();
    let ran = run_sh(&scratch, "sleep 1000 & echo started; exit 5", |launch| {
        launch.settle = Duration::from_millis(20);
    });
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Exited(5), "started\n"));
    assert!(ran.trouble.iter().any(|why| why.contains("left processes behind")), "{:?}", ran.trouble);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn what_cannot_be_started_leaves_nothing_behind() {
    let scratch = Scratch::new("unstarted");
    let mut launch = scratch.launch_sh("");
    launch.directory = Some("/nowhere".into());
    let error = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, LaunchError::Start { step: Step::Descriptors, .. }), "{error}");
    launch.directory = None;
    launch.command.push("x".repeat(1 << 20).into());
    let error = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("shorten the command"), "{error}");
    launch.command = vec!["/bin/sh".into(), "a\0b".into()];
    let error = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, LaunchError::NulByte { .. }), "{error}");
    launch.command.clear();
    let error = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, LaunchError::Empty), "{error}");
    scratch.assert_clean();
}

#[test]
fn a_daemon_that_forks_away_is_found_and_ended() {
    let Some(ran) = run_c("daemon", DAEMON, |launch| launch.settle = Duration::from_millis(20)) else {
        return;
    };
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Exited(0), "away\n"));
}

/// A session of its own, a double fork, no descriptors, no signals, an environment of nothing.
const DAEMON: &str = r#"
    write(1, "away\n", 5);
    if (fork()) _exit(0);
    setsid();
    if (fork()) _exit(0);
    close_range(0, ~0u, 0);
    for (int i = 1; i < 32; i++) signal(i, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, 0);
    for (;;) pause();
"#;

#[test]
fn a_vmm_that_forks_without_end_is_ended() {
    let body = "for (int i = 0; i < 200; i++) if (!fork()) { setsid(); if (fork()) _exit(0); for (;;) pause(); } \
                for (;;) pause();";
    let Some(ran) = run_c("forks", body, |launch| launch.timeout = Duration::from_millis(500)) else {
        return;
    };
    assert_eq!(ran.end, Ended::TimedOut);
}

#[test]
fn a_vmm_that_closes_every_descriptor_runs_on() {
    let body = "write(1, \"before\\n\", 7); close_range(0, ~0u, 0); usleep(50000); _exit(6);";
    let Some(ran) = run_c("closes", body, |_| {}) else { return };
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Exited(6), "before\n"));
}

#[test]
fn a_vmm_that_stops_itself_is_ended() {
    let Some(ran) = run_c("stops", "raise(SIGSTOP); _exit(0);", |launch| {
        launch.timeout = Duration::from_millis(200);
    }) else {
        return;
    };
    assert_eq!(ran.end, Ended::TimedOut);
}

#[test]
fn a_vmm_that_kills_its_watcher_and_its_group_leaves_nothing() {
    let body = "if (!fork()) { setsid(); for (;;) pause(); } usleep(20000); kill(getppid(), SIGKILL); for (;;) pause();";
    let Some(ran) = run_c("kills", body, |_| {}) else { return };
    assert_eq!(ran.end, Ended::Lost);
    assert!(ran.trouble.iter().any(|why| why.contains("watches over")), "{:?}", ran.trouble);
    let Some(ran) = run_c("group", "kill(0, SIGKILL);", |_| {}) else { return };
    assert_eq!(ran.end, Ended::Killed(libc::SIGKILL));
}

#[test]
fn a_filter_that_kills_is_named_with_the_way_out() {
    let Some(shim) = machine::empty_shim() else { return };
    for (via, hint) in [(Via::Shim, "try `--via notify`"), (Via::Notify, "start the VMM without its filter")]
    {
        let Some(ran) = run_c(&format!("filter-{via}"), FILTER, |launch| {
            launch.shim = shim;
            launch.via = Some(via);
        }) else {
            return;
        };
        assert_eq!((ran.end, ran.via), (Ended::Killed(libc::SIGSYS), via));
        assert!(ran.trouble.iter().any(|why| why.contains(hint)), "{:?}", ran.trouble);
    }
}

#[test]
fn the_shim_is_loaded_before_the_users_libraries_and_into_helpers() {
    let Some(shim) = machine::empty_shim() else { return };
    let scratch = Scratch::new("preload");
    let script = "grep -c memfd:exeunt-shim /proc/self/maps; echo $LD_PRELOAD";
    let ran = run_sh(&scratch, script, |launch| {
        launch.shim = shim;
        launch.env.push(("LD_PRELOAD".into(), "libm.so.6".into()));
    });
    let (count, preload) = ran.output.text.split_once('\n').unwrap();
    assert!(ran.via == Via::Shim && count.parse::<u32>().unwrap() > 0, "{ran:?}");
    assert!(preload.starts_with("/proc/") && preload.ends_with(":libm.so.6\n"), "{preload}");
}

#[test]
fn a_shim_that_is_not_loaded_is_named() {
    let scratch = Scratch::new("no-shim");
    let ran = run_sh(&scratch, "exit 0", |launch| launch.shim = b"these bytes are no library");
    assert_eq!(ran.end, Ended::Exited(0));
    assert!(ran.trouble.iter().any(|why| why.contains("did not load the shim")), "{:?}", ran.trouble);
}

/// Allows `exit_group` and nothing else.
const FILTER: &str = r"
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 231, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { 4, code };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, 2, &program);
    getpid();
    syscall(39);
";

#[test]
fn no_core_file_is_left_and_signals_are_as_in_a_shell() {
    let body = r#"
        struct sigaction pipe; sigset_t set;
        sigaction(SIGPIPE, 0, &pipe);
        sigprocmask(0, 0, &set);
        struct rlimit core; getrlimit(RLIMIT_CORE, &core);
        int empty = 1;
        for (int i = 1; i < 64; i++) if (sigismember(&set, i) == 1) empty = 0;
        printf("%d %d %d\n", pipe.sa_handler == SIG_DFL, empty, (int) core.rlim_cur);
        fflush(stdout); abort();
    "#;
    let Some(ran) = run_c("signals", body, |_| {}) else { return };
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Killed(libc::SIGABRT), "1 1 0\n"));
}

#[test]
fn a_vmm_of_an_exeunt_that_is_killed_is_ended() {
    with_c("orphan", DAEMON, |scratch, program| {
        let mut second =
            machine::this_test_again("launch::tests::starts_a_run_for_another_test", program, scratch);
        while !scratch.has_processes() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It has the time to fork away.
        std::thread::sleep(Duration::from_millis(50));
        second.kill().unwrap();
        second.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        while scratch.has_processes() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

/// The other half of the test above, which does nothing by itself.
#[test]
fn starts_a_run_for_another_test() {
    let Some((scratch, program)) = machine::orders() else { return };
    let mut launch = scratch.launch(vec![program]);
    launch.settle = Duration::from_secs(100);
    let _ = launch.run(&AtomicBool::new(false), &mut |_| {});
}

#[test]
fn the_status_comes_back_where_the_end_of_children_is_ignored() {
    with_c("ignored", "return 7;", |scratch, program| {
        let test = "launch::tests::runs_a_program_that_ends_with_7_for_another_test";
        assert_ne!(machine::this_test_with_children_ignored(test, program, scratch), Some(false));
    });
}

/// The other half of the test above, which does nothing by itself.
#[test]
fn runs_a_program_that_ends_with_7_for_another_test() {
    let Some((scratch, program)) = machine::orders() else { return };
    let ran = scratch.launch(vec![program]).run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    std::mem::forget(scratch);
    assert_eq!(ran.end, Ended::Exited(7));
}
