//! The leaf over `VcpuFd`.

use std::io;
use std::ptr::NonNull;

use exeunt::layer::trace::Observer;
use exeunt::{Policy, Stop};
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::RunPage;
use exeunt_proto::exit::{DecodeError, Entered};
use exeunt_proto::host::Host;
use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::leaf::{Leaf, Live, Served};
use crate::raw_unsafe::RawPage;

/// What `KVM_RUN` returned, from what `VcpuFd::run` made of it.
///
/// Call it on the result of `run` before anything else makes a system call: kvm-ioctls reports a memory fault without
/// its error number, and `EHWPOISON`, which no conversion mends, is told from `EFAULT` by the thread's `errno`.
///
/// # Errors
///
/// Not a failure: the error number that `KVM_RUN` returned, `EFAULT` with a memory fault among them.
pub fn entered(exit: &Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Entered {
    match exit {
        Ok(VcpuExit::MemoryFault { .. }) => {
            let errno = io::Error::last_os_error().raw_os_error().map(Errno);
            Err(errno.filter(|errno| *errno == Errno::EHWPOISON).unwrap_or(Errno::EFAULT))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Errno(error.errno())),
    }
}

impl<H: Host, O: Observer> Leaf<H, O> {
    /// As [`Leaf::serve`], on the run page of a `VcpuFd`. An answer that is held is handed over here, by entries that
    /// do not run the guest, so that an `EINTR` never has to come back to it.
    pub fn serve_vcpu(&mut self, entered: Entered, vcpu: &mut VcpuFd, policy: &Policy) -> Served {
        let mut served = self.serve(entered, &mut page(vcpu), policy);
        while self.is_held() && served == Served::Served {
            let entered = entered_again(vcpu);
            served = match self.serve(entered, &mut page(vcpu), policy) {
                Served::NotOurs if entered == Err(Errno::EINTR) => return Served::Served,
                // Nothing but what followed from the answer can come, and that is ours or a failure.
                Served::NotOurs => {
                    page(vcpu).release();
                    let stale = page(vcpu).reason();
                    let errno = entered.err().unwrap_or(Errno::EIO);
                    Served::Stop(Stop::Enter(DecodeError::Failed { errno, stale }))
                }
                served => served,
            };
        }
        served
    }
}

fn entered_again(vcpu: &mut VcpuFd) -> Entered {
    entered(&vcpu.run())
}

// The page of kvm-bindings holds all that a `RunPage` does.
const _: () = assert!(size_of::<kvm_run>() >= size_of::<RunPage>());
const _: () = assert!(align_of::<kvm_run>() >= align_of::<RunPage>());

/// The run page of a vCPU.
fn page(vcpu: &mut VcpuFd) -> RawPage {
    let run = NonNull::from(vcpu.get_kvm_run());
    // SAFETY: kvm-ioctls maps the page for as long as the vCPU lives and lends it exclusively, so that no thread is
    // in `KVM_RUN`; the reference that it lends is not used again while the value lives.
    unsafe { RawPage::from_mapped(run.cast()) }
}
