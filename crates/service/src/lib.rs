//! The VMM half of the KVM confidential exit boundary: plans and carries out the answer to every exit.
//!
//! [`run::step`] is the whole way of one exit: enter, decode, plan, carry out, reply. A VMM that has a loop of its own
//! calls the same five functions from the arm of its `match`; see [`policy::Policy::plan`] and [`plan::Plan`].
//!
//! What the guest asks for is answered to the guest. What the kernel says that has no answer ends the run with a
//! [`stop::Stop`]. Nothing here makes a system call: effects go through `exeunt_proto::host::Host`.
#![forbid(unsafe_code)]

pub mod certs;
mod fault;
pub mod layer;
pub mod memory;
pub mod migrate;
pub mod plan;
pub mod policy;
pub mod run;
pub mod snapshot;
pub mod stop;
mod sync;
pub mod tdx;
pub mod terminate;
mod vmgexit;

pub use plan::{Answer, Plan};
pub use policy::Policy;
pub use run::{Watch, commit, drain, run, step};
pub use stop::Stop;
