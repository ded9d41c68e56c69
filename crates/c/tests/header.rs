//! The header that is checked in is the one that cbindgen makes of the sources. `EXEUNT_BLESS=1` writes it anew.

use std::path::{Path, PathBuf};

/// The files with exported functions and types, in the order of the header.
const SOURCES: [&str; 5] =
    ["policy_unsafe.rs", "host_unsafe.rs", "vm_unsafe.rs", "stop_unsafe.rs", "events_unsafe.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Rust's section on safety is there for Rust's sake; to C it says what every C function says.
fn without_safety(header: &str) -> String {
    let mut lines = Vec::new();
    let mut skips = false;
    for line in header.lines() {
        skips = if skips { line.trim_start().starts_with("//") } else { line.trim() == "// # Safety" };
        if skips {
            continue;
        }
        let is_end_of_comment = !line.trim_start().starts_with("//");
        if is_end_of_comment && lines.last().is_some_and(|last: &String| last.trim() == "//") {
            lines.pop();
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_header_is_the_one_that_cbindgen_makes() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join("src").join(source));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = without_safety(&String::from_utf8(made).unwrap());
    let path = root().join("include/exeunt.h");
    if std::env::var_os("EXEUNT_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "include/exeunt.h is not what the sources say: run this test with EXEUNT_BLESS=1");
}

#[test]
fn every_exported_function_is_in_the_header() {
    let header = std::fs::read_to_string(root().join("include/exeunt.h")).unwrap();
    let mut functions = 0;
    for source in SOURCES {
        let text = std::fs::read_to_string(root().join("src").join(source)).unwrap();
        for line in text.lines().filter(|line| line.starts_with("pub ") && line.contains("extern \"C\" fn "))
        {
            let name = line.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            assert!(header.contains(&format!("{name}(")), "{name}");
            functions += 1;
        }
    }
    assert!(functions > 25, "{functions}");
}
