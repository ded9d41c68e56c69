//! How many system calls a conversion makes, and which calls `exeunt-linux` makes at all.
//!
//! The model counts actions. On the host `strace` writes down every system call of a child, which is this same program
//! with one test chosen: it plays scenes, and marks where each begins by asking for a file that is not there.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod actions;
mod documented;
mod providers;
mod scenes;
mod trace;

use exeunt_abi::kvm::ioctl::KVM_SET_MEMORY_ATTRIBUTES;
use exeunt_linux::print_skip;
use scenes::Scene;
use std::collections::BTreeSet;
use trace::Call;

/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
const PUNCH_HOLE: u64 = 3;

#[test]
fn a_conversion_makes_no_system_call_for_a_no_op_and_two_for_a_run() {
    let trace = match trace::of_child("scenes::plays_conversions") {
        Ok(trace) => trace,
        Err(reason) => return print_skip("system calls of a conversion", reason),
    };
    let attributes = Call::new("ioctl", Some(KVM_SET_MEMORY_ATTRIBUTES.0.into()));
    let hole = Call::new("fallocate", Some(PUNCH_HOLE));
    for scene in Scene::CONVERSIONS {
        let runs = match scene {
            Scene::OneRun | Scene::Back | Scene::AcrossSlots => 1,
            Scene::TwoRuns => 2,
            _ => 0,
        };
        let expected: Vec<_> = (0..runs).flat_map(|_| [attributes.clone(), hole.clone()]).collect();
        assert_eq!(trace.of_scene(scene.name()), expected, "{scene:?}");
    }
}

#[test]
fn two_threads_give_back_the_same_pages_without_a_wait_for_each_other() {
    let trace = match trace::of_child("scenes::plays_two_threads") {
        Ok(trace) => trace,
        Err(reason) => return print_skip("system calls of two threads", reason),
    };
    let calls = trace.of_scene(Scene::Overlap.name());
    assert!(calls.iter().all(|call| call.name() == "fallocate"), "{calls:?}");
    assert_eq!(calls.len(), 4 * scenes::OVERLAPS);
}

/// The calls of a child that nothing documents for a crate. `None` if they cannot be had, and the reason is printed.
fn undocumented(package: &str, test: &str, scene: Scene) -> Option<BTreeSet<Call>> {
    let calls = match trace::of_child(test) {
        Ok(trace) => trace.of_scene(scene.name()),
        Err(reason) => {
            print_skip(&format!("system calls of {package}"), reason);
            return None;
        }
    };
    if calls.is_empty() {
        print_skip(&format!("system calls of {package}"), "the child had nothing to make them on");
        return None;
    }
    let documented = documented::of_crate(package);
    Some(calls.into_iter().filter(|call| !documented.contains(call)).collect())
}

#[test]
fn every_system_call_on_the_device_is_documented() {
    let found = undocumented("exeunt-linux", "scenes::uses_the_device", Scene::Device);
    assert_eq!(found.unwrap_or_default(), BTreeSet::new());
}

#[test]
fn every_system_call_for_certificates_is_documented() {
    let found = undocumented("exeunt-certs", "providers::uses_certificates", Scene::Certificates);
    assert_eq!(found.unwrap_or_default(), BTreeSet::new());
}

#[test]
fn every_system_call_for_a_quote_is_documented() {
    let found = undocumented("exeunt-quote", "providers::uses_quotes", Scene::Quotes);
    assert_eq!(found.unwrap_or_default(), BTreeSet::new());
}
