//! The uapi of KVM: the run page, the events, the numbers.

pub mod caps;
pub mod events;
pub mod memory;
pub mod run;
pub mod vm_type;
