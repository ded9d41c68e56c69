//! Calls that the kernel answers: what crossed is looked at before and after.

use super::run::Vcpu;
use super::{Dispatcher, argument};
use crate::record::{File, What};
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::run::RunPage;
use exeunt_model::UserMemory;
use std::sync::Arc;

/// What to do with an ioctl.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is on the stack for the length of a call")]
pub enum Before {
    /// It is no business of the dispatcher.
    NotOurs,
    /// The kernel does it, and [`Dispatcher::after`] is told.
    Call(Pending),
    /// It is done.
    Done(Result<u32, Errno>),
}

/// An ioctl under way.
#[derive(Debug)]
pub struct Pending {
    on: File,
    request: u32,
    arg: u64,
    what: Kind,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is on the stack for the length of a call")]
enum Kind {
    Run { vcpu: Arc<Vcpu>, before: RunPage },
    Other { before: Vec<u8> },
}

impl Dispatcher {
    /// An ioctl that the kernel is to do.
    pub fn before(&self, fd: i32, request: u32, arg: u64, memory: &Arc<dyn UserMemory>) -> Before {
        if request == nr::KVM_RUN.0 {
            if let Some(vcpu) = self.files.vcpu(fd) {
                return self.before_run(vcpu, arg, memory);
            }
        }
        let Some(on) = self.files.file(fd) else { return Before::NotOurs };
        let before = argument::bytes(memory.as_ref(), request, arg);
        let pending = Pending { on, request, arg, what: Kind::Other { before } };
        let answer = self.overlay.as_ref().and_then(|overlay| overlay.ioctl(on, request, arg, memory));
        if let Some(result) = answer {
            self.after(pending, result, memory);
            return Before::Done(result);
        }
        Before::Call(pending)
    }

    fn before_run(&self, vcpu: Arc<Vcpu>, arg: u64, memory: &Arc<dyn UserMemory>) -> Before {
        let on = File::Vcpu(vcpu.vm, vcpu.id);
        self.sink.enter();
        self.tell_what_was_written(&vcpu, memory);
        if let Some(overlay) = &self.overlay {
            if let Some(result) = overlay.run(on, &vcpu.pages, memory, &|what| self.put(what)) {
                return Before::Done(result);
            }
        }
        let before = vcpu.pages.run();
        Before::Call(Pending { on, request: nr::KVM_RUN.0, arg, what: Kind::Run { vcpu, before } })
    }

    /// The kernel did what was told before.
    pub fn after(&self, pending: Pending, result: Result<u32, Errno>, memory: &Arc<dyn UserMemory>) {
        let Pending { on, request, arg, what } = pending;
        match what {
            Kind::Run { vcpu, before } => {
                let after = vcpu.pages.run();
                self.ran(&vcpu, before, result.map(|_| ()), &after, memory);
            }
            Kind::Other { before } => {
                let (after, made) = self.behind(on, request, arg, result, memory);
                self.put(What::Ioctl { on, request, arg, before, after, result, made });
            }
        }
    }
}
