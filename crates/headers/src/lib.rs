//! C headers: layouts by rule and by compiler, and what a change of them breaks.
//!
//! A [`Tree`] is the userspace ABI of one KVM on every architecture: where each field lies, and which number has which
//! name. [`rule`] computes it from a registry of structs and each architecture's C ABI, for releases and for proposals
//! that were never merged. [`compile`] has a compiler lay out real headers and reads the answer from its debug
//! information. [`diff`] and [`collide`] judge two trees and do not care where they came from.
#![forbid(unsafe_code)]

pub mod collide;
pub mod compile;
pub mod diff;
mod dwarf;
mod flatten;
mod known;
pub mod rule;
pub mod space;
pub mod suggest;
pub mod target;
pub mod tree;

pub use diff::{Finding, Severity};
pub use target::Target;
pub use tree::{Absent, Bits, Field, Image, Layout, Scope, Tree};
