//! `cargo xtask header-check`: the registry and the numbers of `exeunt-abi`, held against real headers by a compiler.
//!
//! Which form of a struct must agree, the headers say themselves: `LINUX_VERSION_CODE` names their release.

mod agree;
mod beside;
mod numbers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use exeunt_headers::rule::{self, Release};
use exeunt_headers::{Target, Tree, compile};

use self::agree::Outcome;

/// Hold the registry of structs and numbers to real headers, field by field, with every compiler that is found
///
/// Exits with 0 when all agree, with 1 when something does not, and with 2 when nothing could be compiled.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder with installed headers; the installed headers and those of cross compilers if none is given
    #[arg(long, value_name = "DIR")]
    headers: Vec<PathBuf>,
}

/// Where Debian and its relatives install the headers of the kernel.
const INSTALLED: [&str; 3] =
    ["/usr/include", "/usr/aarch64-linux-gnu/include", "/usr/riscv64-linux-gnu/include"];

pub(crate) fn run(args: &Args) -> ExitCode {
    let installed = || INSTALLED.iter().map(PathBuf::from).filter(|dir| dir.join("linux/kvm.h").is_file());
    let dirs: Vec<PathBuf> =
        if args.headers.is_empty() { installed().collect() } else { args.headers.clone() };
    if dirs.is_empty() {
        eprintln!(
            "error: no kernel headers are installed: there is no linux/kvm.h in {}",
            INSTALLED.join(", ")
        );
        return ExitCode::from(2);
    }
    let mut sum = Outcome::default();
    for dir in &dirs {
        match compile::read(dir, &Target::ALL) {
            Ok(tree) => sum.add(check(dir, &tree)),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("header-check: {}", sum.counts());
    if sum.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Compares one tree on each of its targets, and prints what it finds.
fn check(dir: &Path, tree: &Tree) -> Outcome {
    let mut sum = Outcome::default();
    let code = tree.images.values().find_map(|image| image.constants.get("LINUX_VERSION_CODE").copied());
    let forms = forms(code.unwrap_or(0));
    let release = forms.trees.first().map_or("no release", |tree| tree.name.as_str());
    println!("{}: Linux {}, compared with {release}", tree.name, version(code.unwrap_or(0)));
    for (target, image) in &tree.images {
        let mut outcome = agree::compare(&forms, *target, image);
        let found = compile::find(*target);
        if let Ok(compiler) = &found {
            outcome.add(beside::compare(&numbers::beside(), dir, *target, compiler, forms.are_newest()));
        }
        let compiler = found.map_or(String::new(), |compiler| compiler.to_string());
        println!("  {:<8} {compiler:<35} {}", target.name(), outcome.counts());
        for difference in &outcome.differences {
            println!("    differs: {difference}");
        }
        sum.add(outcome);
    }
    let newer: BTreeSet<&str> = sum.newer.iter().map(String::as_str).collect();
    if !newer.is_empty() {
        let names: Vec<&str> = newer.into_iter().collect();
        println!("  not in these headers ({}): {}", names.len(), names.join(", "));
    }
    for absent in &tree.absent {
        println!("  {:<8} not looked at: {}", absent.arch.name(), absent.reason);
        sum.absent += 1;
    }
    sum
}

fn version(code: u64) -> String {
    format!("{}.{}.{}", code >> 16, (code >> 8) & 0xff, code & 0xff)
}

/// The forms that headers may have.
pub(crate) struct Forms {
    /// The release of the headers, now and as it was published, or the one before them and the one after them.
    pub(crate) trees: Vec<Tree>,
    /// The newest release, to tell what is too new for the headers from what they lack.
    pub(crate) newest: Tree,
    /// The headers are of a release that the registry knows, so that it has to know all that is in them.
    pub(crate) exact: bool,
}

impl Forms {
    /// True for headers of the newest release, which have every name that this workspace knows.
    pub(crate) fn are_newest(&self) -> bool {
        self.exact && self.trees.first().is_some_and(|tree| tree.name == self.newest.name)
    }
}

/// What headers with this `LINUX_VERSION_CODE` are to agree with.
fn forms(code: u64) -> Forms {
    let newest = rule::release(Release::Linux7_2);
    let before = Release::of_version_code(code);
    let exact = before.is_some_and(|release| release.version() == (code >> 16, (code >> 8) & 0xff));
    let trees = if exact {
        before.into_iter().flat_map(|release| [rule::release(release), rule::as_published(release)]).collect()
    } else {
        // A change between two known releases came with one of the kernels in between.
        let after = Release::ALL.into_iter().find(|release| Some(*release) > before);
        before.into_iter().chain(after).map(rule::release).collect()
    };
    Forms { trees, newest, exact }
}

/// True for the targets whose kernels have the confidential guests that the registry is about.
fn is_x86(target: Target) -> bool {
    Target::X86.contains(&target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_between_two_releases_may_have_either_form() {
        let names = |code| {
            let forms = forms(code);
            (forms.trees.iter().map(|tree| tree.name.clone()).collect::<Vec<_>>(), forms.exact)
        };
        assert_eq!(names(0x0006_01c0), (vec!["linux-6.1".into(), "linux-6.1".into()], true));
        assert_eq!(names(0x0006_0600), (vec!["linux-6.1".into(), "linux-6.12".into()], false));
        assert_eq!(names(0x0005_0400), (vec!["linux-5.10".into()], false));
        assert_eq!(names(0x0009_0000), (vec!["linux-7.2".into()], false));
    }

    #[test]
    fn a_folder_that_is_not_there_leaves_with_2() {
        let args = Args { headers: vec!["does/not/exist".into()] };
        assert_eq!(run(&args), ExitCode::from(2));
    }
}
