//! Small header trees, written here, with every compiler of this machine.

use exeunt_headers::compile::{self, CompileError, find};
use exeunt_headers::{Target, Tree, diff};
use std::fs;
use std::path::{Path, PathBuf};

/// A tree of headers, gone when the test is over.
struct Headers(PathBuf);

/// An `asm/kvm.h` that says to be every architecture's.
const ASM: &str = "\
#define _ASM_X86_KVM_H
#define __ARM_KVM_H__
#define __LINUX_KVM_RISCV_H
";

const TYPES: &str = "\
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned long long __u64;
#include <asm/kvm.h>
";

impl Headers {
    fn new(name: &str, kvm: &str) -> Self {
        let root = std::env::temp_dir().join(format!("exeunt-test-{name}-{}", std::process::id()));
        for folder in ["linux", "asm"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("asm/kvm.h"), ASM).unwrap();
        fs::write(root.join("linux/kvm.h"), format!("{TYPES}{kvm}")).unwrap();
        Self(root)
    }

    fn read(&self) -> Tree {
        compile::read(&self.0, &Target::ALL).unwrap()
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // What cannot be removed is left for the system to clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Nothing can be compiled here, so there is nothing to test.
fn is_skipped() -> bool {
    let skipped = Target::ALL.into_iter().all(|target| find(target).is_err());
    if skipped {
        println!("skipped: no C compiler is found for any target");
    }
    skipped
}

const EVENT: &str = "
struct kvm_run {
    __u32 exit_reason;
    union {
        struct { __u32 type; __u64 flags; } system_event;
        __u64 s390_reset_flags;
        char padding[256];
    };
};
";

#[test]
fn the_compiler_says_where_the_members_of_the_exit_union_lie() {
    if is_skipped() {
        return;
    }
    let headers = Headers::new("union", EVENT);
    let tree = headers.read();
    assert_eq!(tree.images.len() + tree.absent.len(), Target::ALL.len());
    for (target, image) in &tree.images {
        let event = &image.layouts["kvm_run.system_event"];
        let narrow = *target == Target::I386;
        assert_eq!(event.place, Some(if narrow { 4 } else { 8 }), "{target}");
        let flags = event.field("flags").unwrap();
        assert_eq!((flags.offset, flags.size), (if narrow { 4 } else { 8 }, 8), "{target}");
        assert_eq!(flags.type_name, "u64");
        let run = &image.layouts["kvm_run"];
        let paths: Vec<&str> = run.fields.iter().map(|field| field.path.as_str()).collect();
        assert_eq!(paths, ["exit_reason", "s390_reset_flags", "padding"]);
    }
}

#[test]
fn arrays_bit_fields_flexible_arrays_and_pointers_are_read() {
    if is_skipped() {
        return;
    }
    let kvm = "
struct kvm_inner { __u8 a; __u8 b[3][2]; };
struct kvm_all {
    __u32 low:4, high:28;
    __u64 wide:40;
    struct kvm_inner inner;
    struct kvm_inner many[2];
    void *pointer;
    unsigned long word;
    enum kvm_kind { KVM_KIND_A = 7, KVM_KIND_B = -1 } kind;
    __u32 nent;
    __u64 entries[];
} __attribute__((packed));
";
    for (target, image) in &Headers::new("shapes", kvm).read().images {
        let all = &image.layouts["kvm_all"];
        let bits = |path: &str| {
            let field = all.field(path).unwrap();
            let bits = field.bits.unwrap();
            (field.offset, field.size, bits.low, bits.width)
        };
        assert_eq!((bits("low"), bits("high"), bits("wide")), ((0, 1, 0, 4), (0, 4, 4, 28), (4, 5, 0, 40)));
        let place = |path: &str| {
            let field = all.field(path).unwrap_or_else(|| panic!("{path} on {target}: {all:?}"));
            (field.offset, field.size, field.type_name.as_str())
        };
        assert_eq!(place("inner.a"), (9, 1, "u8"));
        assert_eq!(place("inner.b"), (10, 6, "u8[6]"));
        assert_eq!(place("many"), (16, 14, "struct kvm_inner[2]"));
        let word = target.word_bytes();
        assert_eq!(place("pointer"), (30, word, "pointer"));
        assert_eq!(place("word"), (30 + word, word, "unsigned long"));
        assert_eq!(place("kind"), (30 + 2 * word, 4, "enum kvm_kind"));
        assert_eq!(place("entries"), (38 + 2 * word, 0, "u64[]"));
        assert_eq!(image.constants["KVM_KIND_A"], 7);
        assert_eq!(image.constants["KVM_KIND_B"], u64::MAX);
    }
}

#[test]
fn macros_are_evaluated_by_the_compiler_and_what_is_no_constant_is_named() {
    if is_skipped() {
        return;
    }
    let kvm = "
#define KVM_EXIT_PLAIN 3
#define KVM_ZERO 0
#define KVM_SHIFTED (1ULL << 35)
#define KVM_NEGATIVE (-2)
#define KVM_SUM (KVM_EXIT_PLAIN + KVM_SHIFTED)
#define KVM_OF_SIZE ((sizeof(unsigned long) << 16) | 0xba)
#define KVM_MISSING (sizeof(struct kvm_missing))
#define KVM_MISSING_TOO (KVM_NOWHERE | 1)
#define KVM_MISSING_AS_WELL (KVM_NOWHERE | 2)
#define KVM_TEXT \"text\"
#define KVM_TYPE struct kvm_run
#define KVM_OPEN (
#define KVM_EMPTY
#define KVM_CALLED(x) (x)
#define OTHER 5
";
    let tree = Headers::new("macros", kvm).read();
    for (target, image) in &tree.images {
        let expected = [
            ("KVM_EXIT_PLAIN", 3),
            ("KVM_NEGATIVE", u64::MAX - 1),
            ("KVM_OF_SIZE", target.word_bytes() << 16 | 0xba),
            ("KVM_SHIFTED", 1 << 35),
            ("KVM_SUM", 3 + (1 << 35)),
            ("KVM_ZERO", 0),
        ];
        let found: Vec<(&str, u64)> =
            image.constants.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        // The address of a text is no number, though some compilers take it for one on some targets.
        let found: Vec<_> = found.into_iter().filter(|(name, _)| *name != "KVM_TEXT").collect();
        assert_eq!(found, expected, "{target}");
        for name in ["KVM_MISSING", "KVM_MISSING_TOO", "KVM_MISSING_AS_WELL", "KVM_TYPE", "KVM_OPEN"] {
            assert!(image.not_constant.contains(&name.to_string()), "{name} on {target}");
        }
    }
}

#[test]
fn headers_that_are_not_there_or_do_not_compile_say_so_with_file_and_line() {
    if is_skipped() {
        return;
    }
    let missing = compile::read(Path::new("does/not/exist"), &Target::ALL).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read the headers in does/not/exist: "), "{missing}");
    let empty = Headers::new("empty", "");
    let not_headers = compile::read(&empty.0.join("asm"), &Target::ALL).unwrap_err();
    assert!(not_headers.to_string().contains("has no linux/kvm.h"), "{not_headers}");

    let broken = Headers::new("broken", "struct kvm_run { __u32 a; __u99 b; };\n");
    let error = compile::read(&broken.0, &Target::ALL).unwrap_err();
    assert!(matches!(error, CompileError::Refused { .. }), "{error}");
    let line = TYPES.lines().count() + 1;
    assert!(error.to_string().contains(&format!("linux/kvm.h:{line}:")), "{error}");
    assert!(error.to_string().contains("__u99"), "{error}");

    let bare = Headers::new("bare", "");
    fs::write(bare.0.join("linux/kvm.h"), "#include <linux/types.h>\n").unwrap();
    let error = compile::read(&bare.0, &Target::ALL).unwrap_err().to_string();
    assert!(error.contains("linux/kvm.h:1:") && error.contains("linux/types.h"), "{error}");
}

#[test]
fn another_architectures_asm_is_not_taken_for_the_targets() {
    let headers = Headers::new("foreign", EVENT);
    fs::write(headers.0.join("asm/kvm.h"), "#define __LINUX_KVM_MIPS_H\n").unwrap();
    let error = compile::read(&headers.0, &Target::ALL).unwrap_err();
    let CompileError::NoTarget { absent, .. } = error else { panic!("{error}") };
    assert_eq!(absent.len(), Target::ALL.len());
    fs::remove_file(headers.0.join("asm/kvm.h")).unwrap();
    let error = compile::read(&headers.0, &Target::ALL).unwrap_err().to_string();
    assert!(error.contains("x86_64: no asm/kvm.h for it in these headers"), "{error}");
}

#[test]
fn two_header_trees_differ_as_two_dialects_do() {
    if find(Target::X86_64).is_err() || find(Target::I386).is_err() {
        println!("skipped: no compiler for x86-64 and i386");
        return;
    }
    let old = Headers::new("old", EVENT);
    let text = EVENT.replace("__u64 flags;", "__u32 ndata; union { __u64 flags; __u64 data[16]; };");
    let new = Headers::new("new", &text);
    let findings = diff::diff(&old.read(), &new.read());
    let i386 = findings.iter().filter(|finding| finding.arches == [Target::I386]);
    let texts: Vec<String> = i386.map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains("collides with `ndata` and `data`")), "{texts:#?}");
}
