//! VMMs that are started, watched and ended, by both ways in.
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

mod bad;
mod machine;
mod overlay;
