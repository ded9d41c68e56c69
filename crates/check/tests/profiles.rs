//! Shipped profiles start the VMMs that are installed here, without anything in front of them.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_check::profile::{Profile, ProfileError};
use exeunt_linux::{print_skip, probe};
use std::process;

#[test]
fn the_profile_of_qemu_runs_its_guest_to_the_end_on_kvm() {
    if let Err(reason) = probe() {
        print_skip("the profile of QEMU on KVM", reason);
        return;
    }
    let command = match Profile::load("qemu").unwrap().command(None, &[]) {
        Ok(command) => command,
        Err(reason @ ProfileError::NoProgram { .. }) => {
            print_skip("the profile of QEMU on KVM", reason);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut qemu = process::Command::new(&command.program);
    qemu.args(&command.args).envs(command.env.iter().map(|(name, value)| (name, value)));
    let output = qemu.stdin(process::Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("exeunt rom32 runs"), "{text:?} {:?}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0x21));
}
