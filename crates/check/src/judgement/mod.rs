//! Judgements as reports: for people, and for the programs that read such.

mod shard;

pub use shard::Shard;
