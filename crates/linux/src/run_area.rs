//! The live run area of a vCPU: run page, port page, and who is inside `KVM_RUN`.

use std::sync::atomic::{AtomicI32, Ordering};

use exeunt_abi::Errno;
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage, UNION_BYTES};
use kvm_ioctls::VcpuFd;
use zerocopy::IntoBytes;

use crate::error::KvmError;
use crate::mapping_unsafe::Mapping;
use crate::{ioctl_unsafe, signal_unsafe};

/// Offset of `immediate_exit` in `kvm_run`.
const IMMEDIATE_EXIT: u8 = 1;
/// Offset of the exit union in `kvm_run`.
const UNION: usize = 32;
/// Where the port page starts, `KVM_PIO_PAGE_OFFSET` pages behind the run page.
const PORT_PAGE: usize = 4096;

/// A party that sets `immediate_exit`: one bit of the byte, since the kernel asks only whether it is zero.
///
/// With a bit for each party no one can undo what the other asked for, in whatever order they come: setting and
/// clearing are atomic on the byte as a whole and touch the own bit alone. With plain stores an entry that drains
/// could only guess whether the 1 that it finds afterwards is its own or that of a kick that came meanwhile.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Asker {
    /// A `Kicker`, from any thread or signal handler.
    Kicker = 1 << 0,
    /// An entry that is not to run the guest.
    Drain = 1 << 1,
}

/// The mapping of a vCPU, shared with its kickers.
#[derive(Debug)]
pub(crate) struct RunArea {
    mapping: Mapping,
    /// The thread in `KVM_RUN`, or about to be, or just out of it; 0 for none.
    inside: AtomicI32,
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
        Ok(Self { mapping, inside: AtomicI32::new(0) })
    }

    /// Puts the union of an owned page into the live one. The bytes before it are the kernel's and the kickers'.
    pub(crate) fn put_union(&self, exit: &[u8; UNION_BYTES]) -> Result<(), Errno> {
        self.mapping.write(UNION, exit)
    }

    /// Copies the live page out. `immediate_exit` is read as the byte that others write meanwhile.
    pub(crate) fn take_page(&self, page: &mut RunPage) -> Result<(), Errno> {
        let immediate_exit = self.mapping.atomic(IMMEDIATE_EXIT).load(Ordering::Relaxed);
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

    /// Asks that the next entries return with `EINTR` before they run the guest, until [`RunArea::clear`].
    pub(crate) fn ask(&self, asker: Asker) {
        self.mapping.atomic(IMMEDIATE_EXIT).fetch_or(asker as u8, Ordering::SeqCst);
    }

    /// Takes the question back.
    pub(crate) fn clear(&self, asker: Asker) {
        self.mapping.atomic(IMMEDIATE_EXIT).fetch_and(!(asker as u8), Ordering::SeqCst);
    }

    /// `KVM_RUN`, with the calling thread's id on show for [`RunArea::interrupt`].
    pub(crate) fn enter(&self, vcpu: &VcpuFd) -> Result<(), Errno> {
        self.inside.store(signal_unsafe::current_thread(), Ordering::SeqCst);
        let entered = ioctl_unsafe::run(vcpu);
        self.inside.store(0, Ordering::SeqCst);
        entered
    }

    /// Sends the signal to the thread in `KVM_RUN`, if there is one. To be called after [`RunArea::ask`].
    ///
    /// No kick is lost: the one side shows its id and then lets the kernel read the byte, the other sets the byte
    /// and then reads the id, each in one order that all agree on. So either the kernel sees the byte, or the id is
    /// seen here and the signal finds the thread in `KVM_RUN`, or before it, and then the kernel sees the byte.
    pub(crate) fn interrupt(&self) {
        match self.inside.load(Ordering::SeqCst) {
            0 => {}
            thread => signal_unsafe::send(thread),
        }
    }
}
