//! What the model guarantees about its descriptors: each ioctl with the bytes that a process gives it.

mod basics;
mod board;
mod capabilities;
mod entry;
mod garbage;
mod launch;
mod process;
mod system;
mod tdx;
mod vcpu_state;
mod walk;
