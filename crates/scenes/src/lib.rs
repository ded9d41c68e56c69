//! What a VMM is put into: guests as programs, and the scenarios of the rules, each with its kernel and with what goes
//! wrong in it.
//!
//! A scenario says nothing about who plays it: our VMM half in the process of the judge, or a foreign VMM that takes the
//! model for `/dev/kvm`.
#![forbid(unsafe_code)]

mod conversions;
pub mod overlay;
pub mod programs;
mod situation;
pub mod situations;

pub use situation::{Orders, Part, Rewrite, Situation, Task};
