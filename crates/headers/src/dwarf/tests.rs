use super::*;
use crate::compile;

const SOURCE: &str = "
struct kvm_list { struct kvm_list *next; unsigned a:3, b:29; union { char c[2][3]; long d; }; };
enum kvm_kind { KVM_KIND = 3 };
struct kvm_list kvm_list;
enum kvm_kind kvm_kind;
const unsigned long long exeunt_KVM_X = 5;
";

/// An object file of each target that has a compiler here.
fn objects() -> Vec<(Target, Vec<u8>)> {
    let found = Target::ALL.into_iter().filter_map(|target| Some((target, compile::find(target).ok()?)));
    let arguments = ["-c", "-g", "-nostdinc"].map(Into::into);
    found.map(|(target, compiler)| (target, compiler.compile(SOURCE, &arguments).unwrap().unwrap())).collect()
}

#[test]
fn an_object_file_is_read_for_its_own_target_only() {
    for (target, object) in objects() {
        for other in Target::ALL {
            assert_eq!(is_for(&object, other), other == target, "{target} as {other}");
        }
        let found = read(&object).unwrap();
        let word = target.word_bytes();
        let list = &found.layouts["kvm_list"];
        assert_eq!(list.field("next").map(|next| next.size), Some(word), "{target}");
        assert_eq!(
            list.field("c").map(|c| (c.offset, c.size)),
            Some((if word == 8 { 16 } else { 8 }, 6)),
            "{target}"
        );
        assert_eq!(found.constants["KVM_KIND"], 3);
        assert_eq!(symbols(&object, "exeunt_").unwrap()["KVM_X"], 5);
    }
}

#[test]
fn bytes_that_are_no_object_file_are_an_error() {
    for bytes in [&b""[..], b"\x7fELF", &[0xff; 4096]] {
        assert!(read(bytes).is_err() && symbols(bytes, "").is_err());
        assert!(!Target::ALL.into_iter().any(|target| is_for(bytes, target)));
    }
}

/// What a broken compiler or linker could hand out: it is read or refused, and it always ends.
#[test]
fn a_damaged_object_file_is_read_or_refused() {
    let mut state: u64 = 1;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for (_, object) in objects() {
        for cut in 0..object.len().min(512) {
            let _ = read(&object[..cut]);
        }
        for _ in 0..3000 {
            let mut damaged = object.clone();
            for _ in 0..=draw(8) {
                let at = draw(damaged.len());
                damaged[at] = u8::try_from(draw(256)).unwrap();
            }
            let _ = read(&damaged);
            let _ = symbols(&damaged, "exeunt_");
        }
    }
}
