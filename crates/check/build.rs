//! Builds the library that goes into the processes of VMMs, and says where it is.
//!
//! It is a library of its own, for the dynamic linker, so cargo cannot link it into this crate: it is built by a cargo of
//! its own, always with optimisation, and its bytes are part of this crate.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the library's code is.
const ROOMS: [&str; 7] = ["abi", "proto", "runs", "model", "scenes", "interpose", "shim"];
/// `none` builds no library, which is enough for a look at whether the rest compiles.
const SWITCH: &str = "EXEUNT_SHIM";
/// For VMMs of this system. A part of a process has to be what the process is.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What the cargo around this one was told of its own work.
const NOT_HANDED_ON: [&str; 5] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "RUSTDOCFLAGS"];

fn main() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for room in ROOMS {
        println!("cargo::rerun-if-changed={}", workspace.join("crates").join(room).join("src").display());
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join("crates").join(room).join("Cargo.toml").display()
        );
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={SWITCH}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to write"));
    let library = out.join("shim.so");
    println!("cargo::rustc-env=EXEUNT_SHIM_FILE={}", library.display());
    let is_wanted = env::var_os(SWITCH) != Some(OsString::from("none"));
    if env::var("TARGET").is_ok_and(|target| target == TARGET) && is_wanted {
        let built = build(&workspace, &out);
        fs::copy(&built, &library).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    } else {
        fs::write(&library, []).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    }
}

fn build(workspace: &Path, out: &Path) -> PathBuf {
    // OUT_DIR is four directories below that of all that is built: profile, build, package, out.
    let target = out.ancestors().nth(4).expect("cargo's directories");
    // What is released takes the time to be linked as a whole: a VMM's exits go through many small functions.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let target = target.join(if is_release { "shim-release" } else { "shim" });
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--locked", "--package", "exeunt-shim", "--target", TARGET]);
    cargo.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    for variable in NOT_HANDED_ON {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "true").env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    if is_release {
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "thin").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo cannot be started: {error}"));
    assert!(status.success(), "the library for VMMs does not build");
    target.join(TARGET).join("release/libexeunt_shim.so")
}
