//! `exeunt run --kernel kvm`: on the host's `/dev/kvm` where there is one, and without it everywhere.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// A user who owns nothing.
const NOBODY: u32 = 65534;

fn exeunt(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    command.arg("run").args(arguments).args(["--kernel", "kvm"]);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs where there is a `/dev/kvm`; prints why not otherwise.
fn on_kvm(test: &str, arguments: &[&str]) -> Option<Output> {
    let output = exeunt(arguments).output().unwrap();
    let said = text(&output.stderr);
    if said.contains("/dev/kvm") {
        exeunt_linux::print_skip(test, said.trim());
        return None;
    }
    Some(output)
}

#[test]
fn a_triple_fault_migrates_between_two_real_vms() {
    let Some(output) = on_kvm("migration", &["triple-fault-migration"]) else { return };
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(out.contains("KVM_EXIT_SHUTDOWN (8)"), "{out}");
    let Some(output) = on_kvm("loss", &["triple-fault-migration", "--without-capability"]) else { return };
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(out.contains("never learns of the triple fault") && !out.contains("KVM_EXIT_SHUTDOWN"), "{out}");
}

#[test]
fn everything_that_the_host_can_produce_runs_and_the_rest_is_skipped_with_a_reason() {
    let Some(output) = on_kvm("all", &[]) else { return };
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(out.contains("immediate_exit") && out.contains("KVM_RUN = EINTR"), "{out}");
    let skips: Vec<_> = out.lines().filter(|line| line.trim_start().starts_with("skip ")).collect();
    println!("{} cases skipped, first: {}", skips.len(), skips.first().unwrap_or(&"none").trim());
}

#[test]
fn a_vm_type_that_the_host_lacks_is_refused_with_the_capability() {
    let Some(output) = on_kvm("snp", &["page-state-change"]) else { return };
    if output.status.success() {
        exeunt_linux::print_skip("snp", "this host makes SNP VMs");
        return;
    }
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("vm-types (235)"), "{said}");
}

#[test]
fn without_permission_there_is_one_line_with_the_next_step() {
    let mut command = exeunt(&["plain-exits"]);
    let output = match command.uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => output,
        Err(error) => {
            exeunt_linux::print_skip("permission", format_args!("cannot become another user: {error}"));
            return;
        }
    };
    if output.status.success() {
        exeunt_linux::print_skip("permission", "everybody may open /dev/kvm here");
        return;
    }
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.starts_with("exeunt: ") && said.contains("/dev/kvm"), "{said}");
    assert_eq!(text(&output.stdout), "", "nothing half done");
}
