//! VMMs that behave badly, under the model and by both ways in: the run ends, says how, and leaves nothing behind.

use super::machine::{SETUP, both_ways as run_both_ways};
use exeunt_abi::Errno;
use exeunt_interpose::launch::{Ended, Ran, Via};
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::{File, Record, What};

fn both_ways(name: &str, scene: &str, body: &str, judge: impl Fn(&Ran)) {
    run_both_ways(name, &Plan::new(Stage::Scripted).with_scene(scene), body, judge);
}

/// Runs until the exit that no kernel has.
const TO_THE_EXIT: &str = "while (ioctl(vcpu, KVM_RUN, 0L) == 0 && run->exit_reason == KVM_EXIT_IO);";

/// `KVM_EXIT_IO`.
const PORT_IO: u32 = 2;

/// The exits that somebody judges.
fn exits(ran: &Ran) -> Vec<(Result<(), Errno>, u32)> {
    let exit = |record: &Record| match &record.what {
        What::Run(run) => Some((run.result, run.after.exit_reason)).filter(|(_, reason)| *reason != PORT_IO),
        _ => None,
    };
    ran.records.iter().filter_map(exit).collect()
}

#[test]
fn a_vmm_that_ends_or_stays_at_an_exit() {
    let ends = format!("{SETUP} {TO_THE_EXIT} return 7;");
    both_ways("ends", "unknown-exit", &ends, |ran| {
        assert_eq!((ran.end, exits(ran)), (Ended::Exited(7), vec![(Ok(()), 64)]));
        assert!(ran.trouble.is_empty(), "{:?}", ran.trouble);
    });
    let stays = format!("{SETUP} {TO_THE_EXIT} for (;;) pause();");
    both_ways("stays", "unknown-exit", &stays, |ran| {
        assert_eq!((ran.end, exits(ran)), (Ended::Paused, vec![(Ok(()), 64)]));
    });
}

#[test]
fn a_vmm_that_goes_on_after_its_guest() {
    let goes_on = format!("{SETUP} for (;;) ioctl(vcpu, KVM_RUN, 0L);");
    both_ways("goes-on", "old-kernel", &goes_on, |ran| assert_eq!(ran.end, Ended::GuestDone));
}

#[test]
fn a_vmm_that_is_killed_in_the_middle() {
    let body = format!(
        "if (!fork()) {{ usleep(100000); kill(getppid(), SIGKILL); _exit(0); }} {SETUP} \
         for (;;) if (ioctl(vcpu, KVM_RUN, 0L) || run->exit_reason != KVM_EXIT_IO) pause();"
    );
    both_ways("killed", "unknown-exit", &body, |ran| assert_eq!(ran.end, Ended::Killed(libc::SIGKILL)));
}

#[test]
fn a_vmm_that_becomes_a_daemon() {
    let body = format!("daemon(0, 0); {SETUP} {TO_THE_EXIT} usleep(50000); _exit(11);");
    both_ways("daemon", "unknown-exit", &body, |ran| {
        assert_eq!((ran.end, exits(ran)), (Ended::Exited(11), vec![(Ok(()), 64)]));
    });
}

#[test]
fn a_vmm_that_opens_kvm_twice() {
    let body = format!(
        "{SETUP} int other = open(\"/dev/kvm\", O_RDWR); int second = ioctl(other, KVM_CREATE_VM, 0L); \
         return other > 2 && other != kvm && second > 2 && second != vm ? 0 : 1;"
    );
    both_ways("twice", "old-kernel", &body, |ran| {
        assert_eq!(ran.end, Ended::Exited(0));
        let opened =
            |record: &&Record| matches!(record.what, What::Opened { file: File::System, result: Ok(_) });
        assert_eq!(ran.records.iter().filter(opened).count(), 2);
    });
}

#[test]
fn a_vmm_that_closes_its_descriptors() {
    let body = format!("{SETUP} close_range(0, ~0u, 0); ioctl(vcpu, KVM_RUN, 0L); _exit(3);");
    both_ways("closes", "unknown-exit", &body, |ran| assert_eq!(ran.end, Ended::Exited(3)));
}

#[test]
fn a_vmm_that_replies_with_nonsense() {
    let body = format!(
        "{SETUP} for (int n = 0; n < 50; n++) {{ ioctl(vcpu, KVM_RUN, 0L); memset((char *) run + 8, n * 37, 2040); }} \
         for (int nr = 0; nr < 256; nr++) {{ ioctl(vm, 0xae00 | nr, -1L); ioctl(vcpu, 0x4008ae00 | nr, 8L); }} \
         return 9;"
    );
    both_ways("nonsense", "conversion-on-6.12", &body, |ran| {
        assert!(matches!(ran.end, Ended::Exited(9) | Ended::GuestDone | Ended::Killed(_)), "{:?}", ran.end);
        assert!(!exits(ran).is_empty());
    });
}

/// A filter that is allowed what a VMM makes by itself, and kills for anything else.
fn filtered(allowed: &[&str], rest: &str) -> String {
    let jump = |name: &&str| {
        let is_it = format!("BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_{name}, 0, 1)");
        format!("{is_it}, BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),")
    };
    let jumps = allowed.iter().map(jump).collect::<Vec<_>>().concat();
    format!(
        "struct sock_filter code[] = {{ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), {jumps} \
         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS) }}; \
         struct sock_fprog program = {{ sizeof code / sizeof code[0], code }}; \
         {SETUP} prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_SECCOMP, 2, &program); {rest}"
    )
}

#[test]
fn a_vmm_with_a_filter_that_kills_runs_by_the_supervisor_and_either_runs_by_the_shim_or_is_told_how() {
    let body = filtered(&["ioctl", "exit_group"], &format!("{TO_THE_EXIT} _exit(12);"));
    both_ways("filter", "unknown-exit", &body, |ran| match (ran.via, ran.end) {
        (Via::Shim, Ended::Killed(libc::SIGSYS)) => {
            assert!(ran.trouble.iter().any(|why| why.contains("try `--via notify`")), "{:?}", ran.trouble);
        }
        (_, end) => assert_eq!((end, exits(ran)), (Ended::Exited(12), vec![(Ok(()), 64)])),
    });
}

#[test]
fn a_vmm_whose_filter_kills_it_for_its_own_call_is_said_to_have_done_so() {
    let body = filtered(&["exit_group"], "ioctl(vcpu, KVM_RUN, 0L);");
    both_ways("filter-own", "unknown-exit", &body, |ran| {
        let what = ran.trouble.join("; ");
        match ran.via {
            // The model runs in the process: no system call is made.
            Via::Shim if ran.end == Ended::Exited(0) => {}
            _ => {
                assert_eq!(ran.end, Ended::Killed(libc::SIGSYS));
                assert!(what.contains("a seccomp filter of the VMM's own killed it"), "{what}");
            }
        }
    });
}
