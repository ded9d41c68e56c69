//! Watching one exit on its way.

use crate::plan::Plan;
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::RunPage;
use exeunt_proto::exit::{DecodeError, Entered, Exit};
use exeunt_proto::host::Action;
use exeunt_proto::reply::Reply;

/// Someone who is told of each station. `()` is told and does nothing, at no cost.
pub trait Observer {
    /// The kernel half came back with this page, which means this.
    fn exit(&mut self, entered: Entered, page: &RunPage, exit: &Result<Exit, DecodeError>) {
        let _ = (entered, page, exit);
    }

    /// This will be done.
    fn plan(&mut self, plan: &Plan<'_>) {
        let _ = plan;
    }

    /// This was done, or failed.
    fn effect(&mut self, action: &Action<'_>, result: Result<(), Errno>) {
        let _ = (action, result);
    }

    /// This was answered; the page holds the answer.
    fn reply(&mut self, reply: Reply, page: &RunPage) {
        let _ = (reply, page);
    }
}

impl Observer for () {}
