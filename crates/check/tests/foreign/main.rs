//! VMMs that know nothing of exeunt, unmodified, in front of the model: right ones and wrong ones, in two languages, linked
//! both ways.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod judging;
mod programs;
mod right;
mod unprivileged;
mod unseen;
mod wrong;
