//! A small VMM on `/dev/kvm`: our VMM half as a program that somebody else can look at from outside.
//!
//! It knows nothing of who watches it. It makes a VM, loads a guest of a few instructions, services exits until one ends
//! the VM, says on standard error how that was, and ends with the status of `exeunt::terminate`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod arguments;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod drive;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod launch;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machine;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    use clap::Parser as _;
    let arguments = arguments::Arguments::parse();
    match drive::follow(&arguments) {
        Ok(stop) => {
            eprintln!("exeunt-subject: {}", stop.log_line());
            stop.kind().exit_status().into()
        }
        Err(reason) => {
            eprintln!("exeunt-subject: {reason}");
            drive::NOT_RUN.into()
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> std::process::ExitCode {
    eprintln!("exeunt-subject: this VMM is for Linux on x86-64");
    2.into()
}
