//! Watching one exit on its way.

use super::event::{Effect, Event, PlanKind};
use crate::plan::Plan;
use crate::stop::Stop;
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::RunPage;
use exeunt_proto::exit::{DecodeError, Entered, Exit};
use exeunt_proto::host::Action;
use exeunt_proto::reply::Reply;

/// Someone who is told of each station. `()` is told and does nothing, at no cost.
///
/// Who wants small values implements [`Observer::event`] alone. Who wants the page, the plan and the bytes
/// implements the others, each of which takes the place of its event.
pub trait Observer {
    /// Something happened. All that happens comes here, unless a method below was taken for it.
    fn event(&mut self, event: &Event) {
        let _ = event;
    }

    /// The kernel half came back with this page, which means this.
    fn exit(&mut self, entered: Entered, page: &RunPage, exit: &Result<Exit, DecodeError>) {
        let _ = page;
        self.event(&Event::of_exit(entered, exit));
    }

    /// This will be done.
    fn plan(&mut self, plan: &Plan<'_>) {
        self.event(&Event::Plan(PlanKind::of(plan)));
    }

    /// This was done, or failed.
    fn effect(&mut self, action: &Action<'_>, result: Result<(), Errno>) {
        self.event(&Event::Effect(Effect::of(action, result)));
    }

    /// This was answered; the page holds the answer.
    fn reply(&mut self, reply: Reply, page: &RunPage) {
        let _ = page;
        self.event(&Event::Reply(reply));
    }

    /// The vCPU is not entered again.
    fn stop(&mut self, stop: &Stop) {
        self.event(&Event::Stop(stop.kind()));
    }
}

impl Observer for () {}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn event(&mut self, event: &Event) {
        (**self).event(event);
    }

    fn exit(&mut self, entered: Entered, page: &RunPage, exit: &Result<Exit, DecodeError>) {
        (**self).exit(entered, page, exit);
    }

    fn plan(&mut self, plan: &Plan<'_>) {
        (**self).plan(plan);
    }

    fn effect(&mut self, action: &Action<'_>, result: Result<(), Errno>) {
        (**self).effect(action, result);
    }

    fn reply(&mut self, reply: Reply, page: &RunPage) {
        (**self).reply(reply, page);
    }

    fn stop(&mut self, stop: &Stop) {
        (**self).stop(stop);
    }
}

/// Two that are told one after the other.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn event(&mut self, event: &Event) {
        self.0.event(event);
        self.1.event(event);
    }

    fn exit(&mut self, entered: Entered, page: &RunPage, exit: &Result<Exit, DecodeError>) {
        self.0.exit(entered, page, exit);
        self.1.exit(entered, page, exit);
    }

    fn plan(&mut self, plan: &Plan<'_>) {
        self.0.plan(plan);
        self.1.plan(plan);
    }

    fn effect(&mut self, action: &Action<'_>, result: Result<(), Errno>) {
        self.0.effect(action, result);
        self.1.effect(action, result);
    }

    fn reply(&mut self, reply: Reply, page: &RunPage) {
        self.0.reply(reply, page);
        self.1.reply(reply, page);
    }

    fn stop(&mut self, stop: &Stop) {
        self.0.stop(stop);
        self.1.stop(stop);
    }
}
