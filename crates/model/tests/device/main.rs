//! What the model guarantees about its descriptors: each ioctl with the bytes that a process gives it.

mod basics;
mod process;
mod tdx;
