//! Calls of arm64 and riscv64 guests that a kernel answered elsewhere, held against the model.
//!
//! The program that made them is `xtask/src/real_kernels/system_events.c`.

use crate::compare::{Difference, Summary, hex};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Kernel};
use exeunt_model::Kvm;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_proto::host::Vcpu as _;
use std::sync::{Arc, Mutex, PoisonError};

/// One call and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    extension: u64,
    function: u64,
    args: [u64; 6],
    suspend: bool,
    rc: i32,
    reason: u32,
    mp_state: u32,
    union: Vec<u8>,
}

/// What the guest or the VMM sees of a call.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// `KVM_RUN` came back with a system event: error, the state of the vCPU, and the union.
    Event(i32, u32, Vec<u8>),
    /// The guest got a result.
    Result(u64),
    /// Something else came of it.
    Exit(i32, u32),
}

/// Does every call of a log in the model, and compares.
///
/// # Errors
///
/// The log is not one, or ends too early.
pub fn judge(log: &str, kernel: Kernel) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let mut end = None;
    for line in log.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("rig: call ") {
            let call = parse(text).ok_or_else(|| format!("not a call: {line}"))?;
            let (expected, seen) = (on_model(&call, kernel)?, seen(&call));
            summary.scripts += 1;
            summary.entries += 1;
            let name = match seen {
                Seen::Event(..) => ExitReason::SYSTEM_EVENT.to_string(),
                Seen::Result(_) => "a result in the guest".to_owned(),
                Seen::Exit(rc, reason) => format!("{rc}, {}", ExitReason(reason)),
            };
            *summary.exits.entry(name).or_default() += 1;
            if expected != seen {
                summary.different += 1;
                summary.differences.extend(told(summary.scripts, &call, &expected, &seen));
                summary.differences.truncate(8);
            }
        } else if let Some(text) = line.strip_prefix("rig: end ") {
            end = text.parse::<u64>().ok();
        } else if let Some(text) = line.strip_prefix("rig: failed ") {
            return Err(text.to_owned());
        }
    }
    summary.steps = summary.scripts;
    if end == Some(summary.scripts) {
        Ok(summary)
    } else {
        Err(format!("{} calls and no end", summary.scripts))
    }
}

fn told(number: u64, call: &Call, expected: &Seen, seen: &Seen) -> Option<Difference> {
    let text = |seen: &Seen| match seen {
        Seen::Event(rc, mp_state, union) => format!("event, rc {rc}, mp_state {mp_state}, {}", hex(union)),
        other => format!("{other:x?}"),
    };
    let what = format!("{:#x} {:#x} {:x?}", call.extension, call.function, call.args);
    let (expected, seen) = (text(expected), text(seen));
    let (part, script_text) = ("answer".to_owned(), format!("suspend {}", call.suspend));
    Some(Difference { script: number.checked_sub(1)?, step: 1, what, part, expected, seen, script_text })
}

fn parse(text: &str) -> Option<Call> {
    let mut words = text.split(' ');
    let mut hex = || u64::from_str_radix(words.next()?, 16).ok();
    let (extension, function) = (hex()?, hex()?);
    let mut args = [0; 6];
    for arg in &mut args {
        *arg = hex()?;
    }
    let suspend = words.next()? == "1";
    let rc = words.next()?.parse().ok()?;
    let reason = words.next()?.parse().ok()?;
    let mp_state = words.next()?.parse().ok()?;
    let digits = words.next()?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let union = digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().filter(|union| union.len() == 256)?;
    Some(Call { extension, function, args, suspend, rc, reason, mp_state, union })
}

fn seen(call: &Call) -> Seen {
    match (call.rc, ExitReason(call.reason)) {
        (0, ExitReason::SYSTEM_EVENT) => Seen::Event(call.rc, call.mp_state, call.union.clone()),
        // The guest stores its result where no memory is: `mmio.data`.
        (0, ExitReason::MMIO) => {
            let data = call.union.get(8..).and_then(|bytes| bytes.first_chunk().copied());
            Seen::Result(data.map_or(0, u64::from_le_bytes))
        }
        (rc, reason) => Seen::Exit(rc, reason.0),
    }
}

fn on_model(call: &Call, kernel: Kernel) -> Result<Seen, String> {
    let failed = |errno| format!("the model: {errno}");
    let vm = Kvm::new(kernel).create_vm(VmType::Default).map_err(failed)?;
    if call.suspend && kernel.arch == Arch::Arm64 {
        vm.enable_cap(Cap::ARM_SYSTEM_SUSPEND, 0).map_err(failed)?;
    }
    let result = Arc::new(Mutex::new(None));
    let to = Arc::clone(&result);
    let (arch, call) = (kernel.arch, call.clone());
    let program = |cpu: Cpu| async move {
        let got = done(&cpu, arch, &call).await?;
        *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).map_err(failed)?;
    vcpu.page_mut().exit.fill(0xaa);
    let rc = vcpu.enter().map_or_else(|errno| -errno.0, |()| 0);
    let reason = vcpu.page().reason();
    let result = *result.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(match result {
        Some(result) => Seen::Result(result),
        None if reason == ExitReason::SYSTEM_EVENT => {
            Seen::Event(rc, vcpu.mp_state().number(), vcpu.page().exit.to_vec())
        }
        None => Seen::Exit(rc, reason.0),
    })
}

async fn done(cpu: &Cpu, arch: Arch, call: &Call) -> Result<u64, GuestFault> {
    let [x1, x2, x3, ..] = call.args;
    if arch == Arch::Arm64 {
        return cpu.psci(u32::try_from(call.function).unwrap_or(0), [x1, x2, x3]).await;
    }
    let [error, _] = cpu.sbi_call(call.extension, call.function, call.args).await?;
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_abi::Dialect;

    const ARM64: Kernel = Kernel { dialect: Dialect::Linux6_1, arch: Arch::Arm64 };

    fn line(function: u64, data: &str, reason: u32, mp_state: u32) -> String {
        let union = format!("{data}{}", "aa".repeat(256 - data.len() / 2));
        format!("rig: call 0 {function:x} 0 0 0 0 0 0 0 0 {reason} {mp_state} {union}\n")
    }

    #[test]
    fn what_a_kernel_answered_agrees_and_one_byte_of_another_does_not() {
        // As measured: 136 bytes are written.
        let off = format!("0100000001000000{}", "00".repeat(128));
        let log = line(0x8400_0008, &off, 24, 5) + "rig: end 1\n";
        let summary = judge(&log, ARM64).unwrap();
        assert_eq!((summary.scripts, summary.different), (1, 0), "{summary:?}");
        let log = line(0x8400_0008, &format!("02{}", &off[2..]), 24, 5) + "rig: end 1\n";
        let summary = judge(&log, ARM64).unwrap();
        assert_eq!(summary.different, 1);
        assert_ne!(summary.differences[0].expected, summary.differences[0].seen);
    }

    #[test]
    fn a_log_that_breaks_off_is_no_result() {
        assert!(judge("", ARM64).is_err());
        assert!(judge("rig: call 1 2 3\n", ARM64).is_err());
        assert!(judge("rig: end 7\n", ARM64).is_err());
        assert_eq!(judge("rig: failed mmap: x\n", ARM64).unwrap_err(), "mmap: x");
    }
}
