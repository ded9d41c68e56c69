//! The judge: is a VMM right at the exit boundary?
//!
//! A scenario drives a VMM half to where a rule of [`crate::rules`] bites. Everything that crosses the boundary is
//! recorded, and a checker for each rule looks at that and at nothing else: ioctls and their bytes, answers in the run
//! page, what is done to memory and to the certificate file, and how the VMM ends. So the same checkers can judge a
//! VMM whose inside nobody sees.
//!
//! That they bite is shown by VMMs that are wrong on purpose, each in one way: `docs/rules-covered.md`.

mod bench;
mod bytes;
mod checkers;
#[cfg(test)]
mod covered;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod foreign;
mod machine;
#[cfg(test)]
mod other;
mod ours;
mod pages;
mod port;
mod tape;
mod transcript;
mod twist;
mod variants;
mod verdict;
mod view;

pub use bytes::ExitBytes;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use foreign::{Case, Ending, Played};
pub use verdict::{JudgeError, Judged, Scene, Verdict, WrongVmm, judge, scenes, wrong_vmms};
pub use view::Finding;

/// The bytes of a certificate table that a VMM under judgement is given.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn certificate_table() -> Vec<u8> {
    machine::table(0)
}

#[cfg(test)]
mod tests;
