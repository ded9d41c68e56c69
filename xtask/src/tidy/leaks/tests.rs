use super::super::tests::{fails_at, passes};
use super::{FORBIDDEN, REGISTRY, check};

#[test]
fn each_forbidden_word_fails_in_each_kind_of_text() {
    for word in FORBIDDEN {
        for path in
            ["a.rs", "b.md", "c.toml", "d.sh", "e.yml", "f.txt", "g.S", "h.c", "i.h", ".ci/run", ".gitignore"]
        {
            let text = format!("one\nsee {word} there\n");
            fails_at(check, &[(path, &text)], &[&format!("{path}:2")]);
        }
    }
}

#[test]
fn other_paths_and_other_files_pass() {
    passes(check, &[("a.md", "in /dev/kvm, /tmp and workspace/x\n")]);
    passes(check, &[("a.bin", FORBIDDEN[0])]);
}

#[test]
fn a_registry_other_than_crates_io_fails() {
    for path in ["Cargo.lock", ".cargo/config.toml"] {
        for other in
            ["http://mirror.example/index", "https://github.com/someone/index", "https://crates.example#abc"]
        {
            let text = format!("source = \"registry+https://{REGISTRY}\"\nsource = \"registry+{other}\"\n");
            fails_at(check, &[(path, &text)], &[&format!("{path}:2")]);
        }
    }
}

#[test]
fn crates_io_and_links_in_other_files_pass() {
    let lock =
        format!("source = \"registry+https://{REGISTRY}\"\nsource = \"registry+https://{REGISTRY}#0a\"\n");
    passes(check, &[("Cargo.lock", &lock), ("README.md", "https://docs.kernel.org/virt/kvm/\n")]);
}
