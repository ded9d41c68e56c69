//! The live run area of a vCPU: run page, port page, and who is inside `KVM_RUN`.

use std::sync::atomic::{AtomicU8, Ordering};

use exeunt_abi::Errno;
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage, UNION_BYTES};
use kvm_ioctls::VcpuFd;
use zerocopy::IntoBytes;

use crate::error::KvmError;
use crate::kick::{Asker, ImmediateExit as _, Inside};
use crate::mapping_unsafe::Mapping;
use crate::{ioctl_unsafe, signal_unsafe};

/// Offset of `immediate_exit` in `kvm_run`.
const IMMEDIATE_EXIT: u8 = 1;
/// Offset of the exit union in `kvm_run`.
const UNION: usize = 32;
/// Where the port page starts, `KVM_PIO_PAGE_OFFSET` pages behind the run page.
const PORT_PAGE: usize = 4096;

/// The mapping of a vCPU, shared with its kickers.
#[derive(Debug)]
pub(crate) struct RunArea {
    mapping: Mapping,
    inside: Inside,
}

impl RunArea {
    /// Maps the area of a vCPU, `bytes` long as `KVM_GET_VCPU_MMAP_SIZE` says.
    ///
    /// # Errors
    ///
    /// It has no port page, or cannot be mapped.
    pub(crate) fn map(vcpu: &VcpuFd, bytes: usize) -> Result<Self, KvmError> {
        if bytes < PORT_PAGE + PORT_DATA_BYTES {
            return Err(KvmError::RunArea { bytes: bytes as u64 });
        }
        let failed = |errno| KvmError::Map { bytes: bytes as u64, errno };
        let mapping = Mapping::of_vcpu(vcpu, bytes).map_err(failed)?;
        Ok(Self { mapping, inside: Inside::nobody() })
    }

    /// Puts the union of an owned page into the live one. The bytes before it are the kernel's and the kickers'.
    pub(crate) fn put_union(&self, exit: &[u8; UNION_BYTES]) -> Result<(), Errno> {
        self.mapping.write(UNION, exit)
    }

    /// Copies the live page out. `immediate_exit` is read as the byte that others write meanwhile.
    pub(crate) fn take_page(&self, page: &mut RunPage) -> Result<(), Errno> {
        let immediate_exit = self.immediate_exit().load(Ordering::Relaxed);
        let (user, rest) = page.as_mut_bytes().split_at_mut(usize::from(IMMEDIATE_EXIT));
        self.mapping.read(0, user)?;
        if let Some((byte, rest)) = rest.split_first_mut() {
            *byte = immediate_exit;
            self.mapping.read(usize::from(IMMEDIATE_EXIT) + 1, rest)?;
        }
        Ok(())
    }

    /// Puts data into the port page, `start` bytes behind its start.
    pub(crate) fn put_port(&self, start: usize, data: &[u8]) -> Result<(), Errno> {
        self.mapping.write(PORT_PAGE.saturating_add(start), data)
    }

    /// Copies data out of the port page, from `start` bytes behind its start on.
    pub(crate) fn take_port(&self, start: usize, data: &mut [u8]) -> Result<(), Errno> {
        self.mapping.read(PORT_PAGE.saturating_add(start), data)
    }

    /// `KVM_RUN` by the calling thread, without running the guest if it drains.
    pub(crate) fn enter(&self, vcpu: &VcpuFd, drain: bool) -> Result<(), Errno> {
        let thread = signal_unsafe::current_thread();
        self.inside.enter(self.immediate_exit(), thread, drain, || ioctl_unsafe::run(vcpu))
    }

    /// Makes entries return with `EINTR` until [`RunArea::clear_kick`], the one that runs among them.
    pub(crate) fn kick(&self) {
        self.inside.kick(self.immediate_exit(), signal_unsafe::send);
    }

    /// Lets entries run the guest again.
    pub(crate) fn clear_kick(&self) {
        self.immediate_exit().clear(Asker::Kicker);
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        self.mapping.atomic(IMMEDIATE_EXIT)
    }
}
