use exeunt_headers::rule::{self, Release};
use exeunt_headers::{Image, Target};

use super::super::{Forms, is_x86, numbers};
use super::{Outcome, compare, own_numbers, structs};

fn forms(release: Release) -> Forms {
    Forms { trees: vec![rule::release(release)], newest: rule::release(Release::Linux7_2), exact: true }
}

/// Headers that say exactly what the registry and `exeunt-abi` say.
fn headers(release: Release, target: Target) -> Image {
    let mut image = rule::release(release).images[&target].clone();
    let known = &rule::release(Release::Linux7_2).images[&target].constants;
    for number in numbers::of_abi(target) {
        // The registry knows since when they are there, and disagrees if they are not what it says.
        if !known.contains_key(&number.name) {
            image.constants.insert(number.name, number.value);
        }
    }
    image
}

#[test]
fn headers_that_say_what_the_registry_says_agree_on_every_target() {
    for release in Release::ALL {
        let forms = forms(release);
        for target in Target::ALL {
            let outcome = compare(&forms, target, &headers(release, target));
            assert_eq!(outcome.differences, [""; 0], "{release:?} {target}");
            assert!(
                outcome.structs >= 20 && outcome.fields > 90 && outcome.constants > 200,
                "{release:?} {target}"
            );
            assert!(outcome.own_constants > 200, "{}", outcome.own_constants);
        }
    }
}

#[test]
fn each_wrong_offset_is_found() {
    let release = Release::Linux7_2;
    let forms = forms(release);
    for target in [Target::X86_64, Target::I386] {
        let right = headers(release, target);
        for (name, layout) in &right.layouts {
            for (index, field) in layout.fields.iter().enumerate() {
                let mut wrong = right.clone();
                wrong.layouts.get_mut(name).unwrap().fields[index].offset += 1;
                let mut outcome = Outcome::default();
                structs(&mut outcome, &forms, target, &wrong);
                assert_eq!(outcome.differences.len(), 1, "{name}.{}", field.path);
                assert!(outcome.differences[0].starts_with(&format!("{name}.{}: is ", field.path)));
            }
        }
    }
}

#[test]
fn a_wrong_size_type_or_place_is_found_and_so_is_each_wrong_number() {
    let release = Release::Linux7_2;
    let forms = forms(release);
    let right = headers(release, Target::Aarch64);
    let differs = |wrong: &Image| !compare(&forms, Target::Aarch64, wrong).differences.is_empty();
    assert!(!differs(&right));
    let change: [fn(&mut exeunt_headers::Layout); 4] = [
        |layout| layout.size += 8,
        |layout| layout.place = Some(40),
        |layout| layout.fields[0].size = 1,
        |layout| layout.fields[0].type_name = "s32".into(),
    ];
    for change in change {
        let mut wrong = right.clone();
        change(wrong.layouts.get_mut("kvm_run.system_event").unwrap());
        assert!(differs(&wrong));
    }
    for name in right.constants.keys() {
        let mut wrong = right.clone();
        *wrong.constants.get_mut(name).unwrap() ^= 1;
        assert!(differs(&wrong), "{name}");
    }
}

#[test]
fn what_is_newer_than_the_headers_is_counted_and_what_they_lack_is_a_difference() {
    let mut old = headers(Release::Linux6_1, Target::X86_64);
    let outcome = compare(&forms(Release::Linux6_1), Target::X86_64, &old);
    assert!(outcome.newer.contains(&"kvm_run.snp_req_certs".to_string()));
    assert!(outcome.newer.contains(&"KVM_EXIT_TDX".to_string()));
    assert!(outcome.counts().contains(" not in these headers"), "{}", outcome.counts());

    old.layouts.remove("kvm_run.system_event");
    old.constants.remove("KVM_EXIT_HLT");
    let outcome = compare(&forms(Release::Linux6_1), Target::X86_64, &old);
    assert_eq!(outcome.differences.len(), 2, "{:?}", outcome.differences);
}

#[test]
fn a_field_or_number_that_the_registry_does_not_know_is_a_difference() {
    let mut headers = headers(Release::Linux7_2, Target::X86_64);
    let layout = headers.layouts.get_mut("kvm_vcpu_events").unwrap();
    let mut field = layout.fields[0].clone();
    field.path = "fresh".into();
    layout.fields.push(field);
    headers.constants.insert("KVM_EXIT_FRESH".into(), 99);
    let outcome = compare(&forms(Release::Linux7_2), Target::X86_64, &headers);
    let expected =
        ["kvm_vcpu_events.fresh: is not in the registry", "KVM_EXIT_FRESH (99) is not in the registry"];
    assert_eq!(outcome.differences, expected);
}

#[test]
fn each_number_of_exeunt_abi_that_the_headers_contradict_is_found() {
    for target in [Target::X86_64, Target::I386, Target::X32, Target::Aarch64] {
        let mut image = headers(Release::Linux7_2, target);
        let own = numbers::of_abi(target);
        assert!(own.len() > 250, "{}", own.len());
        for number in &own {
            let mut outcome = Outcome::default();
            *image.constants.get_mut(&number.name).unwrap() ^= 1;
            own_numbers(&mut outcome, &own, true, target, &image);
            *image.constants.get_mut(&number.name).unwrap() ^= 1;
            let is_named = |found: &&String| found.contains(&format!("exeunt-abi has {} = ", number.name));
            // Two of ours may stand for one of C.
            let same = own.iter().filter(|other| other.name == number.name).count();
            assert_eq!(outcome.differences.iter().filter(is_named).count(), same, "{}", number.name);
            assert_eq!(outcome.differences.len(), same, "{}", number.name);
        }
    }
}

#[test]
fn a_number_of_exeunt_abi_that_the_newest_headers_lack_is_misnamed() {
    let newest = forms(Release::Linux7_2);
    let older = forms(Release::Linux6_12);
    for target in Target::ALL {
        let mut lacking = headers(Release::Linux7_2, target);
        lacking.constants.remove("KVM_SEV_SNP_PAGE_TYPE_CPUID");
        let found = compare(&newest, target, &lacking).differences;
        assert_eq!(found.len(), usize::from(is_x86(target)), "{found:?}");
        lacking = headers(Release::Linux6_12, target);
        lacking.constants.remove("KVM_SEV_SNP_PAGE_TYPE_CPUID");
        let outcome = compare(&older, target, &lacking);
        assert!(outcome.differences.is_empty() && outcome.own_elsewhere > 0, "{:?}", outcome.differences);
    }
}

#[test]
fn a_member_of_a_family_that_exeunt_abi_does_not_know_is_a_difference_for_the_newest_headers() {
    for (release, expected) in [(Release::Linux7_2, 1), (Release::Linux6_12, 0)] {
        let mut headers = headers(release, Target::X86_64);
        headers.constants.insert("SEV_RET_FRESH".into(), 0x40);
        let found = compare(&forms(release), Target::X86_64, &headers).differences;
        assert_eq!(found.len(), expected, "{found:?}");
    }
}
