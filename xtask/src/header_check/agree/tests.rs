use exeunt_headers::rule::{self, Release};
use exeunt_headers::{Image, Target};

use super::super::Forms;
use super::compare;

fn forms(release: Release) -> Forms {
    Forms { trees: vec![rule::release(release)], newest: rule::release(Release::Linux7_2), exact: true }
}

/// Headers that say exactly what the registry says.
fn headers(release: Release, target: Target) -> Image {
    rule::release(release).images[&target].clone()
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
            assert!(outcome.own_constants > 40, "{}", outcome.own_constants);
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
                let outcome = compare(&forms, target, &wrong);
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
        *wrong.constants.get_mut(name).unwrap() += 1;
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
    old.constants.remove("KVM_EXIT_IO");
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
