//! Both VMMs as programs, on the real `/dev/kvm`.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_linux::{print_skip, probe};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

const RUST: &str = env!("CARGO_BIN_EXE_exeunt-subject");

/// The C VMM, linked both ways, compiled once; or why not.
fn in_c() -> &'static Result<[PathBuf; 2], String> {
    static BUILT: OnceLock<Result<[PathBuf; 2], String>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let build = |name: &str, extra: &[&str]| {
            let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
            let mut cc = Command::new("cc");
            cc.args(["-std=c99", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]);
            let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/c")).unwrap();
            let sources = sources.map(|entry| entry.unwrap().path());
            cc.args(extra).args(sources.filter(|path| path.extension().is_some_and(|it| it == "c")));
            match cc.arg("-o").arg(&program).output() {
                Ok(output) if output.status.success() => Ok(program),
                Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
                Err(error) => Err(format!("cc: {error}")),
            }
        };
        Ok([build("vmm-dynamic", &[])?, build("vmm-static", &["-static"])?])
    })
}

/// Every VMM that there is; the C ones only where there is a compiler.
fn programs(test: &str) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(RUST)];
    match in_c() {
        Ok(programs) => all.extend(programs.iter().cloned()),
        Err(reason) => print_skip(test, reason),
    }
    all
}

/// The status and what was said.
fn run(program: &PathBuf, arguments: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (status.code(), text)
}

#[test]
fn guests_of_ordinary_vms_run_to_their_end_with_every_vmm() {
    const TEST: &str = "VMMs on /dev/kvm";
    if let Err(reason) = probe() {
        return print_skip(TEST, reason);
    }
    let pieces = "--memory 0:0x400000 --memory 0x600000:0x200000 --memory 0x800000:0x100000:shared";
    for program in programs(TEST) {
        for arguments in [
            "--exits 300",
            "--vcpus 3",
            "--vcpus 3 --in-turn",
            pieces,
            "--task save-after:1",
            "--task save-twice",
            "--task go-back",
            "--task migrate",
        ] {
            let (status, text) = run(&program, arguments);
            assert_eq!(status, Some(0), "{program:?} {arguments}: {text}");
            assert!(text.contains("the guest halted"), "{program:?} {arguments}: {text}");
        }
    }
}

#[test]
fn a_triple_fault_of_one_vcpu_ends_all_with_its_own_status() {
    if let Err(reason) = probe() {
        return print_skip("triple faults", reason);
    }
    for arguments in ["", "--vcpus 3", "--vcpus 3 --in-turn"] {
        let (status, text) = run(&RUST.into(), &format!("--guest shutdown {arguments}"));
        assert_eq!(status, Some(20), "{arguments}: {text}");
        assert!(text.contains("triple fault"), "{text}");
    }
}

#[test]
fn what_cannot_be_had_is_said_and_the_status_is_2() {
    for program in programs("VMMs without a VM") {
        for arguments in
            ["--vcpus 0", "--memory 1:4096", "--memory 0", "--type x86", "--task sleep", "--nonsense"]
        {
            let (status, text) = run(&program, arguments);
            assert_eq!(status, Some(2), "{program:?} {arguments}: {text}");
            assert!(!text.is_empty(), "{program:?} {arguments}");
        }
    }
    // Whether there is a device or not, a host that has no such VMs says so.
    if probe().is_ok_and(|kvm| kvm.create_vm(exeunt_abi::kvm::vm_type::VmType::Snp).is_err()) {
        for program in programs("SNP on a host without it") {
            let (status, text) = run(&program, "--type snp");
            assert_eq!(status, Some(2), "{program:?}: {text}");
        }
    }
}

#[test]
fn the_wrong_ways_of_the_c_vmm_have_names_and_no_name_is_there_twice() {
    let Ok([program, _]) = in_c() else { return print_skip("wrong VMMs", "there is no C compiler") };
    let (status, text) = run(program, "--list-wrong");
    let names: Vec<_> = text.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(status, Some(0), "{text}");
    assert!(names.len() >= 60, "{names:?}");
    let once: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "{names:?}");
    assert_eq!(run(program, "--wrong right").0, Some(2));
}
