//! The second way in: a supervisor that the kernel asks before it does a system call, by seccomp user notification.
//!
//! It reaches what the dynamic linker does not: static programs, programs that make their system calls themselves, and
//! those with filters of their own. A filter that the program installs later can forbid more, and cannot take a call
//! out of the supervisor's hands that it allows. [`Filter`] says what is asked, [`install_in_child`] puts it into a
//! command, and [`Supervisor`] answers on one thread.

mod bpf;
mod descriptors;
mod filter;
mod foreign_unsafe;
mod install_unsafe;
mod listener_unsafe;
mod looks;
mod numbers;
mod process;
mod real;
mod scripted;
mod supervisor;

pub use filter::Filter;
pub use install_unsafe::{Handover, install_in_child};
pub use supervisor::{Ended, Supervisor};
