//! VMMs under the model, by the supervisor: what they do wrong ends the run with its name.

use super::super::*;
use super::machine::run_c;
use crate::plan::Stage;
use crate::record::{File, What};
use exeunt_abi::Errno;

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

fn run(name: &str, scene: &str, body: &str, change: impl FnOnce(&mut Launch)) -> Option<Ran> {
    run_c(name, &format!("{SETUP}\n{body}"), |launch| {
        launch.plan = Plan::new(Stage::Scripted).with_scene(scene);
        launch.via = Some(Via::Notify);
        change(launch);
    })
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
fn a_vmm_that_ends_at_an_exit_leaves_its_status_and_the_exit() {
    let body = "while (ioctl(vcpu, KVM_RUN, 0L) == 0 && run->exit_reason == KVM_EXIT_IO); \
                printf(\"exit %d\\n\", run->exit_reason); return 7;";
    let Some(ran) = run("ends", "unknown-exit", body, |_| {}) else { return };
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Exited(7), "exit 64\n"), "{:?}", ran.trouble);
    assert_eq!((exits(&ran), ran.trouble.len()), (vec![(Ok(()), 64)], 0), "{:?}", ran.trouble);
}

#[test]
fn a_vmm_that_stays_after_an_exit_is_paused_with_the_exit_recorded() {
    let body = "while (ioctl(vcpu, KVM_RUN, 0L) == 0 && run->exit_reason == KVM_EXIT_IO); for (;;) pause();";
    let Some(ran) = run("pauses", "unknown-exit", body, |_| {}) else { return };
    assert_eq!((ran.end, exits(&ran)), (Ended::Paused, vec![(Ok(()), 64)]));
    assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
}

#[test]
fn a_vmm_that_enters_for_ever_is_hung() {
    let body = "for (;;) ioctl(vcpu, KVM_RUN, 0L);";
    let Some(ran) = run("hangs", "conversion-on-6.12", body, |launch| launch.plan.max_exits = 5) else {
        return;
    };
    assert!(matches!(ran.end, Ended::Hung | Ended::GuestDone), "{:?}", ran.end);
}

#[test]
fn a_vmm_that_enters_again_after_the_guests_end_is_done() {
    let body = "for (;;) ioctl(vcpu, KVM_RUN, 0L);";
    let Some(ran) = run("goes-on", "old-kernel", body, |_| {}) else { return };
    assert_eq!(ran.end, Ended::GuestDone, "{:?}", ran.records);
    assert!(ran.records.iter().any(|record| record.what == What::SceneOver));
}

#[test]
fn a_vmm_that_is_killed_in_the_middle_of_a_run_is_said_to_be_killed() {
    let body = "if (!fork()) { usleep(20000); kill(getppid(), SIGKILL); _exit(0); } \
                for (;;) ioctl(vcpu, KVM_RUN, 0L);";
    let Some(ran) = run("killed", "old-kernel", body, |launch| launch.settle = Duration::from_secs(5)) else {
        return;
    };
    assert_eq!(ran.end, Ended::Killed(libc::SIGKILL));
}

#[test]
fn a_vmm_that_opens_kvm_twice_has_two_files_and_two_vms() {
    let body = r#"
        int other = open("/dev/kvm", O_RDWR);
        int second = ioctl(other, KVM_CREATE_VM, 0L);
        printf("%d %d\n", other > 2 && other != kvm, second > 2 && second != vm);
    "#;
    let Some(ran) = run("twice", "old-kernel", body, |_| {}) else { return };
    assert_eq!((ran.end, ran.output.text.as_str()), (Ended::Exited(0), "1 1\n"));
    let opened = |record: &&Record| matches!(record.what, What::Opened { file: File::System, result: Ok(_) });
    assert_eq!(ran.records.iter().filter(opened).count(), 2);
    let made = |vm| {
        ran.records
            .iter()
            .any(|record| matches!(&record.what, What::Ioctl { made, .. } if *made == Some(File::Vm(vm))))
    };
    assert!(made(0) && made(1) && !made(2));
}

#[test]
fn a_vmm_that_replies_with_nonsense_is_recorded_to_its_end() {
    let body = r"
        for (int n = 0; n < 50; n++) {
            ioctl(vcpu, KVM_RUN, 0L);
            memset((char *) run + 8, n * 37, 2040);
        }
        for (int request = 0; request < 256; request++) {
            ioctl(vm, 0xae00 | request, -1L);
            ioctl(vcpu, 0x4008ae00 | request, 8L);
        }
        return 9;
    ";
    let Some(ran) = run("nonsense", "conversion-on-6.12", body, |_| {}) else { return };
    assert!(matches!(ran.end, Ended::Exited(9) | Ended::GuestDone | Ended::Killed(_)), "{:?}", ran.end);
    assert!(!exits(&ran).is_empty(), "{:?}", ran.trouble);
}

#[test]
fn a_vmm_that_closes_its_descriptors_or_dies_at_once_is_no_trouble() {
    let Some(ran) = run("closes-kvm", "old-kernel", "close_range(0, ~0u, 0); _exit(3);", |_| {}) else {
        return;
    };
    assert_eq!(ran.end, Ended::Exited(3));
    let Some(ran) = run("aborts", "old-kernel", "abort();", |_| {}) else { return };
    assert_eq!(ran.end, Ended::Killed(libc::SIGABRT));
}

#[test]
fn a_daemon_is_the_vmm() {
    let rest = "while (ioctl(vcpu, KVM_RUN, 0L) == 0 && run->exit_reason == KVM_EXIT_IO); \
                usleep(50000); _exit(11);";
    let Some(ran) = run_c("daemon-vmm", &format!("daemon(0, 0); {SETUP} {rest}"), |launch| {
        launch.plan = Plan::new(Stage::Scripted).with_scene("unknown-exit");
        launch.via = Some(Via::Notify);
    }) else {
        return;
    };
    assert_eq!((ran.end, exits(&ran)), (Ended::Exited(11), vec![(Ok(()), 64)]), "{:?}", ran.trouble);
}
