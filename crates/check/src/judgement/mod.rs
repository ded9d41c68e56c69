//! Judgements as reports: for people ([`text`], [`html`]), and for the programs that read such ([`json`], [`junit`],
//! [`sarif`]).
//!
//! What a VMM said is hostile text. It is made inert once, when a [`Report`] takes it in: no control characters, none
//! that turn the direction of a line, and an end. Each format then escapes what has a meaning in itself.

mod fingerprint;
mod html;
mod inert;
mod json;
mod junit;
mod replay;
mod report;
mod sarif;
mod shard;
mod text;

pub use html::html;
pub use inert::{inert, inert_lines};
pub use json::{SCHEMA_VERSION, json};
pub use junit::junit;
pub use replay::Replay;
pub use report::{About, Kind, Report, RuleReport, SceneReport, SceneTime, Summary, Word};
pub use sarif::sarif;
pub use shard::Shard;
pub use text::{Paint, broken_text, text, worst_text};

#[cfg(test)]
mod tests;
