//! The real kernel, with somebody who looks on.

use crate::client::run;
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::{File, What};

fn has_kvm() -> bool {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &opened {
        println!("skipped: /dev/kvm cannot be opened: {error}");
    }
    opened.is_ok()
}

#[test]
fn what_a_real_kernel_did_is_seen_at_the_next_entry() {
    for stage in [Stage::Observe, Stage::Overlay] {
        if !has_kvm() {
            return;
        }
        let Some(ran) = run("measure", &Plan::new(stage)) else { return };
        assert!(ran.output.starts_with("20000 exits, "), "{}", ran.output);
        let runs: u64 = ran
            .records
            .iter()
            .map(|record| match record.what {
                What::PlainRuns { on: File::Vcpu(0, 0), count } => count,
                What::Run(_) => 1,
                _ => 0,
            })
            .sum();
        // The last one cannot be told from no exit at all.
        assert_eq!(runs, 20_099, "{stage}");
        let made: Vec<File> = ran
            .records
            .iter()
            .filter_map(|record| match record.what {
                What::Ioctl { made, .. } => made,
                _ => None,
            })
            .collect();
        assert_eq!(made, [File::Vm(0), File::Vcpu(0, 0)], "{stage}");
    }
}

#[test]
fn an_exit_is_put_between_those_of_the_real_kernel_and_the_guest_goes_on() {
    if !has_kvm() {
        return;
    }
    let plan = Plan::new(Stage::Overlay).with_scene("overlay-shutdown");
    let Some(ran) = run("measure", &plan) else { return };
    // The client enters a hundred times before it looks at exits.
    assert!(ran.output.starts_with("20000 exits, "), "{}", ran.output);
    let injected: Vec<_> = ran
        .records
        .iter()
        .filter_map(|record| match &record.what {
            What::Run(run) if run.injected => Some((run.after.reason(), run.result)),
            _ => None,
        })
        .collect();
    let shutdown = ExitReason::SHUTDOWN;
    assert_eq!(injected, [(shutdown, Ok(())), (shutdown, Err(Errno::EINTR))], "{:?}", ran.records);
}
