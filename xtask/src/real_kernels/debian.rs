//! Debian's packages, downloaded and unpacked beside the system: nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Stop, tools};

/// A kernel in a package.
pub(super) struct Package {
    /// What the folder in the cache is called.
    pub(super) folder: &'static str,
    /// The empty package that depends on the newest kernel.
    meta: &'static str,
    arch: &'static str,
    /// Lines of `sources.list`, without the key.
    sources: &'static [&'static str],
    /// Modules in the order of loading; none where KVM is a part of the kernel.
    modules: &'static [&'static str],
}

const BOOKWORM: &[&str] = &[
    "http://deb.debian.org/debian bookworm main",
    "http://deb.debian.org/debian-security bookworm-security main",
];
const AMD: &[&str] = &["irqbypass.ko", "kvm.ko", "kvm-amd.ko"];
/// Debian signs its indexes with these keys.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Linux 6.1 for x86-64.
pub(super) const LINUX_6_1: Package = Package {
    folder: "linux-6.1-amd64",
    meta: "linux-image-cloud-amd64",
    arch: "amd64",
    sources: BOOKWORM,
    modules: AMD,
};
/// Linux 6.12 for x86-64.
pub(super) const LINUX_6_12: Package = Package {
    folder: "linux-6.12-amd64",
    meta: "linux-image-6.12-cloud-amd64",
    arch: "amd64",
    sources: BOOKWORM,
    modules: AMD,
};
/// Linux 6.1 for arm64.
pub(super) const LINUX_ARM64: Package = Package {
    folder: "linux-6.1-arm64",
    meta: "linux-image-cloud-arm64",
    arch: "arm64",
    sources: BOOKWORM,
    modules: &[],
};
/// Linux 6.12 for riscv64.
pub(super) const LINUX_RISCV64: Package = Package {
    folder: "linux-6.12-riscv64",
    meta: "linux-image-riscv64",
    arch: "riscv64",
    sources: &["http://deb.debian.org/debian trixie main"],
    modules: &["kvm.ko"],
};

/// The files of an unpacked kernel.
pub(super) struct Files {
    pub(super) vmlinuz: PathBuf,
    pub(super) modules: Vec<PathBuf>,
}

/// The files of a kernel, from the cache or downloaded.
///
/// # Errors
///
/// It cannot be had.
pub(super) fn kernel(package: &Package, cache: &Path, offline: bool) -> Result<Files, Stop> {
    let root = cache.join(package.folder);
    if !root.join("complete").is_file() {
        if offline {
            return Err(Stop::Skip(format!("{} is not in {}", package.meta, cache.display())));
        }
        println!("  downloading {}", package.meta);
        let apt = Apt::update(package, cache)?;
        let newest = apt.newest(package.meta)?;
        apt.unpack(&[newest], &root)?;
    }
    let missing = |what: &str| Stop::Fail(format!("{} has no {what}", root.display()));
    let vmlinuz = tools::find_file(&root.join("boot"), "vmlinu", "").ok_or_else(|| missing("kernel"))?;
    let mut modules = Vec::new();
    for name in package.modules {
        let lib = [root.join("lib/modules"), root.join("usr/lib/modules")];
        let find = |suffix: &str| lib.iter().find_map(|dir| tools::find_file(dir, name, suffix));
        let path = find(".ko").or_else(|| find(".ko.xz")).ok_or_else(|| missing(name))?;
        if path.extension().is_some_and(|extension| extension == "xz") {
            tools::run(Command::new("xz").args(["--decompress", "--force"]).arg(&path))
                .map_err(Stop::Skip)?;
        }
        modules.push(path.with_file_name(name));
    }
    Ok(Files { vmlinuz, modules })
}

/// Downloads a package of this system and those that it needs and that are not installed, and unpacks them.
///
/// # Errors
///
/// They cannot be had.
pub(super) fn unpack_with_dependencies(package: &str, root: &Path) -> Result<(), Stop> {
    println!("  downloading {package}");
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet=2", "--yes", "--print-uris", "--no-install-recommends", "install", package]);
    let uris = tools::run(&mut apt).map_err(Stop::Skip)?;
    // 'http://deb.debian.org/debian/pool/main/q/qemu/name_version_arch.deb' name_version_arch.deb 123 SHA256:..
    let names = uris.lines().filter_map(|line| line.split(' ').nth(1)?.split('_').next());
    let names: Vec<String> = names.map(ToOwned::to_owned).collect();
    Apt { options: Vec::new() }.unpack(&names, root)
}

/// `apt`, with a state of its own where it is about another release or architecture.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn update(package: &Package, cache: &Path) -> Result<Self, Stop> {
        let dir = cache.join(format!("apt-{}-{}", package.arch, package.sources.len()));
        Self::with_sources(&dir, package.arch, package.sources, None)
    }

    /// An `apt` that knows these sources alone, and of installed packages those in the file `status`.
    ///
    /// # Errors
    ///
    /// The indexes cannot be had.
    pub(crate) fn with_sources(
        dir: &Path,
        arch: &str,
        sources: &[impl AsRef<str>],
        status: Option<&Path>,
    ) -> Result<Self, Stop> {
        if !Path::new(KEYS).is_file() {
            return Err(Stop::Skip(format!("{KEYS} is not there (package debian-archive-keyring)")));
        }
        let made = ["lists/partial", "archives/partial"]
            .iter()
            .try_for_each(|sub| fs::create_dir_all(dir.join(sub)));
        let lines = sources.iter().map(|line| format!("deb [signed-by={KEYS}] {}\n", line.as_ref()));
        made.and_then(|()| fs::write(dir.join("status"), ""))
            .and_then(|()| fs::write(dir.join("sources.list"), lines.collect::<String>()))
            .map_err(|error| Stop::Fail(format!("{}: {error}", dir.display())))?;
        let path = |name: &str| dir.join(name).display().to_string();
        let status = status.map_or_else(|| path("status"), |status| status.display().to_string());
        let options = [
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            format!("Dir::State::lists={}", path("lists")),
            format!("Dir::State::status={status}"),
            format!("Dir::Cache={}", path("")),
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
        ];
        let apt = Self { options: options.into() };
        tools::run(apt.command("apt-get").args(["--quiet=2", "update"])).map_err(Stop::Skip)?;
        Ok(apt)
    }

    /// A package of a release and what it needs that is not installed, each with its version, as `download` takes it.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    pub(crate) fn needed(&self, package: &str, release: &str) -> Result<Vec<String>, Stop> {
        let mut apt = self.command("apt-get");
        apt.args(["--simulate", "--no-install-recommends", "--target-release", release, "install", package]);
        let text = tools::run(&mut apt).map_err(Stop::Skip)?;
        // Inst qemu-system-x86 [1:7.2+dfsg-7] (1:10.0.2+ds-2 Debian:12/bookworm-backports [amd64])
        let names = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let (_, version) = rest.split_once('(')?;
            Some(format!("{name}={}", version.split(' ').next()?))
        });
        Ok(names.collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // There is nobody to switch to who could write to the cache.
        command.args(["-o", "APT::Sandbox::User=root"]);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// What an empty package depends on.
    fn newest(&self, meta: &str) -> Result<String, Stop> {
        let depends = tools::run(self.command("apt-cache").args(["depends", meta])).map_err(Stop::Skip)?;
        let first = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        first.map(ToOwned::to_owned).ok_or_else(|| Stop::Skip(format!("{meta} depends on nothing")))
    }

    /// Downloads packages and unpacks them into a folder, which is complete then.
    ///
    /// # Errors
    ///
    /// They cannot be had.
    pub(crate) fn unpack(&self, names: &[String], root: &Path) -> Result<(), Stop> {
        let debs = root.join("debs");
        fs::create_dir_all(&debs).map_err(|error| Stop::Fail(format!("{}: {error}", debs.display())))?;
        let mut download = self.command("apt-get");
        download.args(["--quiet=2", "download"]).args(names).current_dir(&debs);
        tools::run(&mut download).map_err(Stop::Skip)?;
        while let Some(deb) = tools::find_file(&debs, "", ".deb") {
            tools::run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(root)).map_err(Stop::Skip)?;
            fs::remove_file(&deb).map_err(|error| Stop::Fail(format!("{}: {error}", deb.display())))?;
        }
        fs::write(root.join("complete"), names.join("\n")).map_err(|error| Stop::Fail(error.to_string()))
    }

    /// The source of a kernel, as a package of bookworm.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    pub(super) fn source(cache: &Path, root: &Path) -> Result<(), Stop> {
        let apt = Self::update(&LINUX_6_12, cache)?;
        apt.unpack(&["linux-source-6.12".to_owned()], root)
    }
}
