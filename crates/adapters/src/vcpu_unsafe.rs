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
                    let mut page = page(vcpu);
                    let (errno, stale) = (entered.err().unwrap_or(Errno::EIO), page.reason());
                    self.stop(Stop::Enter(DecodeError::Failed { errno, stale }), &mut page)
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use exeunt::certs::{Certificates, CheckedTable, Guard, Lease, Provider, Unavailable};
    use exeunt::layer::event::Event;
    use exeunt::memory::{GuestMemory, MemorySlot};
    use exeunt::terminate::StopKind;
    use exeunt_abi::{Gfn, Gpa, Kernel};
    use exeunt_proto::conversion::PageRange;
    use exeunt_proto::exit::{self, Exit, SnpReqCerts};
    use exeunt_proto::host::Action;
    use kvm_ioctls::Kvm;

    #[derive(Debug)]
    struct Locks;

    impl Guard for Locks {}

    impl Provider for Locks {
        fn lease(&self) -> Result<Lease, Unavailable> {
            Ok(Lease::guarded(CheckedTable::empty().into(), Self))
        }
    }

    struct Effects;

    impl Host for Effects {
        fn apply(&mut self, _: &Action<'_>) -> Result<(), Errno> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Stops(Vec<StopKind>);

    impl Observer for Stops {
        fn event(&mut self, event: &Event) {
            if let Event::Stop(kind) = event {
                self.0.push(*kind);
            }
        }
    }

    /// Serves a request for certificates that are locked, with entries of KVM that find these registers to be synchronized.
    fn serve(valid_regs: u64) -> Option<(Served, bool, Vec<StopKind>, u8)> {
        let made = Kvm::new().and_then(|kvm| kvm.create_vm()).and_then(|vm| vm.create_vcpu(0));
        let Ok(mut vcpu) = made.inspect_err(|error| eprintln!("skipped: a held answer: /dev/kvm: {error}"))
        else {
            return None;
        };
        let range = PageRange::new(Gfn(0), 64)?;
        let slot = MemorySlot { range, has_private: false };
        let mut policy = Policy::new(GuestMemory::new([slot]).ok()?);
        policy.certificates = Certificates::From(std::sync::Arc::new(Locks));
        let mut asked = RunPage::zeroed();
        let request = Exit::SnpReqCerts(SnpReqCerts { gpa: Gpa(0x1000), pages: 4 });
        let entered = exit::encode(&request, Kernel::default(), &mut asked);
        vcpu.get_kvm_run().exit_reason = asked.exit_reason;
        vcpu.get_kvm_run().kvm_valid_regs = valid_regs;
        page(&mut vcpu).put(0, &asked.exit);
        let mut leaf = Leaf::new(Kernel::default(), Effects).observed(Stops::default());
        let served = leaf.serve_vcpu(entered, &mut vcpu, &policy);
        let immediate_exit = vcpu.get_kvm_run().immediate_exit;
        Some((served, leaf.is_held(), std::mem::take(&mut leaf.observer_mut().0), immediate_exit))
    }

    #[test]
    fn an_answer_that_is_held_is_handed_over_without_the_guest() {
        let Some(served) = serve(0) else { return };
        assert_eq!(served, (Served::Served, false, vec![], 0));
    }

    #[test]
    fn an_entry_that_fails_with_an_answer_ends_the_lease_and_is_told() {
        let Some((served, is_held, stops, immediate_exit)) = serve(u64::MAX) else { return };
        let Served::Stop(Stop::Enter(DecodeError::Failed { errno, .. })) = served else {
            panic!("{served:?}")
        };
        assert_eq!(errno, Errno::EINVAL);
        assert_eq!((is_held, stops, immediate_exit), (false, vec![StopKind::RunFailed], 0));
    }
}
