//! `exeunt abi`.

use super::{Folder, stdout};
use exeunt_headers::Target;
use exeunt_headers::compile::find;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};

fn exeunt(arguments: &[&str]) -> Output {
    super::exeunt(&[&["abi"], arguments].concat())
}

/// What is printed, with the status that it must come with.
fn printed(status: i32, arguments: &[&str]) -> String {
    let output = exeunt(arguments);
    let text = stdout(&output);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}{errors}");
    text
}

fn mistake(arguments: &[&str]) -> String {
    super::mistake(arguments, &exeunt(arguments))
}

/// A tree of headers. Its `asm/kvm.h` says to be every architecture's.
fn headers(name: &str, kvm: &str) -> Folder {
    let folder = Folder::new(&format!("abi-{name}"));
    folder.file("asm/kvm.h", "#define _ASM_X86_KVM_H\n#define __ARM_KVM_H__\n#define __LINUX_KVM_RISCV_H\n");
    folder.file("linux/kvm.h", format!("#include <asm/kvm.h>\n{kvm}"));
    folder
}

/// Nothing can be compiled here, so there is nothing to test.
fn is_skipped() -> bool {
    let skipped = Target::ALL.into_iter().all(|target| find(target).is_err());
    if skipped {
        println!("skipped: no C compiler is found for any target");
    }
    skipped
}

const OLD: &str = "
#define KVM_EXIT_SYSTEM_EVENT 24
#define KVM_EXIT_MEMORY_FAULT 38
struct kvm_run { union { struct { unsigned type; unsigned long long flags; } system_event; char padding[256]; }; };
";

const NEW: &str = "
#define KVM_EXIT_SYSTEM_EVENT 24
#define KVM_EXIT_LOONGARCH_IOCSR 38
#define KVM_EXIT_MEMORY_FAULT 39
#define KVM_SYSTEM_EVENT_NDATA_VALID (1u << 31)
struct kvm_run {
    union {
        struct { unsigned type; unsigned ndata; unsigned long long data[16]; } system_event;
        char padding[256];
    };
};
";

#[test]
fn the_flags_of_linux_5_17_are_marked_as_different_for_i386() {
    let text = printed(0, &["layout", "system_event", "--dialect", "linux-5.17"]);
    assert_eq!(
        text,
        "kvm_run.system_event of linux-5.17, at 32 in kvm_run
   field   type  x86_64  i386  x32  aarch64  arm  riscv64
   type    u32   0/4     0/4   0/4  0/4      0/4  0/4
*  flags   u64   8/8     4/8   8/8  8/8      8/8  8/8
*  sizeof        16      12    16   16       16   16
"
    );
}

#[test]
fn a_layout_shows_the_chosen_architectures_and_dialects() {
    let arguments =
        ["layout", "struct kvm_vcpu_events", "--arch", "i386,x86_64", "--dialect", "linux-5.17,linux-7.2"];
    let text = printed(0, &arguments);
    assert_eq!(text.matches("kvm_vcpu_events of ").count(), 2);
    assert_eq!(text.matches("triple_fault.pending").count(), 1, "{text}");
    assert!(!text.contains("riscv64"));
    let json = printed(0, &["layout", "tdx", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["struct"], "kvm_run.tdx");
    assert_eq!(json[0]["layouts"]["i386"]["place"], 32);
    let fields = json[0]["layouts"]["i386"]["fields"].as_array().unwrap();
    assert!(
        fields.iter().any(|field| field["path"] == "get_quote.gpa" && field["offset"] == 24),
        "{fields:?}"
    );
    let bits = printed(0, &["layout", "sev_user_data_snp_status", "--arch", "x86_64"]);
    assert!(bits.contains("8/bit 2+1"), "{bits}");
}

#[test]
fn the_list_names_every_struct_and_each_of_them_can_be_shown() {
    let list = printed(0, &["layout", "--list"]);
    assert!(list.lines().count() > 60, "{list}");
    for name in list.lines() {
        assert!(printed(0, &["layout", name]).starts_with(name), "{name}");
    }
    let json: Value = serde_json::from_str(&printed(0, &["layout", "--list", "--format", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), list.lines().count());
}

#[test]
fn the_proposal_of_april_2022_breaks_i386_and_strict_matchers() {
    let text = printed(1, &["diff", "linux-5.17", "sev-term-v4.1"]);
    for part in [
        "`flags` is at 4 (36 in kvm_run) for an i386 process and at 8 (40 in kvm_run) for its 64-bit kernel",
        "where it collides with `ndata` and `data` of a 64-bit kernel of sev-term-v4.1",
        "code that names `flags` no longer compiles",
        "the scalar becomes a bit-field: KVM_SYSTEM_EVENT_NDATA_VALID is bit 31",
        "QEMU kvm_cpu_exec(): switch (run->system_event.type); crosvm; kvmtool",
        "linux-5.17 -> sev-term-v4.1 on x86_64, i386, x32, aarch64, arm, riscv64: 5 breaks",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn no_break_is_status_0_and_additions_are_shown_when_asked_for() {
    let text = printed(0, &["diff", "linux-6.1", "linux-6.1"]);
    assert!(text.ends_with(": 0 breaks and 0 notes\n"), "{text}");
    let arguments = ["diff", "linux-5.17", "shutdown-flag-v4"];
    let few = printed(0, &arguments);
    assert!(few.contains("1 note, of which 1 addition (--all)"), "{few}");
    let all = printed(0, &["diff", "linux-5.17", "shutdown-flag-v4", "--all"]);
    assert!(all.contains("KVM_VCPUEVENT_SHUTDOWN (32) is added"), "{all}");
}

#[test]
fn a_diff_in_json_has_kind_severity_architectures_and_the_sentence() {
    let json: Value =
        serde_json::from_str(&printed(1, &["diff", "vmgexit-v10", "linux-7.2", "--format", "json"])).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let changed = findings.iter().find(|finding| finding["kind"] == "number-changed").unwrap();
    assert_eq!(changed["severity"], "break");
    assert_eq!(changed["name"], "KVM_EXIT_MEMORY_FAULT");
    assert_eq!(changed["arches"].as_array().unwrap().len(), 6);
    assert_eq!(changed["text"], "KVM_EXIT_MEMORY_FAULT changes from 38 to 39");
    let breaks = findings.iter().filter(|finding| finding["severity"] == "break").count();
    assert_eq!(json["breaks"], breaks);
}

#[test]
fn two_header_trees_are_compiled_and_compared() {
    if is_skipped() {
        return;
    }
    let (old, new) = (headers("old", OLD), headers("new", NEW));
    let text = printed(1, &["diff", "--headers", old.path(), "--headers", new.path()]);
    for part in [
        "KVM_EXIT_MEMORY_FAULT changes from 38 to 39",
        "exit 38 is claimed twice: it was `KVM_EXIT_MEMORY_FAULT` and is `KVM_EXIT_LOONGARCH_IOCSR`",
        "the scalar becomes a bit-field",
        "`flags` is removed",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // The same by position, and the other way round.
    assert_eq!(text, printed(1, &["diff", old.path(), new.path()]));
    assert!(printed(1, &["diff", new.path(), old.path()]).contains("`ndata` is removed"));
    assert!(printed(0, &["diff", old.path(), old.path()]).contains("0 breaks and 0 notes"));
    // What no compiler was found for is said and counted.
    let unseen = text.lines().filter(|line| line.starts_with("not looked at: ")).count();
    assert_eq!(unseen > 0, text.contains(&format!("; {unseen} architecture")), "{text}");
}

#[test]
fn a_release_is_compared_with_headers() {
    if is_skipped() {
        return;
    }
    let headers = headers("release", NEW);
    let text = printed(1, &["diff", "linux-5.17", "--headers", headers.path()]);
    assert!(text.contains("`flags` is removed"), "{text}");
}

#[test]
fn numbers_claimed_twice_are_status_1_and_none_is_status_0() {
    if is_skipped() {
        return;
    }
    let text = printed(1, &["collide", "vmgexit-v10", "coco-v1", "linux-7.2"]);
    assert_eq!(
        text,
        "exit 38: KVM_EXIT_MEMORY_FAULT in vmgexit-v10, KVM_EXIT_LOONGARCH_IOCSR in coco-v1  [all]
exit 38: KVM_EXIT_MEMORY_FAULT in vmgexit-v10, KVM_EXIT_LOONGARCH_IOCSR in linux-7.2  [all]
exit 40: KVM_EXIT_COCO in coco-v1, KVM_EXIT_TDX in linux-7.2  [all]
capability 237: KVM_CAP_EXIT_COCO in coco-v1, KVM_CAP_X86_APIC_BUS_CYCLES_NS in linux-7.2  [all]
vmgexit-v10, coco-v1, linux-7.2: 4 collisions
"
    );
    assert_eq!(printed(0, &["collide", "linux-6.1", "linux-7.2"]), "linux-6.1, linux-7.2: 0 collisions\n");
    let (old, new) = (headers("one", OLD), headers("two", NEW));
    let arguments = ["collide", old.path(), new.path(), "--format", "json"];
    let json: Value = serde_json::from_str(&printed(1, &arguments)).unwrap();
    assert_eq!(json["collisions"][0]["value"], 38);
    assert_eq!(json["collisions"][0]["names"][1][0], "KVM_EXIT_LOONGARCH_IOCSR");
}

#[test]
fn a_mistyped_name_is_answered_with_what_there_is() {
    let line = mistake(&["layout", "sytem_event"]);
    assert!(line.contains("no struct is named 'sytem_event'; near is kvm_run.system_event"), "{line}");
    assert!(mistake(&["layout", "zebra"]).contains("`exeunt abi layout --list` prints all"));
    assert!(mistake(&["layout", "io", "--arch", "sparc"]).contains("there are x86_64, i386, x32, aarch64"));
    let line = mistake(&["layout", "io", "--dialect", "linux-1.0"]);
    assert!(line.contains("no dialect is named 'linux-1.0'; there are linux-5.10, linux-5.17"), "{line}");
    assert!(line.contains("sev-term-v4.1") && line.contains("coco-v1"), "{line}");
    assert!(mistake(&["diff", "linux-5.17", "sev-term"]).contains("no dialect is named 'sev-term'"));
    assert!(mistake(&["collide", "linux-5.17", "nothing"]).contains("no dialect is named 'nothing'"));
    assert!(mistake(&["layout", "tdx", "--dialect", "linux-6.1"]).contains("linux-6.1 has no kvm_run.tdx"));
    let line = mistake(&["layout", "kvm_vcpu_events", "--arch", "riscv64"]);
    assert!(line.contains("linux-7.2 has kvm_vcpu_events only on x86_64, i386, x32"), "{line}");
}

#[test]
fn a_diff_takes_two_trees() {
    assert!(
        mistake(&["diff"]).contains("two trees are compared, an old one and a new one, and 0 were given")
    );
    assert!(mistake(&["diff", "linux-6.1"]).contains("and 1 were given"));
    assert!(
        mistake(&["diff", "linux-6.1", "linux-6.12", "--headers", "/usr/include"])
            .contains("and 3 were given")
    );
    assert_eq!(exeunt(&["collide", "linux-6.1"]).status.code(), Some(2));
    assert_eq!(exeunt(&["layout"]).status.code(), Some(2));
    assert_eq!(exeunt(&[]).status.code(), Some(2));
}

#[test]
fn headers_that_cannot_be_read_are_one_line_and_status_2() {
    if is_skipped() {
        return;
    }
    assert!(
        mistake(&["diff", "linux-6.1", "./no/such/folder"])
            .contains("cannot read the headers in ./no/such/folder")
    );
    let good = headers("good", OLD);
    let asm = format!("{}/asm", good.path());
    let line = mistake(&["diff", "--headers", good.path(), "--headers", &asm]);
    assert!(line.contains("is no tree of installed headers: it has no linux/kvm.h"), "{line}");
    let broken = headers("broken", "struct kvm_run {\n    __u99 a;\n};\n");
    let line = mistake(&["collide", good.path(), broken.path()]);
    assert!(line.contains("linux/kvm.h:3:") && line.contains("error: unknown type name"), "{line}");
}

#[test]
fn without_a_compiler_there_is_nothing_to_say() {
    let headers = headers("alone", OLD);
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    let arguments = ["abi", "diff", headers.path(), "linux-6.1"];
    let output = command.args(arguments).env("PATH", "").output().unwrap();
    let line = super::mistake(&arguments, &output);
    assert!(line.contains("cannot be compiled for any target: x86_64: no compiler (gcc -m64, "), "{line}");
    assert!(line.contains("riscv64: no compiler (riscv64-linux-gnu-gcc"), "{line}");
}

#[test]
fn nothing_is_left_in_the_folder_for_temporary_files() {
    if is_skipped() {
        return;
    }
    let headers = headers("clean", OLD);
    let own = headers.0.join("tmp");
    fs::create_dir(&own).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    let output =
        command.args(["abi", "diff", headers.path(), "linux-5.17"]).env("TMPDIR", &own).output().unwrap();
    assert!(output.status.code().is_some_and(|status| status < 2), "{output:?}");
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
}
