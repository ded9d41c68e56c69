use super::super::tests::{fails_at, found, passes};
use super::{ROOMS, check};

fn manifest(package: &str, rest: &str) -> String {
    format!("[package]\nname = \"{package}\"\n\n{rest}")
}

#[test]
fn each_pair_of_crates_is_judged_by_the_table() {
    for from in ROOMS {
        let path = format!("{}/Cargo.toml", from.dir);
        for to in ROOMS.iter().filter(|to| to.package != from.package) {
            let text = manifest(from.package, &format!("[dependencies]\n{}.workspace = true\n", to.package));
            let refused = !found(check, &[(&path, &text)]).is_empty();
            assert_eq!(refused, !from.sees.contains(&to.package), "{} -> {}", from.package, to.package);
        }
    }
}

#[test]
fn the_table_has_no_cycle_and_siblings_do_not_see_each_other() {
    for (index, room) in ROOMS.iter().enumerate() {
        for seen in room.sees {
            let place = ROOMS.iter().position(|room| room.package == *seen);
            assert!(place.is_some_and(|place| place < index), "{} -> {seen}", room.package);
        }
    }
}

#[test]
fn the_headers_see_the_bytes_alone_and_only_the_tools_see_the_headers() {
    let sees = |from: &str, to: &str| {
        let room = ROOMS.iter().find(|room| room.package == from);
        room.is_some_and(|room| room.sees.contains(&to))
    };
    for room in ROOMS {
        assert_eq!(sees("exeunt-headers", room.package), room.package == "exeunt-abi", "-> {}", room.package);
        let is_tool = ["exeunt-cli", "xtask"].contains(&room.package);
        assert_eq!(sees(room.package, "exeunt-headers"), is_tool, "{} ->", room.package);
    }
}

#[test]
fn dev_build_and_target_dependencies_are_arrows_too() {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"]
    {
        let text = manifest("exeunt-abi", &format!("[{kind}]\nexeunt-proto.workspace = true\n"));
        fails_at(check, &[("crates/abi/Cargo.toml", &text)], &["crates/abi/Cargo.toml:5"]);
        let text = manifest("exeunt-abi", &format!("[{kind}.exeunt-proto]\npath = \"../proto\"\n"));
        fails_at(check, &[("crates/abi/Cargo.toml", &text)], &["crates/abi/Cargo.toml:4"]);
    }
}

#[test]
fn a_renamed_dependency_is_judged_by_its_package() {
    let inline = "[dependencies]\nbits = { package = \"exeunt-model\", path = \"../model\" }\n";
    let text = manifest("exeunt-proto", inline);
    fails_at(check, &[("crates/proto/Cargo.toml", &text)], &["crates/proto/Cargo.toml:5"]);

    let root = "[workspace.dependencies]\nbits = { package = \"exeunt-model\", path = \"crates/model\" }\n";
    let text = manifest("exeunt-proto", "[dependencies]\nbits.workspace = true\n");
    fails_at(
        check,
        &[("Cargo.toml", root), ("crates/proto/Cargo.toml", &text)],
        &["crates/proto/Cargo.toml:5"],
    );
}

#[test]
fn an_unknown_or_misplaced_package_fails() {
    let text = manifest("exeunt-extra", "");
    fails_at(check, &[("crates/extra/Cargo.toml", &text)], &["crates/extra/Cargo.toml:1"]);
    let text = manifest("exeunt-abi", "");
    fails_at(check, &[("crates/bytes/Cargo.toml", &text)], &["crates/bytes/Cargo.toml:1"]);
    let text = manifest("top", "");
    fails_at(check, &[("Cargo.toml", &text)], &["Cargo.toml:1"]);
}

#[test]
fn abi_and_proto_take_only_zerocopy_from_outside_but_test_with_anything() {
    for (package, dir) in [("exeunt-abi", "abi"), ("exeunt-proto", "proto")] {
        let path = format!("crates/{dir}/Cargo.toml");
        let good = "[dependencies]\nzerocopy.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n";
        passes(check, &[(&path, &manifest(package, good))]);
        for kind in ["dependencies", "build-dependencies"] {
            let bad = manifest(package, &format!("[{kind}]\nlibc = \"0.2\"\n"));
            fails_at(check, &[(&path, &bad)], &[&format!("{path}:5")]);
        }
    }
}

#[test]
fn the_other_crates_and_fuzz_are_free_outside() {
    let text = manifest("exeunt-linux", "[dependencies]\nexeunt-abi.workspace = true\nlibc = \"0.2\"\n");
    passes(check, &[("crates/linux/Cargo.toml", &text)]);
    let text =
        manifest("exeunt-fuzz", "[dependencies]\nexeunt-model.workspace = true\nlibfuzzer-sys = \"1\"\n");
    passes(check, &[("fuzz/Cargo.toml", &text)]);
}

#[test]
fn a_manifest_that_does_not_parse_fails() {
    fails_at(check, &[("crates/abi/Cargo.toml", "[package\n")], &["crates/abi/Cargo.toml:1"]);
}
