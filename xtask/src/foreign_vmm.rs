//! `cargo xtask foreign-vmm`: a QEMU that knows SEV-SNP, and its firmware, beside the system.
//!
//! Debian's packages are unpacked into a folder outside of the repository. Nothing is installed and nothing needs a
//! right: what runs them is `exeunt check --profile qemu-snp`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::real_kernels::debian::Apt;
use crate::real_kernels::{Stop, default_cache, tools};

/// Fetch a QEMU that knows SEV-SNP, and its firmware, without installing them
///
/// The last line is the path of QEMU, after `qemu: `. What cannot be had is skipped, with the reason after `skipped: `, and
/// the status is 0 then too.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the packages are unpacked; the folder exeunt in the user's cache if not given
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Download nothing
    #[arg(long)]
    offline: bool,
}

/// SEV-SNP came with QEMU 9.1; the profile is for 10.
const OLDEST: u32 = 10;
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// The firmware, and the releases that have it in a package of this name, the older first.
const FIRMWARE: &str = "usr/share/ovmf/OVMF.amdsev.fd";
const FIRMWARE_PACKAGE: &str = "ovmf-amdsev";
const FIRMWARE_RELEASES: [&str; 2] = ["forky", "sid"];
/// Where Debian is if this machine's own configuration does not say.
const MIRROR: &str = "http://deb.debian.org/debian";
const STATUS: &str = "/var/lib/dpkg/status";

pub(crate) fn run(args: &Args) -> ExitCode {
    match fetch(args) {
        Ok((qemu, version)) => {
            println!("version {version}");
            println!("qemu: {}", qemu.display());
            ExitCode::SUCCESS
        }
        Err(Stop::Skip(reason)) => {
            println!("skipped: {reason}");
            ExitCode::SUCCESS
        }
        Err(Stop::Fail(reason)) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn fetch(args: &Args) -> Result<(PathBuf, String), Stop> {
    let no_cache =
        || Stop::Fail("neither HOME nor XDG_CACHE_HOME is set: choose a folder with --cache".into());
    let cache = match &args.cache {
        Some(dir) => std::path::absolute(dir).map_err(|error| Stop::Fail(error.to_string()))?,
        None => default_cache().ok_or_else(no_cache)?,
    };
    let root = cache.join("qemu-snp");
    let firmware = root.join(FIRMWARE);
    if !firmware.is_file() {
        if args.offline {
            return Err(Stop::Skip(format!("there is no {}", firmware.display())));
        }
        fetch_firmware(&cache, &firmware)?;
    }
    println!("firmware: {}", firmware.display());
    if let Some(installed) = tools::find(PROGRAM) {
        if let Some(version) = version(&installed, None).filter(|version| is_new(version)) {
            return Ok((installed, version));
        }
    }
    let program = root.join("usr/bin").join(PROGRAM);
    if !root.join("complete").is_file() {
        if args.offline {
            let cache = cache.display();
            return Err(Stop::Skip(format!("{PROGRAM} {OLDEST} is neither installed nor in {cache}")));
        }
        fetch_qemu(&cache, &root)?;
    }
    let version = version(&program, Some(&root))
        .ok_or_else(|| Stop::Skip(format!("{} does not start on this machine", program.display())))?;
    if !is_new(&version) {
        return Err(Stop::Skip(format!("this release of Debian has QEMU {version}; {OLDEST} is needed")));
    }
    Ok((program, version))
}

fn fetch_firmware(cache: &Path, firmware: &Path) -> Result<(), Stop> {
    let unpacked = cache.join(FIRMWARE_PACKAGE);
    let mirror = mirror();
    let mut last = Stop::Skip(String::new());
    for release in FIRMWARE_RELEASES {
        println!("downloading {FIRMWARE_PACKAGE} of {release}");
        let source = [format!("{mirror} {release} main")];
        let got = Apt::with_sources(&cache.join(format!("apt-{release}")), "amd64", &source, None)
            .and_then(|apt| apt.unpack(&[FIRMWARE_PACKAGE.to_owned()], &unpacked));
        match got {
            Ok(()) => {
                let failed = |error| Stop::Fail(format!("{}: {error}", firmware.display()));
                let dir = firmware.parent().unwrap_or(cache);
                fs::create_dir_all(dir).map_err(failed)?;
                // A file that is there is whole.
                let part = firmware.with_extension("part");
                fs::copy(unpacked.join(FIRMWARE), &part).map_err(failed)?;
                fs::rename(part, firmware).map_err(failed)?;
                return fs::remove_dir_all(unpacked).map_err(failed);
            }
            Err(stop) => last = stop,
        }
    }
    Err(last)
}

fn fetch_qemu(cache: &Path, root: &Path) -> Result<(), Stop> {
    let codename = codename().ok_or_else(|| Stop::Skip("this system is not Debian".into()))?;
    let mirror = mirror();
    // What the packages need is taken from the same release as what is installed here.
    let (releases, target) = match codename.as_str() {
        "bookworm" => (vec!["bookworm", "bookworm-backports"], "bookworm-backports"),
        other => (vec![other], other),
    };
    let sources: Vec<String> = releases.iter().map(|release| format!("{mirror} {release} main")).collect();
    println!("downloading {PACKAGE} of {target}");
    let apt =
        Apt::with_sources(&cache.join(format!("apt-{target}")), "amd64", &sources, Some(Path::new(STATUS)))?;
    let needed = apt.needed(PACKAGE, target)?;
    apt.unpack(&needed, root)
}

/// The archive that this machine's own `apt` uses.
fn mirror() -> String {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let text = tools::run(&mut apt).unwrap_or_default();
    let mut sites = text.lines().map(|line| line.trim_end_matches('/'));
    sites.find(|site| site.ends_with("/debian")).unwrap_or(MIRROR).to_owned()
}

fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME").map(ToOwned::to_owned))?
}

/// What a QEMU says its version is, if it starts.
fn version(program: &Path, root: Option<&Path>) -> Option<String> {
    let mut command = Command::new(program);
    if let Some(root) = root {
        command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
    }
    let text = tools::run(command.arg("--version")).ok()?;
    // QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)
    let (_, version) = text.lines().next()?.split_once(" version ")?;
    Some(version.to_owned())
}

fn is_new(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_of_version_10_is_new_enough_and_one_of_7_is_not() {
        for (version, new) in [
            ("10.0.2 (Debian 1:10.0.2+ds-2)", true),
            ("11.1.2", true),
            ("9.2.0", false),
            ("7.2.22 (Debian)", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(is_new(version), new, "{version}");
        }
    }
}
