use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exeunt-binary-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The head of an ELF program, with one program header of this type that holds this text.
fn elf(machine: u16, kind: u32, text: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    bytes[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[32] = 64;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64..68].copy_from_slice(&kind.to_le_bytes());
    bytes[72] = 120;
    bytes[96] = u8::try_from(text.len()).unwrap() + 1;
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

fn seen(path: &Path, via: Option<Via>) -> Result<Via, LaunchError> {
    look(path.as_os_str(), None, via, true).map(|target| target.via)
}

#[test]
fn a_dynamic_program_gets_the_shim_and_every_other_the_supervisor() {
    let scratch = Scratch::new("ways");
    let dynamic = scratch.file("dynamic", &elf(EM_X86_64, PT_INTERP, LOADER), 0o755);
    let fixed = scratch.file("static", &elf(EM_X86_64, PT_LOAD, ""), 0o755);
    let musl = scratch.file("ld-musl-x86_64.so.1", b"", 0o755);
    let other = scratch.file("musl", &elf(EM_X86_64, PT_INTERP, musl.to_str().unwrap()), 0o755);
    if Path::new(LOADER).exists() {
        assert_eq!(seen(&dynamic, None).unwrap(), Via::Shim);
        assert_eq!(seen(&dynamic, Some(Via::Notify)).unwrap(), Via::Notify);
        let bare = look(dynamic.as_os_str(), None, None, false).unwrap();
        assert_eq!(bare.via, Via::Notify, "a build without a shim");
    }
    for path in [&fixed, &other] {
        assert_eq!(seen(path, None).unwrap(), Via::Notify, "{}", path.display());
        let refused = seen(path, Some(Via::Shim));
        assert!(matches!(refused, Err(LaunchError::ShimImpossible { .. })), "{refused:?}");
    }
    let refused = look(fixed.as_os_str(), None, Some(Via::Shim), false);
    assert!(matches!(refused, Err(LaunchError::NoShim)), "{refused:?}");
}

#[test]
fn a_script_is_its_interpreter() {
    let scratch = Scratch::new("scripts");
    let fixed = scratch.file("static", &elf(EM_X86_64, PT_LOAD, ""), 0o755);
    let script = scratch.file("script", format!("#! \t{} -x\necho\n", fixed.display()).as_bytes(), 0o755);
    let twice = scratch.file("twice", format!("#!{}\n", script.display()).as_bytes(), 0o755);
    assert_eq!(seen(&twice, None).unwrap(), Via::Notify);
    let circle = scratch.0.join("circle");
    let circle = scratch.file("circle", format!("#!{}\n", circle.display()).as_bytes(), 0o755);
    assert!(matches!(seen(&circle, None), Err(LaunchError::ScriptLoop { .. })));
    let nowhere = scratch.file("nowhere", b"#!/nowhere/sh\n", 0o755);
    assert!(matches!(seen(&nowhere, None), Err(LaunchError::NotFound { .. })));
}

#[test]
fn each_file_that_is_no_program_is_refused_with_its_own_reason() {
    let scratch = Scratch::new("refused");
    let cases: [(&str, Vec<u8>, u32, &str); 9] = [
        ("plain", elf(EM_X86_64, PT_LOAD, ""), 0o644, "may not be executed"),
        ("text", b"echo hello\n".to_vec(), 0o755, "neither an ELF program"),
        ("empty", Vec::new(), 0o755, "neither an ELF program"),
        ("no-name", b"#!\n".to_vec(), 0o755, "neither an ELF program"),
        ("arm", elf(183, PT_LOAD, ""), 0o755, "made for aarch64"),
        ("odd", elf(0x1234, PT_LOAD, ""), 0o755, "made for machine 4660"),
        ("short", elf(EM_X86_64, PT_LOAD, "")[..40].to_vec(), 0o755, "no program that can be started"),
        ("cut", elf(EM_X86_64, PT_LOAD, "")[..70].to_vec(), 0o755, "no program that can be started"),
        (
            "loader",
            elf(EM_X86_64, PT_INTERP, "/nowhere/ld.so"),
            0o755,
            "needs the dynamic linker /nowhere/ld.so",
        ),
    ];
    for (name, bytes, mode, expected) in cases {
        let path = scratch.file(name, &bytes, mode);
        let error = seen(&path, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let error = seen(&scratch.0, None).unwrap_err();
    assert!(matches!(error, LaunchError::NotFile { .. }), "{error}");
    let error = seen(&scratch.0.join("missing"), None).unwrap_err();
    assert!(matches!(error, LaunchError::NotFound { .. }), "{error}");
    assert!(matches!(look(OsStr::new(""), None, None, true), Err(LaunchError::Empty)));
}

#[test]
fn no_cut_and_no_single_byte_of_a_program_makes_a_panic() {
    let scratch = Scratch::new("bytes");
    let whole = elf(EM_X86_64, PT_INTERP, "/lib");
    for end in 0..whole.len() {
        let _ = seen(&scratch.file("cut", &whole[..end], 0o755), None);
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = 0xff;
        let _ = seen(&scratch.file("byte", &bytes, 0o755), None);
    }
}

#[test]
fn names_are_searched_in_path_in_order() {
    let (first, second) = (Scratch::new("first"), Scratch::new("second"));
    let program = elf(EM_X86_64, PT_LOAD, "");
    first.file("forbidden", &program, 0o644);
    second.file("forbidden", &program, 0o755);
    second.file("only", &program, 0o755);
    first.file("never", &program, 0o644);
    fs::create_dir(first.0.join("only")).unwrap();
    let search = std::env::join_paths([Path::new("/nowhere"), &first.0, &second.0]).unwrap();
    let find = |name: &str| look(OsStr::new(name), Some(&search), None, true);
    for name in ["only", "forbidden"] {
        assert_eq!(find(name).unwrap().path, second.0.join(name), "{name}");
    }
    assert!(matches!(find("never"), Err(LaunchError::NotExecutable { .. })));
    let error = find("exeunt-nowhere").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`exeunt-nowhere` is in no directory of PATH: install it, or give its path"
    );
}

#[test]
fn the_users_own_preload_comes_after_the_shim() {
    let of = |users: Option<&str>| preload("/shim", users.map(OsStr::new)).into_string().unwrap();
    assert_eq!([of(None), of(Some("")), of(Some("/a:/b"))], ["/shim", "/shim", "/shim:/a:/b"]);
}
