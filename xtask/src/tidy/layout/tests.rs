use super::super::tests::{fails_at, found, passes};
use super::check;

const PATH: &str = "crates/abi/src/kvm/run/memory_fault.rs";

const GOOD: &str = "
/// An access that KVM could not resolve by itself.
///
/// Layout: Linux `include/uapi/linux/kvm.h`.
#[repr(C)]
pub struct MemoryFault {
    pub flags: u64,
    pub gpa: u64,
}
const _: () = assert!(size_of::<MemoryFault>() == 16 && core::mem::offset_of!(MemoryFault, gpa) == 8);
";

#[test]
fn a_struct_with_source_size_and_offset_passes() {
    passes(check, &[(PATH, GOOD)]);
    let block =
        GOOD.replace("assert!(", "{ assert!(").replace(" && ", "); assert!(").replace("== 8);", "== 8); };");
    passes(check, &[(PATH, &block)]);
}

#[test]
fn a_missing_layout_line_fails() {
    fails_at(check, &[(PATH, &GOOD.replace("Layout: Linux", "See Linux"))], &[&format!("{PATH}:6")]);
    let empty = GOOD.replace("Layout: Linux `include/uapi/linux/kvm.h`.", "Layout:");
    fails_at(check, &[(PATH, &empty)], &[&format!("{PATH}:6")]);
}

#[test]
fn a_missing_assert_of_size_or_offset_fails() {
    let none = GOOD.lines().filter(|line| !line.starts_with("const")).collect::<Vec<_>>().join("\n");
    assert_eq!(found(check, &[(PATH, &none)]).len(), 2);
    fails_at(
        check,
        &[(PATH, &GOOD.replace("size_of::<MemoryFault>", "size_of::<Other>"))],
        &[&format!("{PATH}:6")],
    );
    fails_at(
        check,
        &[(PATH, &GOOD.replace("offset_of!(MemoryFault,", "offset_of!(Other,"))],
        &[&format!("{PATH}:6")],
    );
}

#[test]
fn an_assert_that_is_not_evaluated_at_build_time_does_not_count() {
    let fails = GOOD.replace("const _: () = ", "fn never() { ").replace("== 8);", "== 8); }");
    assert_eq!(found(check, &[(PATH, &fails)]).len(), 2);
}

#[test]
fn one_field_and_unions_need_no_offset() {
    let one = GOOD
        .replace("    pub gpa: u64,\n", "")
        .replace(" && core::mem::offset_of!(MemoryFault, gpa) == 8", "");
    passes(check, &[(PATH, &one)]);
    let both = GOOD.replace(" && core::mem::offset_of!(MemoryFault, gpa) == 8", "");
    passes(check, &[(PATH, &both.replace("struct", "union"))]);
    fails_at(check, &[(PATH, &both.replace("repr(C)", "repr(C, packed)"))], &[&format!("{PATH}:6")]);
}

#[test]
fn other_structs_other_crates_and_tests_are_free() {
    let bare = "#[repr(C)]\nstruct Bare { a: u8, b: u8 }\n";
    fails_at(check, &[(PATH, bare)], &[&format!("{PATH}:2"), &format!("{PATH}:2"), &format!("{PATH}:2")]);
    passes(check, &[(PATH, "struct Free { a: u8 }\n#[repr(u8)]\nenum E { A }\n")]);
    passes(check, &[("crates/linux/src/a_unsafe.rs", bare)]);
    passes(check, &[(PATH, &format!("#[cfg(test)]\nmod tests {{\n{bare}}}\n"))]);
}
