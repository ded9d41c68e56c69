//! The supervisor in front of a static program that makes its system calls itself.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod client;
mod real;
mod scripted;
mod signals;
