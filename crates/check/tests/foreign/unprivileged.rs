//! A user without rights, and without `/dev/kvm`.

use crate::judging::Trial;
use crate::programs::{GIVEN, Program};
use crate::right::keeps_all;
use exeunt_linux::print_skip;
use std::process::Command;

/// Set for the child, which has no rights any more.
const CHILD: &str = "EXEUNT_TEST_UNPRIVILEGED";
const TEST: &str = "VMMs of a user without rights";

#[test]
fn a_user_without_rights_and_without_dev_kvm_judges_all_four_vmms() {
    if std::env::var_os(CHILD).is_some() {
        assert!(std::fs::File::open("/dev/kvm").is_err(), "the child has no /dev/kvm");
        for program in Program::ALL {
            keeps_all(&Trial::of(program));
        }
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return print_skip(
            TEST,
            "only root can be somebody else; run as it is, the other tests show the same",
        );
    }
    let built: Result<Vec<_>, _> = Program::ALL.into_iter().map(Program::path).collect();
    let built = match built {
        Ok(built) => std::env::join_paths(built).unwrap(),
        Err(reason) => return print_skip(TEST, reason),
    };
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new("setpriv");
    child.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"]).arg(exe);
    child.args([
        "--exact",
        "--nocapture",
        "unprivileged::a_user_without_rights_and_without_dev_kvm_judges_all_four_vmms",
    ]);
    match child.env(CHILD, "1").env(GIVEN, built).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let has_judged = text.contains("1 passed") && !text.contains("skipped");
            assert!(output.status.success() && has_judged, "{text}");
        }
        Err(error) => print_skip(TEST, format!("setpriv: {error}")),
    }
}
