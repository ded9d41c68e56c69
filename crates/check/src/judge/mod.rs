//! The judge: is a VMM right at the exit boundary?
//!
//! A scenario (`situation`) drives a VMM half to where a rule bites. Everything that crosses the boundary is recorded
//! (`transcript`), and a checker for each rule looks at that and at nothing else.

mod bench;
mod checkers;
mod machine;
mod ours;
mod pages;
mod port;
mod situation;
mod situations;
mod tape;
pub mod transcript;
mod twist;
mod view;

#[cfg(test)]
mod tests;
