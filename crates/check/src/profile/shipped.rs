//! The profiles that come with the program.

use super::{Profile, load, program};
use crate::foreign::Stage;
use std::path::Path;

macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        /// The names of the shipped profiles, in the order in which they are tried.
        pub(super) const NAMES: &[&str] = &[$($name),*];
        const TEXTS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../profiles/", $name, ".toml")))),*];
    };
}

profiles!(
    "qemu-snp",
    "qemu",
    "qemu-sev-es",
    "kvmtool",
    "crosvm",
    "cloud-hypervisor",
    "firecracker",
    "subject"
);

/// Those that come with this program.
#[must_use]
pub fn shipped() -> Vec<Profile> {
    // A test reads each of them, so none is left out here.
    TEXTS.iter().filter_map(|(name, text)| load::parse(name, &format!("{name}.toml"), text).ok()).collect()
}

/// The first shipped profile for a program, by its file name and, where the profile asks for more, by what the program
/// says; of those that have the stage, if one is given.
#[must_use]
pub fn for_program(program: &Path, stage: Option<Stage>) -> Option<Profile> {
    let name = program.file_name()?.to_string_lossy().into_owned();
    let path = program::find(program.as_os_str());
    let suits = |profile: &Profile| {
        stage.is_none_or(|stage| profile.stages.contains(&stage))
            && profile.matches.iter().any(|pattern| program::fits(pattern, &name))
            && profile
                .probe
                .as_ref()
                .is_none_or(|probe| path.as_ref().is_some_and(|path| program::answers(path, probe)))
    };
    shipped().into_iter().find(suits)
}
