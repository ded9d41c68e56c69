//! The part of exeunt that the dynamic linker puts into a VMM's process.
//!
//! It defines the calls of the C library that open devices, make ioctls and give memory back, ahead of the C library. A
//! call on anything but `/dev/kvm`, `/dev/sev` and what they made goes on to the kernel at once, so shells and helpers
//! that have the library in them do not see it. All else goes to the dispatcher.
//!
//! A VMM may run under a filter of system calls that ends it at the first call it does not make itself. So the files that
//! are needed are opened when the library is loaded, memory is looked at without the kernel's help, and a `KVM_RUN` that
//! does not have to wait makes no system call.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "words of 64 bits go between the process and the kernel as they are"
)]

mod calls;
pub mod exports_open_unsafe;
pub mod exports_stat_unsafe;
pub mod exports_unsafe;
mod faults_unsafe;
mod memory;
mod process;
mod start_unsafe;
mod state;
mod syscall_unsafe;
mod threads;
mod wait;
