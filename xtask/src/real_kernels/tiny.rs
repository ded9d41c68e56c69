//! A small kernel with private memory kept by software, which no distribution's kernel has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Stop, debian, tools};

/// What the kernel has besides nothing.
const CONFIG: &str = include_str!("tiny.config");
/// Programs that build it, and the packages that they are in.
const NEEDED: [(&str, &str); 7] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
];

/// The kernel, from the cache or built, which takes some minutes.
///
/// # Errors
///
/// It cannot be had.
pub(super) fn kernel(cache: &Path, offline: bool) -> Result<PathBuf, Stop> {
    let image = cache.join("tiny/bzImage");
    if image.is_file() {
        return Ok(image);
    }
    if offline {
        return Err(Stop::Skip(format!("there is no {}", image.display())));
    }
    let missing = NEEDED.iter().filter(|(program, _)| tools::find(program).is_none());
    let mut missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !Path::new("/usr/include/gelf.h").is_file() {
        missing.push("libelf-dev");
    }
    if !missing.is_empty() {
        return Err(Stop::Skip(format!("building a kernel needs the packages {}", missing.join(", "))));
    }
    let work = cache.join("tiny-build");
    build(cache, &work, &image)?;
    // The source takes 2 GB and is not needed any more.
    let _ = fs::remove_dir_all(&work);
    Ok(image)
}

fn build(cache: &Path, work: &Path, image: &Path) -> Result<(), Stop> {
    let fail = |error: std::io::Error| Stop::Fail(format!("{}: {error}", work.display()));
    println!("  downloading linux-source-6.12");
    debian::Apt::source(cache, work)?;
    let archive = work.join("usr/src/linux-source-6.12.tar.xz");
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xz", "--file"]).arg(&archive).arg("--directory").arg(work);
    tools::run(&mut tar).map_err(Stop::Fail)?;
    let (source, output) = (work.join("linux-source-6.12"), work.join("output"));
    fs::create_dir_all(&output).map_err(fail)?;
    let make = |targets: &[&str]| {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut make = Command::new("make");
        make.arg("--silent").arg(format!("--jobs={jobs}")).arg("-C").arg(&source);
        make.arg(format!("O={}", output.display())).arg("ARCH=x86_64").args(targets);
        tools::run(&mut make).map_err(Stop::Fail)
    };
    println!("  building a kernel, which takes some minutes");
    make(&["tinyconfig"])?;
    let config = output.join(".config");
    let text = fs::read_to_string(&config).map_err(fail)?;
    fs::write(&config, text + CONFIG).map_err(fail)?;
    make(&["olddefconfig"])?;
    let text = fs::read_to_string(&config).map_err(fail)?;
    if !text.lines().any(|line| line == "CONFIG_KVM_SW_PROTECTED_VM=y") {
        return Err(Stop::Fail("the configuration lost KVM_SW_PROTECTED_VM".to_owned()));
    }
    make(&["bzImage"])?;
    fs::create_dir_all(image.parent().unwrap_or(work)).map_err(fail)?;
    fs::copy(output.join("arch/x86/boot/bzImage"), image).map_err(fail)?;
    Ok(())
}
