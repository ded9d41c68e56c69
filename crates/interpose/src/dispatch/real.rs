//! Calls that the kernel answers: what crossed is looked at before and after.

use super::overlay::{By, Call};
use super::run::Vcpu;
use super::{Dispatcher, argument};
use crate::record::{File, Run, What};
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
                return self.before_run(fd, vcpu, arg, memory);
            }
        }
        let Some(on) = self.files.file(fd) else { return Before::NotOurs };
        let before = argument::bytes(memory.as_ref(), request, arg);
        let pending = Pending { on, request, arg, what: Kind::Other { before } };
        let call = Call { on, request, arg, memory: memory.as_ref() };
        let answer = self.overlay.as_ref().and_then(|overlay| overlay.ioctl(&call));
        if let Some(result) = answer {
            self.after(pending, result, memory);
            return Before::Done(result);
        }
        Before::Call(pending)
    }

    fn before_run(&self, fd: i32, vcpu: Arc<Vcpu>, arg: u64, memory: &Arc<dyn UserMemory>) -> Before {
        let on = File::Vcpu(vcpu.vm, vcpu.id);
        self.sink.enter();
        self.tell_what_was_written(&vcpu, memory);
        // The overlay may put other bytes in the place of the answer, for the kernel.
        let before = vcpu.pages.run();
        if let Some(overlay) = &self.overlay {
            let turn = overlay.run(on, &vcpu.pages, &|| self.process.enter(fd));
            let result = match turn.by {
                By::Us(result) => {
                    self.put_in(&vcpu, before.clone(), result, memory);
                    Some(result.map(|()| 0))
                }
                By::KernelAlready(result) => {
                    self.ran(&vcpu, &before, result.map(|_| ()), &vcpu.pages.run(), memory);
                    Some(result)
                }
                By::Kernel => {
                    // The guest may never leave the kernel again, so the answer is told now.
                    if turn.is_answer {
                        self.tell_of_answer(&vcpu, before.clone());
                    }
                    None
                }
            };
            turn.notes.into_iter().for_each(|note| self.put(note));
            if let Some(result) = result {
                return Before::Done(result);
            }
        }
        Before::Call(Pending { on, request: nr::KVM_RUN.0, arg, what: Kind::Run { vcpu, before } })
    }

    /// An exit was put in.
    fn put_in(&self, vcpu: &Vcpu, before: RunPage, result: Result<(), Errno>, memory: &Arc<dyn UserMemory>) {
        let after = vcpu.pages.run();
        self.watch(vcpu, result, &after, memory);
        let (vm, vcpu) = (vcpu.vm, vcpu.id);
        self.put(What::Run(Box::new(Run {
            vm,
            vcpu,
            immediate: false,
            injected: true,
            before,
            result,
            after,
        })));
    }

    /// The VMM has answered an exit that was put in. It is told as a call that only takes the answer.
    fn tell_of_answer(&self, vcpu: &Vcpu, mut before: RunPage) {
        let [_, immediate_exit, ..] = &mut before.user;
        *immediate_exit = 1;
        let (vm, vcpu, after) = (vcpu.vm, vcpu.id, before.clone());
        let result = Err(Errno::EINTR);
        self.put(What::Run(Box::new(Run {
            vm,
            vcpu,
            immediate: true,
            injected: true,
            before,
            result,
            after,
        })));
    }

    /// The kernel did what was told before. Returns the descriptor that the call made, if it is one that is known from
    /// now on.
    pub fn after(
        &self,
        pending: Pending,
        result: Result<u32, Errno>,
        memory: &Arc<dyn UserMemory>,
    ) -> Option<i32> {
        let Pending { on, request, arg, what } = pending;
        match what {
            Kind::Run { vcpu, before } => {
                let after = vcpu.pages.run();
                self.ran(&vcpu, &before, result.map(|_| ()), &after, memory);
                None
            }
            Kind::Other { before } => {
                let (after, made) = self.behind(on, request, arg, result, memory);
                let (fd, made) = made.unzip();
                if let Some(overlay) = &self.overlay {
                    let call = Call { on, request, arg, memory: memory.as_ref() };
                    overlay.made(&call, result, made);
                }
                self.put(What::Ioctl { on, request, arg, before, after, result, made });
                fd
            }
        }
    }
}
