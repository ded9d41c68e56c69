//! The port: what a kernel half offers, and what a VMM half needs from its host.

use crate::conversion::{Conversion, PageRange, PageState};
use crate::exit::{Entered, Exit};
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, Gpa, Kernel};

/// One vCPU of a kernel half, real or in software.
///
/// The run page is the implementor's own copy: [`Vcpu::enter`] puts the answer into the live page, enters, and takes
/// the new bytes out. So the page holds still while it is decoded.
pub trait Vcpu {
    /// `KVM_RUN`: hands the answer over, runs the guest, and brings the next exit.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl. `exit::decode` says what it means.
    fn enter(&mut self) -> Entered;

    /// `KVM_RUN` with `immediate_exit` set: hands the answer over without running the guest. `EINTR` says that
    /// nothing is pending any more; success says that the answer led to another exit, which wants its own answer.
    ///
    /// # Errors
    ///
    /// As for [`Vcpu::enter`].
    fn enter_immediately(&mut self) -> Entered;

    /// Which kernel writes the page.
    fn kernel(&self) -> Kernel;

    /// The page after the last entry.
    fn page(&self) -> &RunPage;

    /// The page, for the answer.
    fn page_mut(&mut self) -> &mut RunPage;

    /// The port page: data of a port I/O exit, read before the answer and written as part of it.
    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES];
}

/// The events of a vCPU, which a snapshot carries.
pub trait Events {
    /// `KVM_GET_VCPU_EVENTS`. It does not consume what it reports.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl.
    fn events(&mut self) -> Result<VcpuEvents, Errno>;

    /// `KVM_SET_VCPU_EVENTS`.
    ///
    /// # Errors
    ///
    /// The error number of the ioctl. With `EINVAL` a part of the events may have been taken over.
    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno>;

    /// The flags that this VM's capabilities allow in `events.flags`: `KVM_VCPUEVENT_VALID_*`.
    fn event_flags(&self) -> u32;
}

/// Which memory behind a page is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// The memory that the VMM maps.
    Shared,
    /// The `guest_memfd`.
    Private,
}

/// One effect on the host. Policy returns them, an executor applies them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    SetAttributes {
        /// Which pages.
        range: PageRange,
        /// What they become.
        to: PageState,
    },
    /// Give back the memory that the pages no longer use.
    Discard {
        /// Which pages.
        range: PageRange,
        /// Which of their two memories.
        backing: Backing,
    },
    /// Give private memory to the pages before the guest touches them: `KVM_PRE_FAULT_MEMORY`. A host may refuse, and
    /// the guest pays with exits then.
    Prefault {
        /// Which pages.
        range: PageRange,
    },
    /// Write to shared guest memory.
    WriteGuest {
        /// Where.
        gpa: Gpa,
        /// What.
        bytes: &'a [u8],
    },
}

/// What a VMM half needs from its host.
pub trait Host {
    /// Applies one effect.
    ///
    /// # Errors
    ///
    /// The error number of the system call that failed. The effect may have been applied in part.
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno>;

    /// The vCPU whose exit is being answered, as the host counts. A TD gets interrupts on the vCPU that asked for them.
    fn vcpu_id(&self) -> u64 {
        0
    }

    /// A run of pages is about to change: what maps them for devices has to let go of pages that become private.
    ///
    /// # Errors
    ///
    /// The run is not converted, nothing has changed, and the guest is told that it failed.
    fn before_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        let _ = conversion;
        Ok(())
    }

    /// A run of pages has changed, and nothing has been discarded yet: what maps memory for devices takes pages in that
    /// have become shared.
    ///
    /// # Errors
    ///
    /// The attributes are set back, [`Host::undo_conversion`] follows, and the guest is told that it failed.
    fn after_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        let _ = conversion;
        Ok(())
    }

    /// A run that [`Host::before_conversion`] was told of does not change after all: what it did is to be undone.
    fn undo_conversion(&mut self, conversion: Conversion) {
        let _ = conversion;
    }

    /// The run ends with this exit, and the policy wants kept what can be kept of the guest: registers and the memory
    /// that the VMM may read, of a guest that is not confidential all of it. Nothing is kept by default.
    fn dump(&mut self, exit: &Exit) {
        let _ = exit;
    }

    /// Reads shared guest memory, once. Quotes of TDs and the dialect `vmgexit-v10` need it, and a host may do without.
    ///
    /// # Errors
    ///
    /// `EFAULT` where no memory is; `EOPNOTSUPP` by default.
    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        let _ = (gpa, bytes);
        Err(Errno::EOPNOTSUPP)
    }

    /// The guest wrote `data` to a port, in elements of `size` bytes. Nothing listens by default.
    fn port_out(&mut self, port: u16, size: u8, data: &[u8]) {
        let _ = (port, size, data);
    }

    /// The guest reads `data` from a port, in elements of `size` bytes. An empty bus reads as all ones.
    fn port_in(&mut self, port: u16, size: u8, data: &mut [u8]) {
        let _ = (port, size);
        data.fill(0xff);
    }

    /// The guest wrote `data` where no memory is. Nothing listens by default.
    fn mmio_write(&mut self, gpa: Gpa, data: &[u8]) {
        let _ = (gpa, data);
    }

    /// The guest reads `data` where no memory is. An empty bus reads as all ones.
    fn mmio_read(&mut self, gpa: Gpa, data: &mut [u8]) {
        let _ = gpa;
        data.fill(0xff);
    }
}
