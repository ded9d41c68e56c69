//! Signals while a call waits for its answer.

use crate::client::{Run, run, scene};

/// A vCPU that sleeps, three signals, each ends one `KVM_RUN` with `EINTR` and exit reason 10.
const THREE: &str = "\
    Interrupted system call, exit 10, 1 signals\n\
    Interrupted system call, exit 10, 2 signals\n\
    Interrupted system call, exit 10, 3 signals\n";

#[test]
fn a_signal_ends_a_vcpus_sleep_as_in_the_kernel_whatever_the_handler_says_about_restarting() {
    for mode in ["interrupt", "interrupt-restart", "interrupt-immediate"] {
        let Some(ran) = run(mode, &scene("conversion-there-and-back")) else { return };
        assert_eq!(ran.output, THREE, "{mode}");
        assert_eq!(ran.runs(), [(10, Err(libc::EINTR)); 3], "{mode}");
    }
}

#[test]
fn where_signals_interrupt_answers_a_sleep_ends_too() {
    for mode in ["interrupt", "interrupt-immediate"] {
        let plan = scene("conversion-there-and-back");
        let Some(mut run) = Run::new(mode, &plan) else { return };
        run.filter = run.filter.interruptible();
        let ran = run.run();
        assert_eq!(ran.output.matches("Interrupted system call").count(), 3, "{mode}: {}", ran.output);
    }
}

const ALL: &str = "vcpu 0: 4 exits, 3 conversions, end: exit 5\n";

#[test]
fn no_exit_is_lost_or_brought_twice_under_a_storm_of_signals() {
    for mode in ["pestered", "pestered-restart"] {
        for _ in 0..10 {
            let Some(ran) = run(mode, &scene("conversion-there-and-back")) else { return };
            assert_eq!(ran.output, ALL, "{mode}");
        }
    }
}

#[test]
fn where_signals_interrupt_answers_the_guest_comes_to_its_end_all_the_same() {
    for mode in ["pestered", "pestered-restart"] {
        for _ in 0..10 {
            let plan = scene("conversion-there-and-back");
            let Some(mut run) = Run::new(mode, &plan) else { return };
            run.filter = run.filter.interruptible();
            let ran = run.run();
            // The kernel may drop an answer that it has taken.
            assert!(ran.output.ends_with("end: exit 5\n"), "{mode}: {}", ran.output);
        }
    }
}
