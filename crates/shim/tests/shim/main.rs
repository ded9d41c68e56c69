//! The library in small VMMs written in C, which know nothing of it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod program;

use exeunt_abi::kvm::run::ExitReason;
use exeunt_interpose::plan::{Plan, Stage};
use exeunt_interpose::record::{File, Memory, What};
use program::Program;

fn scripted(scene: &str) -> Plan {
    Plan::new(Stage::Scripted).with_scene(scene)
}

#[test]
fn port_io_goes_both_ways_and_only_the_answers_to_other_exits_are_told_in_full() {
    let Some(program) = Program::compile("plain") else { return };
    let ran = program.run(&scripted("processor-that-starts"));
    assert!(ran.output.ends_with("halted\n"), "{}{}", ran.output, ran.errors);
    assert!(matches!(ran.records[0], What::Opened { file: File::System, .. }));
    let runs = |what: &&What| matches!(what, What::Run(_));
    assert!(ran.records.iter().filter(runs).count() >= 2);
}

#[test]
fn copies_reuse_and_bad_pointers_are_as_with_the_kernel() {
    let Some(program) = Program::compile("descriptors") else { return };
    let ran = program.run(&Plan::new(Stage::Scripted));
    assert_eq!((ran.output.as_str(), ran.errors.as_str()), ("done\n", ""));
}

#[test]
fn a_child_has_no_vm_of_its_parents_and_can_make_its_own() {
    let Some(program) = Program::compile("children") else { return };
    let ran = program.run(&Plan::new(Stage::Scripted));
    assert_eq!((ran.output.as_str(), ran.errors.as_str()), ("done\n", ""));
    assert_eq!(ran.processes, 2);
}

#[test]
fn signals_end_the_call_and_faults_stay_the_programs_own() {
    let Some(program) = Program::compile("signals") else { return };
    // A guest that halts, up to where its VMM is not let in any more, and one that runs for ever.
    let halts = Plan { max_exits: 10, ..Plan::new(Stage::Scripted) };
    for plan in [halts, scripted("endless-spin")] {
        let ran = program.run(&plan);
        assert_eq!((ran.output.as_str(), ran.errors.as_str()), ("done\n", ""), "{plan}");
    }
}

#[test]
fn no_system_call_of_the_librarys_own_meets_a_strict_filter() {
    let Some(program) = Program::compile("filtered") else { return };
    let ran = program.run(&scripted("page-that-changes"));
    assert_eq!((ran.output.as_str(), ran.errors.as_str()), ("done\n", ""));
    let calls = |what: &&What| matches!(what, What::Run(run) if run.after.reason() == ExitReason::HYPERCALL);
    assert!(ran.records.iter().filter(calls).count() >= 2);
    assert!(ran.records.contains(&What::SceneOver));
}

#[test]
fn memory_that_is_given_back_is_told_with_where_it_was() {
    let Some(program) = Program::compile("memory") else { return };
    let ran = program.run(&Plan::new(Stage::Scripted));
    assert_eq!(ran.errors, "");
    let addresses: Vec<u64> = ran
        .output
        .split_whitespace()
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap())
        .collect();
    let discards: Vec<_> = ran
        .records
        .iter()
        .filter_map(|what| match what {
            What::Discard { memory, result } => Some((*memory, result.is_ok())),
            _ => None,
        })
        .collect();
    let shared = |index: usize| Memory::Shared { uaddr: addresses[index], bytes: 0x1000 };
    let private = |offset_bytes| Memory::Private { file: File::Gmem(0, 0), offset_bytes, bytes: 0x2000 };
    assert_eq!(
        discards,
        [(shared(0), true), (shared(1), true), (private(0x1000), true), (private(1), false)]
    );
}

#[test]
fn an_ordinary_user_needs_no_device() {
    let Some(program) = Program::compile("plain") else { return };
    let Some(ran) = program.run_as_nobody(&scripted("processor-that-starts")) else { return };
    assert!(ran.output.ends_with("halted\n"), "{}{}", ran.output, ran.errors);
}

#[test]
fn without_a_plan_nothing_is_changed() {
    let Some(program) = Program::compile("plain") else { return };
    let ran = program.run_without_plan();
    let expected = if std::path::Path::new("/dev/kvm").exists() { "exit" } else { "kvm >= 0" };
    // A real VM without a program ends in some way or other, and one that is not there does not begin.
    assert!(ran.output.contains(expected) || ran.errors.contains("open") || ran.errors.contains("kvm"));
}

#[test]
fn a_real_kernels_calls_are_told_too() {
    let Some(program) = Program::compile("plain") else { return };
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("skipped: there is no /dev/kvm");
        return;
    }
    let ran = program.run(&Plan::new(Stage::Observe));
    let vcpus = ran
        .records
        .iter()
        .filter(|what| matches!(what, What::Ioctl { made: Some(File::Vcpu(0, 0)), result: Ok(_), .. }));
    assert_eq!(vcpus.count(), 1, "{}{}", ran.output, ran.errors);
    assert!(ran.records.iter().any(|what| matches!(what, What::Run(_))));
}

#[test]
fn a_guest_that_writes_to_a_port_for_ever_is_counted_and_not_told_exit_by_exit() {
    let Some(program) = Program::compile("rate") else { return };
    let ran = program.run(&scripted("endless-port-io"));
    assert!(ran.output.starts_with("100000 of 100000 exits were port I/O"), "{}{}", ran.output, ran.errors);
    let counted = |what: &What| matches!(what, What::PlainRuns { count: 99_998..100_000, .. });
    assert!(ran.records.iter().any(counted), "{} records", ran.records.len());
    print!("{}", ran.output);
}
