//! The uapi of KVM: the run page, the events, the numbers, and the structs of its ioctls.

pub mod caps;
pub mod cpuid;
pub mod debug;
pub mod device_attr;
pub mod events;
pub mod ioctl;
pub mod irq;
pub mod memory;
pub mod mp_state;
pub mod msr;
pub mod regs;
pub mod run;
pub mod sev;
pub mod tdx;
pub mod vm_type;
