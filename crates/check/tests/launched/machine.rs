//! Programs in C that stand in for VMMs.

use exeunt_check::shim;
use exeunt_interpose::launch::{Launch, Ran, Via};
use exeunt_interpose::plan::Plan;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const HEAD: &str = r"
    #define _GNU_SOURCE
    #include <errno.h>
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
pub(super) const SETUP: &str = r#"
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0L);
    struct kvm_userspace_memory_region slot = { 0, 0, 0, 16 << 20, 0 };
    slot.userspace_addr = (long) mmap(0, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0L);
    struct kvm_run *run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0L), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
"#;

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program with this body of `main` both ways, if there is a compiler.
pub(super) fn both_ways(name: &str, plan: &Plan, body: &str, judge: impl Fn(&Ran)) {
    let scratch =
        Scratch(std::env::temp_dir().join(format!("exeunt-launched-{}-{name}", std::process::id())));
    let directory = &scratch.0;
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
        let mut launch = Launch::new(vec![program.clone().into()], plan.clone(), shim::bytes());
        launch.via = Some(via);
        launch.directory = Some(directory.join("cwd"));
        launch.timeout = Duration::from_secs(20);
        launch.env.push((MARK.into(), directory.clone().into()));
        let ran = launch.run(&AtomicBool::new(false), &mut |_| {}).unwrap();
        println!("{name} {via}: {:?} {:?} {:?}", ran.end, ran.output.text, ran.trouble);
        assert_eq!(ran.via, via);
        judge(&ran);
        assert_clean(directory);
    }
}

const MARK: &str = "EXEUNT_LAUNCHED_VMM";

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
