use super::*;
use crate::rule;
use crate::tree::{Field, Image, Layout, Scope};
use Severity::{Break, Note};

/// A tree with one struct `s` of scalars on one target: name, offset, size.
fn tree(name: &str, target: Target, size: u64, fields: &[(&str, u64, u64)]) -> Tree {
    let fields = fields.iter().map(|(path, offset, size)| {
        let type_name = format!("u{}", size * 8);
        Field { path: (*path).to_string(), offset: *offset, size: *size, type_name, bits: None }
    });
    let layout = Layout { size, place: None, fields: fields.collect() };
    let mut image = Image::default();
    image.layouts.insert("s".into(), layout);
    Tree {
        name: name.into(),
        images: BTreeMap::from([(target, image)]),
        absent: Vec::new(),
        scope: Scope::Everything,
    }
}

/// The new fields, both sizes, and what is to be said.
type Case = (&'static [(&'static str, u64, u64)], [u64; 2], Severity, &'static str);

fn found(old: &[(&str, u64, u64)], new: &[(&str, u64, u64)], sizes: [u64; 2]) -> Vec<(Severity, String)> {
    let [was, now] = sizes;
    let (old, new) = (tree("old", Target::X86_64, was, old), tree("new", Target::X86_64, now, new));
    diff(&old, &new).into_iter().map(|finding| (finding.severity, finding.to_string())).collect()
}

fn texts(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (rule::dialect(old).unwrap(), rule::dialect(new).unwrap());
    let tell = |finding: Finding| {
        let arches: Vec<_> = finding.arches.iter().map(|target| target.name()).collect();
        format!("{:?} {} {}: {finding}", finding.severity, finding.subject, arches.join(","))
    };
    diff(&old, &new).into_iter().map(tell).collect()
}

#[test]
fn a_tree_does_not_differ_from_itself() {
    for name in rule::dialects() {
        assert_eq!(texts(name, name), [""; 0], "{name}");
    }
}

#[test]
fn each_kind_of_change_of_a_field_is_told_in_its_own_words() {
    let base = [("a", 0, 4), ("b", 8, 8)];
    let cases: [Case; 8] = [
        (&[("a", 0, 4), ("b", 16, 8)], [24, 24], Break, "`b` moves from 8 to 16"),
        (&[("a", 0, 2), ("b", 8, 8)], [24, 24], Break, "`a` at 0 changes its size from 4 to 2"),
        (&[("a", 0, 4)], [24, 24], Break, "`b` at 8, 8 bytes, is removed"),
        (
            &[("a", 0, 4), ("c", 8, 8)],
            [24, 24],
            Break,
            "`b` is removed and its 8 bytes at 8 re-used by `c`: code that names `b` no longer compiles, and binaries \
             read the new field",
        ),
        (
            &[("a", 0, 4), ("n", 4, 4), ("b", 8, 8)],
            [24, 24],
            Break,
            "new `n` at 4, 4 bytes, takes bytes that were compiler padding, which older kernels never write: reading it \
             from an older kernel gives garbage",
        ),
        (&[("a", 0, 4), ("b", 8, 8), ("u", 8, 4)], [24, 24], Note, "new `u` at 8 overlays `b`"),
        (&[("a", 0, 4), ("b", 8, 8), ("c", 24, 1)], [24, 32], Note, "new `c` at 24, 1 byte"),
        (&[("a", 0, 4), ("b", 8, 8)], [24, 32], Break, "sizeof changes from 24 to 32"),
    ];
    for (new, sizes, severity, text) in cases {
        let found = found(&base, new, sizes);
        assert!(found.contains(&(severity, text.to_string())), "{text}: {found:?}");
    }
}

#[test]
fn reserved_bytes_may_be_taken_and_may_shrink() {
    let found =
        found(&[("a", 0, 4), ("reserved", 4, 12)], &[("a", 0, 4), ("b", 4, 4), ("reserved", 8, 8)], [16, 16]);
    assert_eq!(found, [(Note, "new `b` at 4, 4 bytes, takes from `reserved`".to_string())]);
}

#[test]
fn the_flags_of_a_system_event_move_for_i386_and_collide_with_ndata() {
    for new in ["sev-term-v4.1", "sev-term-alternative", "linux-6.1", "linux-7.2"] {
        let texts = texts("linux-5.17", new);
        let moves = "Break kvm_run.system_event i386: in linux-5.17, `flags` is at 4 (36 in kvm_run) for an i386 process \
                     and at 8 (40 in kvm_run) for its 64-bit kernel";
        let collides = format!(
            "Break kvm_run.system_event i386: an i386 process built for linux-5.17 has `flags` at 4 (36 in kvm_run), \
             where it collides with `ndata` and `data` of a 64-bit kernel of {new}"
        );
        for text in [moves, &collides] {
            assert!(texts.iter().any(|told| told == text), "{text}: {texts:#?}");
        }
        let padding =
            |told: &String| told.starts_with("Note") && told.contains("KVM_CAP_SYSTEM_EVENT_DATA (215)");
        assert!(texts.iter().any(padding), "{texts:#?}");
    }
}

#[test]
fn bit_31_of_the_type_breaks_whoever_compares_all_of_it() {
    let told = |new: &str| {
        let texts = texts("linux-5.17", new);
        texts.into_iter().find(|told| told.starts_with("Break kvm_run.system_event.type"))
    };
    let text = told("sev-term-v4.1").unwrap();
    for part in ["bit-field", "NDATA_VALID is bit 31", "QEMU kvm_cpu_exec", "crosvm", "kvmtool"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(told("sev-term-alternative"), None);
    assert_eq!(told("linux-7.2"), None);
}

#[test]
fn removing_flags_breaks_the_build_of_every_architecture() {
    let texts = texts("linux-5.17", "sev-term-v4.1");
    let breaks = texts.iter().filter(|told| told.contains("code that names `flags` no longer compiles"));
    assert_eq!(breaks.count(), 2, "i386 and the others: {texts:#?}");
}

#[test]
fn the_documentation_and_the_header_of_one_series_disagree() {
    let texts = texts("sev-term-v4.1-doc", "sev-term-v4.1");
    let all = "x86_64,i386,x32,aarch64,arm,riscv64";
    let expected = format!(
        "Break kvm_run.system_event {all}: `data` moves from 16 (48 in kvm_run) to 8 (40 in kvm_run)"
    );
    assert_eq!(texts.first(), Some(&expected));
}

#[test]
fn numbers_that_change_or_change_hands_are_breaks() {
    let texts = texts("vmgexit-v10", "linux-7.2");
    for text in [
        "KVM_EXIT_MEMORY_FAULT changes from 38 to 39",
        "exit 38 is claimed twice: it was `KVM_EXIT_MEMORY_FAULT` and is `KVM_EXIT_LOONGARCH_IOCSR`",
        "KVM_EXIT_VMGEXIT (50) is removed",
    ] {
        assert!(
            texts.iter().any(|told| told.starts_with("Break exit") && told.ends_with(text)),
            "{text}: {texts:#?}"
        );
    }
}

#[test]
fn a_new_struct_with_holes_is_told_to_pad() {
    let new = tree("new", Target::I386, 12, &[("type", 0, 4), ("flags", 4, 8)]);
    let mut new64 = tree("new", Target::X86_64, 16, &[("type", 0, 4), ("flags", 8, 8)]);
    new64.images.extend(new.images);
    let mut old = new64.clone();
    old.images.values_mut().for_each(|image| image.layouts.clear());
    let found: Vec<_> = diff(&old, &new64).iter().map(|found| (found.severity, found.to_string())).collect();
    let hole = "4 bytes of compiler padding at 4, before `flags`: pad explicitly";
    let moved = "in new, `flags` is at 4 for an i386 process and at 8 for its 64-bit kernel";
    assert!(found.contains(&(Note, hole.into())), "{found:?}");
    assert!(found.contains(&(Break, moved.into())), "{found:?}");
}

#[test]
fn what_one_tree_cannot_know_is_no_difference() {
    let mut headers = rule::dialect("linux-7.2").unwrap();
    headers.scope = Scope::Everything;
    for image in headers.images.values_mut() {
        image.layouts.insert("kvm_s390_skeys".into(), Layout { size: 4, place: None, fields: Vec::new() });
        image.constants.insert("KVM_S390_SKEYS_MAX".into(), 1);
    }
    assert!(diff(&rule::dialect("linux-7.2").unwrap(), &headers).is_empty());
}
