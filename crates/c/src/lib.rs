//! The VMM half as a C library, `libexeunt`. The header is `include/exeunt.h`, made by cbindgen from these files.
//!
//! Every function takes what C may hand over: null pointers and numbers that are no enumerator are errors, and no
//! panic crosses the boundary. All of the crate's unsafe code is in the files named `*_unsafe.rs`, which is where the
//! exported functions are.

mod boundary;
pub mod events_unsafe;
pub mod host_unsafe;
pub mod policy_unsafe;
pub mod stop_unsafe;
pub mod vm_unsafe;
