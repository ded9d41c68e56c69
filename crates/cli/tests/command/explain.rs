//! `exeunt explain`.

use super::Folder;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn exeunt(arguments: &[&str]) -> Output {
    super::exeunt(&[&["explain"], arguments].concat())
}

/// What is printed for good input: status 0 and nothing on standard error.
fn explained(arguments: &[&str]) -> String {
    let output = exeunt(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&explained(&[arguments, &["--format", "json"]].concat())).unwrap()
}

fn mistake(arguments: &[&str]) -> String {
    super::mistake(arguments, &exeunt(arguments))
}

fn piped(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    command
        .arg("explain")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that refuses its input does not read all of it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Zeroes with bytes at offsets.
fn bytes(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    bytes
}

/// A page whose guest asks for a page-state change of two pages.
fn ghcb() -> Vec<u8> {
    let entry = |gfn: u64| (1u64 << 52 | gfn << 12).to_le_bytes();
    bytes(
        4096,
        &[
            (0x390, &[0x10, 0, 0, 0x80]),
            (0x3a8, &0x7f00_0800u64.to_le_bytes()),
            (0x3f0, &(0xf_u128 << 114).to_le_bytes()),
            (0x802, &[1]),
            (0x808, &entry(0x10)),
            (0x810, &entry(0x11)),
            (0xffa, &[2]),
        ],
    )
}

#[test]
fn each_number_has_its_meaning_its_source_and_its_advice() {
    let cases: [(&[&str], &str, &str); 16] = [
        (&["exit", "43"], "KVM_EXIT_SNP_REQ_CERTS (43)", "RC-2"),
        (&["exit", "KVM_EXIT_SHUTDOWN"], "KVM_EXIT_SHUTDOWN (8)", "RN-4"),
        (&["exit", "40", "--dialect", "coco-v1"], "KVM_EXIT_COCO (40)", "frame number"),
        (&["event", "6"], "SEV_TERM (0x6)", "SE-5"),
        (&["event", "0x80000004", "--dialect", "sev-term-v4.1"], "SEV_TERM (0x80000004)", "SE-4"),
        (&["sev-term", "0x21100"], "PVALIDATE failed (PVALIDATE)", "SE-5"),
        (&["ghcb-msr", "0x10000000001014"], "PSC_REQUEST: make the page at 0x1000 private", "HC-2"),
        (&["ghcb-msr", "0x2000133000001"], "GHCB versions 1 to 2, C-bit 51", "KVM answers"),
        (&["exit-code", "0x80000010"], "PSC (0x80000010)", "HC-14"),
        (&["sw-exitinfo1", "2"], "MALFORMED_INPUT", "failure of the hypervisor"),
        (&["sw-exitinfo2", "0x0000010000000000"], "page-state change: failed (GENERIC)", "TD-4"),
        (&["psc-entry", "0x110000000200000"], "make private [0x200000-0x3fffff]", "HC-4"),
        (&["ioctl", "0xc008aeba"], "KVM_MEMORY_ENCRYPT_OP (0xc008aeba), on a VM, a vCPU", "AB-2"),
        (&["cap", "215"], "KVM_CAP_SYSTEM_EVENT_DATA (215)", "SE-3"),
        (&["errno", "14"], "KVM_RUN failed with EFAULT (14)", "MF-1"),
        (&["map-gpa", "0x100000", "512", "0x11"], "make [0x100000-0x2fffff] private: 512 pages", "HC-8"),
    ];
    for (arguments, title, advice) in cases {
        let value = json(arguments);
        assert_eq!(value["kind"], arguments[0]);
        assert!(value["title"].as_str().unwrap().contains(title), "{arguments:?}: {}", value["title"]);
        assert!(value["advice"].as_str().unwrap().contains(advice), "{arguments:?}: {}", value["advice"]);
        assert!(value["source"].as_str().unwrap().contains("Linux v7.2"), "{arguments:?}");
        let text = explained(arguments);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("\n  what to do ") && text.contains("\n  source     "), "{text}");
    }
}

#[test]
fn fields_have_offsets_raw_values_and_meanings() {
    let value = json(&["sev-term", "0x21100"]);
    let code = &value["fields"][2];
    let parts = ["name", "offset", "value", "meaning"].map(|part| code[part].as_str().unwrap());
    assert_eq!(parts, ["reason code", "23:16", "0x2", "PVALIDATE failed (PVALIDATE)"]);
    assert_eq!(value["input"], "0x21100");
    assert!(value.get("reserved").is_none());
    let pages = &json(&["map-gpa", "0x1000", "2", "0x30"]);
    assert_eq!(
        (&pages["fields"][1]["unit"], &pages["fields"][1]["offset"]),
        (&"4 KiB pages".into(), &"0x30".into())
    );
    assert!(pages["reserved"][0].as_str().unwrap().contains("bit 5 (0x20)"));
}

#[test]
fn run_pages_as_real_kernels_wrote_them_are_read() {
    let old = explained(&["run-page", &data("hypercall-linux-6.1.xxd"), "--dialect", "linux-6.1"]);
    assert!(
        old.contains("make [0x200000-0x202fff] private: 3 pages") && old.contains("stale on this kernel"),
        "{old}"
    );
    let fault = data("memory-fault-linux-7.2.hexdump");
    let text = explained(&["run-page", &fault, "--errno", "EFAULT"]);
    assert!(
        text.contains("KVM_EXIT_MEMORY_FAULT (39): a private access to 0x1000 bytes at 0x5000"),
        "{text}"
    );
    assert!(explained(&["run-page", &fault, "--errno", "133"]).contains("poisoned"));
    assert!(explained(&["run-page", &fault, "--errno", "-22"]).contains("this page is stale"));
    let event = data("system-off-arm64-linux-5.10.hex");
    let text = explained(&["run-page", &event, "--dialect", "linux-5.10", "--arch", "arm64"]);
    assert!(text.contains("SHUTDOWN (0x1)") && text.contains("garbage: padding on this kernel"), "{text}");
}

#[test]
fn the_union_alone_is_read_with_its_reason() {
    let folder = Folder::new("explain-union");
    let union = bytes(256, &[(0, &[6, 0, 0, 0, 1]), (8, &[0, 0x11, 2])]);
    let file = folder.file("union.bin", &union);
    assert!(explained(&["run-page", &file, "--reason", "24"]).contains("SEV_TERM, reason set 0x1, code 0x2"));
    assert!(explained(&["run-page", &file, "--reason", "KVM_EXIT_SHUTDOWN"]).contains("a triple fault"));
    assert!(mistake(&["run-page", &file]).contains("give the exit reason with --reason"));
}

#[test]
fn each_page_has_its_meaning() {
    let folder = Folder::new("explain-pages");
    let header = [(0x20, &[1][..]), (0x30, &[1, 1, 96, 0, 5, 1, 96])];
    let vcek = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd_u128.to_be_bytes();
    let report = bytes(1184, &[(0, &[3]), (8, &[0, 0, 3]), (0x34, &[1]), (0x188, &[0x19])]);
    let cases = [
        ("ghcb", ghcb(), "PSC (0x80000010): change the state of pages"),
        ("psc", ghcb()[0x800..0x818].to_vec(), "2 of 2 entries to do"),
        (
            "certs",
            bytes(58, &[(0, &vcek), (16, &[48, 0, 0, 0, 10])]),
            "1 certificate in 58 bytes (1 page): VCEK",
        ),
        ("report", report, "a report of version 3 for VMPL 0, policy 0x30000, signed with the VCEK"),
        ("events", bytes(64, &[(20, &[0x2d]), (28, &[1])]), "a triple fault is pending"),
        ("message", bytes(96, &header), "REPORT_REQ 1 of 96 bytes with VMPCK0"),
    ];
    for (kind, page, title) in cases {
        let file = folder.file(kind, &page);
        let text = explained(&[kind, &file]);
        assert!(text.starts_with(&format!("{kind}: {title}")), "{text}");
        // The same bytes without their kind.
        let first = &json(&[&file])["readings"][0];
        assert_eq!(
            (&first["kind"], first["title"].as_str()),
            (&kind.into(), json(&[kind, &file])["title"].as_str())
        );
    }
}

#[test]
fn digits_are_taken_from_the_command_line_and_from_standard_input() {
    let page = ghcb();
    let digits: Vec<String> = page.iter().map(|byte| format!("{byte:02X}")).collect();
    assert!(explained(&["psc", &digits[0x800..0x818].join(":")]).contains("2 of 2 entries"));
    for input in [page, digits.join(" ").into_bytes()] {
        let output = piped(&["ghcb", "-"], &input);
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("ghcb: PSC"), "{output:?}");
    }
    let number = piped(&["-"], b"43\n");
    assert!(String::from_utf8_lossy(&number.stdout).starts_with("exit: KVM_EXIT_SNP_REQ_CERTS (43)"));
}

#[test]
fn without_a_kind_every_reading_is_listed_the_likeliest_first() {
    let text = explained(&["14"]);
    let kinds: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert_eq!(kinds, ["exit", "errno"], "{text}");
    assert!(text.ends_with("exeunt explain exit 14\n"));
    let value = json(&["0x100000000"]);
    assert_eq!(
        (&value["input"], &value["readings"][0]["kind"]),
        (&"0x100000000".into(), &"sw-exitinfo2".into())
    );
    assert_eq!(json(&["43"])["readings"].as_array().unwrap().len(), 1);
    assert!(mistake(&["0x7f0ab123456"]).contains("no meaning in any kind"));
}

#[test]
fn logs_are_explained_line_by_line_and_the_rest_is_counted() {
    let trace = json(&["log", &data("strace.log")]);
    assert_eq!((&trace["known"], &trace["unknown"]), (&8.into(), &2.into()));
    let titles: Vec<&str> = trace["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["reading"]["title"].as_str().unwrap())
        .collect();
    for expected in ["KVM_CAP_SYSTEM_EVENT_DATA", "KVM_EXIT_IO (2)", "EINTR", "KVM_EXIT_SHUTDOWN (8)"] {
        assert!(titles.iter().any(|title| title.contains(expected)), "{expected}: {titles:?}");
    }
    let io = trace["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["reading"]["title"].to_string().contains("IO (2)"));
    assert_eq!(io.unwrap()["lines"], serde_json::json!([5, 6]));
    // A log needs no kind, and can come through a pipe.
    let text = explained(&[&data("snp-guest-ends.log")]);
    assert!(
        text.contains("SNP features not supported") && text.contains("KVM_EXIT_SYSTEM_EVENT (24)"),
        "{text}"
    );
    let piped = piped(&["log", "-"], &std::fs::read(data("snp-guest-ends.log")).unwrap());
    assert!(
        String::from_utf8_lossy(&piped.stdout).starts_with("log: standard input: 2 of 5 lines explained")
    );
}

#[test]
fn the_list_names_every_kind_with_an_example_and_the_help_shows_them() {
    let list = explained(&["--list"]);
    assert_eq!(list.lines().count(), 20);
    for line in list.lines() {
        let kind = line.split(' ').next().unwrap();
        assert!(line.contains(&format!("exeunt explain {kind} ")) && line.len() <= 100, "{line}");
    }
    let help = explained(&["--help"]);
    assert!(help.contains("exeunt explain sev-term 0x21100") && help.contains("readings: ["), "{help}");
}

#[test]
fn bad_digits_are_named_with_their_place() {
    let folder = Folder::new("explain-digits");
    let cases: [(&str, &str); 6] = [
        ("0c0", "line 1, column 1: 3 hex digits are no whole bytes"),
        ("00 11\n22 3x\n", "line 2, column 5: 'x' is no hex digit"),
        ("00000000: 0011 2233\n00000008: 4455\n", "line 2: offset 0x8, where 0x4 follows"),
        ("00000000: 0011\nand so on\n", "line 2: no offset, unlike the other lines"),
        ("0000000 1100 3322\n", "take hexdump -C or xxd"),
        ("\n\n", "there are no hex digits"),
    ];
    for (text, expected) in cases {
        let file = folder.file("dump.hex", text.as_bytes());
        let line = mistake(&["ghcb", &file]);
        assert!(line.contains(expected) && line.contains("dump.hex"), "{line}");
    }
    assert!(mistake(&["events", "00112z33"]).contains("'00112z33': line 1, column 6: 'z' is no hex digit"));
    assert!(
        mistake(&["events", "no-such.bin"])
            .contains("cannot read no-such.bin: no such file, and no hex digits")
    );
    assert!(mistake(&["exit", "4z"]).contains("'4z' is no number: 'z' at offset 1"));
    assert!(mistake(&["exit", "0x100000000"]).contains("an exit reason has 32 bits"));
    assert!(mistake(&["psc-entry", "0x10000000000000000"]).contains("does not fit into 64 bits"));
}

#[test]
fn too_few_and_too_many_bytes_are_refused() {
    let folder = Folder::new("explain-sizes");
    let zeroes = |length: usize| folder.file(&format!("{length}"), vec![0; length]);
    let cases = [
        ("ghcb", 4095, "end at offset 0xfff"),
        ("ghcb", 4097, "4097 bytes are more than a GHCB"),
        ("events", 63, "63 bytes are not the 64"),
        ("report", 100, "100 bytes are no report of 1184 bytes"),
        ("report", 1184, "version 0 at offset 0x0"),
        ("message", 95, "95 bytes hold no header"),
        ("message", 4096, "the header has version 0 at offset 0x31"),
        ("psc", 7, "7 bytes hold no header"),
        ("certs", 20, "no entry of 24 zero bytes by offset 0x0"),
        ("run-page", 287, "ends at offset 0x11f"),
        ("run-page", 12289, "more than a vCPU maps, which is 12288"),
        ("certs", (1 << 20) + 1, "has more than 1048576 bytes"),
    ];
    for (kind, length, expected) in cases {
        let line = mistake(&[kind, &zeroes(length)]);
        assert!(line.contains(expected), "{kind} {length}: {line}");
    }
    let cut = mistake(&["psc", "00000200000000000010000000001000"]);
    assert!(cut.contains("end_entry at 0x2 is 2, so 32 bytes are needed, and they end at 0x10"), "{cut}");
}

#[test]
fn files_that_cannot_be_read_and_files_without_an_end_are_refused() {
    let folder = Folder::new("explain-files");
    assert!(mistake(&["ghcb", "/dev/zero"]).contains("/dev/zero has more than 1048576 bytes"));
    assert!(mistake(&["/dev/zero"]).contains("has more than 1048576 bytes"));
    assert!(mistake(&["log", "/dev/zero"]).contains("has more than 67108864 bytes"));
    assert!(mistake(&["ghcb", folder.0.to_str().unwrap()]).contains("cannot read"));
    assert!(
        mistake(&["log", "/no/such/file"]).contains("cannot read /no/such/file: No such file or directory")
    );
    assert!(mistake(&["log", &folder.file("empty", b"")]).contains("is empty"));
    assert!(mistake(&["a\nb"]).contains("cannot read a\\nb"));
    let noise = folder.file("noise", [0xff; 100]);
    assert!(mistake(&[&noise]).contains("100 bytes that fit no kind"));
    let output = piped(&["events", "-"], &vec![0; 2 << 20]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input has more than 1048576 bytes"));
}

#[test]
fn words_and_options_that_do_not_fit_are_refused() {
    let cases: [(&[&str], &str); 15] = [
        (&[], "nothing to explain"),
        (&["no-kind", "43"], "'no-kind' is no kind"),
        (&["exit"], "exit wants a value, as in `exeunt explain exit 43`"),
        (&["exit", "1", "2"], "exit wants one value"),
        (&["map-gpa", "1"], "map-gpa wants three numbers"),
        (&["event", "KVM_EXIT_IO"], "'KVM_EXIT_IO' is no number"),
        (&["cap", "KVM_CAP_NO_SUCH"], "no capability of the boundary"),
        (&["ioctl", "KVM_NO_SUCH"], "no ioctl of the boundary"),
        (&["errno", "0"], "no error number"),
        (&["exit", "43", "--errno", "14"], "--errno is for run-page, not for exit"),
        (
            &["cap", "215", "--dialect", "linux-6.1"],
            "--dialect is for run-page, exit, event, log, not for cap",
        ),
        (&["exit", "43", "--dialect", "linux-1.0"], "no dialect is called 'linux-1.0'"),
        (&["run-page", "00", "--arch", "vax"], "no architecture is called 'vax'"),
        (&["run-page", "00", "--errno", "EFOO"], "no error of the boundary is called 'EFOO'"),
        (&["run-page", "00", "--reason", "x"], "'x' is no number"),
    ];
    for (arguments, expected) in cases {
        let line = mistake(arguments);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
    let page = data("hypercall-linux-6.1.xxd");
    assert!(mistake(&["run-page", &page, "--reason", "3"]).contains("--reason is for the union"));
}

#[test]
fn a_full_output_is_an_error_and_a_reader_that_leaves_is_not() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    let output = command.args(["explain", "exit", "43"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}
