//! The model held against the host's `/dev/kvm`: the same scripts of ioctls, guest acts and entries, byte for byte.
//!
//! Where there is no `/dev/kvm` each test prints why it skips.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use exeunt_rig::compare::{Range, hold};
use exeunt_rig::flaw::{Flaw, Flawed};
use exeunt_rig::half::{OnKvm, OnModel};
use exeunt_rig::probe::probe;

/// Scripts in each test.
const SCRIPTS: u64 = 1000;

#[test]
fn the_model_agrees_with_the_kernel_on_every_script() {
    let (kvm, features) = match probe() {
        Ok(probed) => probed,
        Err(reason) => return exeunt_linux::print_skip("scripts on /dev/kvm", reason),
    };
    let range = Range { seed: 1, first: 0, scripts: SCRIPTS };
    let summary = hold(&OnModel, &OnKvm::new(kvm), features, range, &mut |_| ());
    assert_eq!(summary.different, 0, "{:#?}", summary.differences);
    println!("{SCRIPTS} scripts and {} entries agree with {} on /dev/kvm", summary.entries, features.dialect);
}

#[test]
fn a_bug_on_purpose_is_caught_by_the_kernel() {
    let (kvm, features) = match probe() {
        Ok(probed) => probed,
        Err(reason) => return exeunt_linux::print_skip("a bug on /dev/kvm", reason),
    };
    let kernel = OnKvm::new(kvm);
    for flaw in [Flaw::ClearedUnion, Flaw::LostTripleFault, Flaw::FreshReason, Flaw::ShortRax] {
        let model = Flawed { half: OnModel, flaw: Some(flaw) };
        let range = Range { seed: 5, first: 0, scripts: 200 };
        let summary = hold(&model, &kernel, features, range, &mut |_| ());
        assert!(summary.different > 0, "{} passed", flaw.name());
    }
}

#[test]
fn the_effects_do_to_a_real_guest_what_they_say() {
    let (kvm, _) = match probe() {
        Ok(probed) => probed,
        Err(reason) => return exeunt_linux::print_skip("effects on /dev/kvm", reason),
    };
    println!("{}", exeunt_rig::effects::check(&kvm).unwrap());
}
