//! VMMs that behave badly, under the model and by both ways in: the run ends, says how, and leaves nothing behind.
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

use exeunt_abi::Errno;
use exeunt_check::shim;
use exeunt_interpose::launch::{Ended, Launch, Ran, Via};
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::{File, Record, What};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const HEAD: &str = r"
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <linux/filter.h>
    #include <linux/kvm.h>
    #include <linux/seccomp.h>
";

/// A VM with one vCPU and 16 MiB of memory.
const SETUP: &str = r#"
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0L);
    struct kvm_userspace_memory_region slot = { 0, 0, 0, 16 << 20, 0 };
    slot.userspace_addr = (long) mmap(0, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0L);
    struct kvm_run *run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0L), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
"#;

/// Runs until the exit that no kernel has.
const TO_THE_EXIT: &str = "while (ioctl(vcpu, KVM_RUN, 0L) == 0 && run->exit_reason == KVM_EXIT_IO);";

/// Runs a program with this body of `main` both ways, if there is a compiler.
fn both_ways(name: &str, scene: &str, body: &str, judge: impl Fn(&Ran)) {
    let directory = std::env::temp_dir().join(format!("exeunt-bad-{}-{name}", std::process::id()));
    fs::create_dir_all(directory.join("cwd")).unwrap();
    let (source, program) = (directory.join("vmm.c"), directory.join("vmm"));
    fs::write(&source, format!("{HEAD}\nint main(void) {{ {body}\n return 0; }}\n")).unwrap();
    let built = Command::new("cc").args(["-w", "-o"]).args([&program, &source]).stdin(Stdio::null()).status();
    match built {
        Ok(status) => assert!(status.success(), "{name} does not compile"),
        Err(error) => {
            println!("skipped, no C compiler: {error}");
            return;
        }
    }
    for via in [Via::Shim, Via::Notify] {
        if via == Via::Shim && shim::bytes().is_empty() {
            println!("skipped, this build has no shim");
            continue;
        }
        let mut launch = Launch::new(
            vec![program.clone().into()],
            Plan::new(Stage::Scripted).with_scene(scene),
            shim::bytes(),
        );
        launch.via = Some(via);
        launch.directory = Some(directory.join("cwd"));
        launch.timeout = Duration::from_secs(20);
        launch.env.push((MARK.into(), directory.clone().into()));
        let ran = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap();
        println!("{name} {via}: {:?} {:?} {:?}", ran.end, ran.output.text, ran.trouble);
        assert_eq!(ran.via, via);
        judge(&ran);
        assert_clean(&directory);
    }
    let _ = fs::remove_dir_all(&directory);
}

const MARK: &str = "EXEUNT_BAD_VMM";

fn assert_clean(directory: &Path) {
    let mark = format!("{MARK}={}", directory.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let left: Vec<PathBuf> = processes
        .map(|entry| entry.path())
        .filter(|path| {
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let files: Vec<_> = fs::read_dir(directory.join("cwd")).unwrap().flatten().collect();
    assert!(files.is_empty(), "{files:?}");
}

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
