//! What can come between the exits of a real kernel.

use crate::pages_unsafe::VcpuPages;
use crate::record::{File, What};
use exeunt_abi::Errno;
use exeunt_model::UserMemory;
use std::fmt;
use std::sync::Arc;

/// Something that answers some calls in the place of the kernel.
pub trait Overlay: fmt::Debug + Send + Sync {
    /// `KVM_RUN` is about to be made. `Some` is its result, and the page holds the exit; what crossed is in the
    /// overlay's own records, which go to `put`. `None` lets the kernel run the vCPU.
    fn run(
        &self,
        on: File,
        pages: &VcpuPages,
        memory: &Arc<dyn UserMemory>,
        put: &dyn Fn(What),
    ) -> Option<Result<u32, Errno>>;

    /// Another ioctl is about to be made. `Some` is its result; it is recorded as if the kernel had made it.
    fn ioctl(
        &self,
        on: File,
        request: u32,
        arg: u64,
        memory: &Arc<dyn UserMemory>,
    ) -> Option<Result<u32, Errno>>;
}
