//! What the threads of a VMM are doing, as `/proc` shows it.

use exeunt_abi::kvm::ioctl::KVM_RUN;
use std::fs;
use std::path::Path;

/// A thread of the process is in `KVM_RUN`, or runs, or waits for a disk. Where `/proc` says nothing, so does this.
pub(super) fn is_inside(pid: i32) -> bool {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let says = |file: &str, is: fn(&str) -> bool| {
            fs::read_to_string(task.path().join(file)).is_ok_and(|text| is(&text))
        };
        says("syscall", is_running_vcpu) || says("stat", waits_for_a_disk)
    })
}

/// The state is behind the name, which may hold anything.
fn waits_for_a_disk(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
}

/// A line of `/proc/*/syscall`: the number of the call, its six arguments, the stack pointer and the program counter, in
/// hex but for the number; or `running`.
///
/// A worker of the kernel's, such as that of KVM for huge pages, is a thread of the process, too, and shows the call
/// of the thread that it was made from. It has no stack of the process's.
///
/// Source: Linux v6.12 `fs/proc/base.c`, `proc_pid_syscall`, and `arch/x86/kvm/mmu/mmu.c`, `kvm_mmu_start_lpage_recovery`.
fn is_running_vcpu(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.next();
    let numbers: Vec<u64> =
        words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()).collect();
    match (first, &numbers[..]) {
        (Some("running"), _) => true,
        (Some(number), [_descriptor, request, _, _, _, _, stack, _]) => {
            // The kernel takes the lower half of the request.
            let is_run = request & 0xffff_ffff == u64::from(KVM_RUN.0);
            number.parse() == Ok(libc::SYS_ioctl) && is_run && *stack != 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_run_and_a_busy_thread_are_told_from_all_else() {
        let cases = [
            ("16 0xb 0xae80 0x0 0x0 0x0 0x0 0x7ffc 0x7f11", true),
            ("16 0xb 0xffffffff0000ae80 0x0 0x0 0x0 0x0 0x7ffc 0x7f11", true),
            ("running\n", true),
            ("16 0x9 0xae80 0x0 0x0 0x5587 0x0 0x0 0x0", false),
            ("16 0xb 0xae41 0x0 0x0 0x0 0x0 0x7ffc 0x7f11", false),
            ("202 0x7f 0xae80 0x0 0x0 0x0 0x0 0x7ffc 0x7f11", false),
            ("-1 0x7ffc 0x7f11", false),
            ("16 0xb", false),
            ("", false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_running_vcpu(line), expected, "{line}");
        }
    }

    #[test]
    fn a_thread_that_waits_for_a_disk_is_known_by_its_state_alone() {
        let states = [("7 (a) D 1", true), ("7 (a) S 1", false), ("7 (D) D) S 1", false), ("", false)];
        for (stat, expected) in states {
            assert_eq!(waits_for_a_disk(stat), expected, "{stat}");
        }
    }

    #[test]
    fn a_process_that_is_gone_is_not_inside() {
        assert!(!is_inside(i32::MAX));
    }
}
