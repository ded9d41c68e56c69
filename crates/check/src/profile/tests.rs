use super::fill::{Piece, pieces};
use super::load::parse;
use super::program::{answers, find, fits};
use super::*;
use std::ffi::{OsStr, OsString};
use std::path::Path;

const SMALL: &str = "about = \"x\"\nprogram = \"sh\"\nstages = [\"observe\"]\nends = \"exits\"\n";

fn small(more: &str) -> Result<Profile, ProfileError> {
    parse("small", "small.toml", &format!("{SMALL}{more}"))
}

#[test]
fn each_shipped_profile_is_whole_and_found_by_its_name() {
    assert_eq!(shipped().len(), shipped::NAMES.len());
    for name in shipped::NAMES {
        assert_eq!(load(name).unwrap().name, *name);
    }
    let error = load("bochs").unwrap_err().to_string();
    assert!(error.contains("'bochs'") && error.contains("qemu-snp, qemu, qemu-sev-es, kvmtool"), "{error}");
}

#[test]
fn a_profile_that_nobody_has_tried_says_so() {
    for name in ["kvmtool", "crosvm", "cloud-hypervisor", "firecracker"] {
        assert_eq!(load(name).unwrap().standing(), "untested");
    }
    assert_eq!(small("tested = \"sh 1\"").unwrap().standing(), "tested with sh 1");
}

#[test]
fn a_program_leads_to_the_profile_of_its_name_and_stage() {
    let name = |program: &str, stage| for_program(Path::new(program), stage).map(|profile| profile.name);
    assert_eq!(name("/opt/bin/firecracker-v1.9", None).as_deref(), Some("firecracker"));
    assert_eq!(name("lkvm", Some(Stage::Observe)).as_deref(), Some("kvmtool"));
    assert_eq!(name("qemu-system-x86_64", Some(Stage::Overlay)).as_deref(), Some("qemu"));
    // A program that is not there cannot say that it knows SNP.
    assert_eq!(name("/nowhere/qemu-system-x86_64", Some(Stage::Scripted)).as_deref(), Some("qemu"));
    assert_eq!(name("bochs", None), None);
    assert_eq!(name("/", None), None);
}

#[test]
fn nonsense_is_refused_with_its_key() {
    for (more, key) in [
        ("tested = \" \"", "tested"),
        ("match = [\"/bin/sh\"]", "match"),
        ("match = [\"*\"]", "match"),
        ("vm-type = \"sgx\"", "vm-type"),
        ("settle-ms = 60001", "settle-ms"),
        ("args = [\"{image:rom8}\"]", "args"),
        ("args = [\"{image:rom16 exits=-1}\"]", "args"),
        ("args = [\"{image:rom16 ending=crash}\"]", "args"),
        ("args = [\"{image:rom16 color=red}\"]", "args"),
        ("args = [\"{image:rom16\"]", "args"),
        ("args = [\"{secret}\"]", "args"),
        ("args = [\"{file:x}\"]", "args"),
        ("args = [\"{text:x}\"]", "args"),
        ("args = [\"a\\u0000b\"]", "args"),
        ("env = { \"A=B\" = \"\" }", "env"),
        ("texts = { \"a/b\" = \"\" }", "texts"),
        ("texts = { a = \"{text:a}\" }", "texts"),
        ("files-in = [\"{file:a}\"]", "files-in"),
        ("match-if = { args = [], says = \"\" }", "match-if"),
    ] {
        match small(more) {
            Err(ProfileError::Invalid { key: got, .. }) => assert_eq!(got, key, "{more}"),
            other => panic!("{more}: {other:?}"),
        }
    }
    for (text, key) in [
        (SMALL.replace("\"observe\"", ""), "stages"),
        (SMALL.replace("observe", "watch"), "stages"),
        (SMALL.replace("\"observe\"", "\"observe\", \"observe\""), "stages"),
        (SMALL.replace("\"exits\"", "\"explodes\""), "ends"),
        (SMALL.replace("\"x\"", "\"\""), "about"),
    ] {
        let error = parse("small", "small.toml", &text).unwrap_err();
        assert!(matches!(&error, ProfileError::Invalid { key: got, .. } if got == key), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    for (more, line) in [("colour = 1", 5), ("settle-ms = \"x\"", 5), ("\nargs = [", 6)] {
        match small(more) {
            Err(ProfileError::Parse { line: got, .. }) => assert_eq!(got, line, "{more}"),
            other => panic!("{more}: {other:?}"),
        }
    }
    let error = load("./no-such-profile.toml").unwrap_err().to_string();
    assert!(error.starts_with("cannot read the profile ./no-such-profile.toml: "), "{error}");
}

#[test]
fn a_brace_that_opens_no_placeholder_stands_for_itself() {
    for text in ["", "{", "{}", "{\"a\": {\"b\": 1}}", "}"] {
        assert_eq!(pieces(text), Ok(vec![Piece::Text(text.into())]), "{text}");
    }
    let got = pieces("a={host:c-bit},{\"b\"}").unwrap();
    let want = [Piece::Text("a=".into()), Piece::Hole(Placeholder::HostCBit), Piece::Text(",{\"b\"}".into())];
    assert_eq!(got, want);
}

#[test]
fn a_command_names_images_and_texts_that_can_be_read() {
    let more = "args = [\"-b\", \"x={image:rom16 exits=7},y\", \"{text:t}\"]\n\
                env = { HERE = \"{program-dir}\" }\ntexts = { t = '{\"path\": \"{image:elf64}\"}' }";
    let command = small(more).unwrap().command(None, &["-last".into()]).unwrap();
    assert_eq!(command.program.file_name(), Some(OsStr::new("sh")));
    let [first, image, text, last] = &command.args[..] else { panic!("{command:?}") };
    assert_eq!((first.to_str(), last.to_str()), (Some("-b"), Some("-last")));
    let image = image.to_str().unwrap().strip_prefix("x=").unwrap().strip_suffix(",y").unwrap();
    assert_eq!(std::fs::read(image).unwrap()[0x10], 7);
    let json = std::fs::read_to_string(text).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let elf = std::fs::read(json["path"].as_str().unwrap()).unwrap();
    assert!(elf.starts_with(b"\x7fELF"));
    assert_eq!(command.made(), 3);
    assert!(command.env.iter().any(|(name, folder)| name == "HERE" && Path::new(folder).is_dir()));
    let image = image.to_owned();
    drop(command);
    assert!(!Path::new(&image).exists());
}

#[test]
fn what_is_missing_is_named_with_the_next_step() {
    let profile =
        small("args = [\"{file:none.fd}\"]\nfiles-in = [\"/nowhere\", \"~/x\"]\nhelp = \"buy one\"");
    let error = profile.unwrap().command(None, &[]).unwrap_err().to_string();
    assert!(
        error.starts_with("there is no file none.fd in /nowhere, ") && error.ends_with(": buy one"),
        "{error}"
    );
    assert!(!error.contains('~'), "{error}");
    let program = OsString::from("/nowhere/vmm");
    let error = small("").unwrap().command(Some(&program), &[]).unwrap_err();
    assert!(
        matches!(&error, ProfileError::NoProgram { program, .. } if program == "/nowhere/vmm"),
        "{error}"
    );
    // A file that cannot be executed is no program.
    assert_eq!(find(OsStr::new("/etc/passwd")), None);
    assert_eq!(find(OsStr::new("/etc")), None);
}

#[test]
fn a_star_stands_for_anything() {
    for (pattern, name, expected) in [
        ("qemu", "qemu", true),
        ("qemu", "qemu-kvm", false),
        ("qemu-*", "qemu-", true),
        ("*-x86_64", "qemu-system-x86_64", true),
        ("q*-*_64", "qemu-system-x86_64", true),
        ("q*-*_65", "qemu-system-x86_64", false),
        ("*é", "aé", true),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn a_probe_reads_what_a_program_says_and_does_not_wait_for_ever() {
    let probe = |script: &str| Probe { args: vec!["-c".into(), script.into()], says: "sev-snp-guest".into() };
    let sh = find(OsStr::new("sh")).unwrap();
    assert!(answers(&sh, &probe("echo a sev-snp-guest b")));
    assert!(!answers(&sh, &probe("echo sev-guest")));
    assert!(!answers(Path::new("/nowhere"), &probe("")));
    assert!(!answers(&sh, &probe("echo sev-snp-guest; exec sleep 60")));
}
