//! The program that `cargo xtask real-kernels` runs, on this machine or as the first process of a virtual one.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod init;
mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::main()
}
