//! What a guest asks for through the GHCB, and what it is told.

mod guest_message;
mod msr;
mod msr_response;
mod outcome;
mod page;
mod psc;

pub use guest_message::{MessageError, MessageHeader};
pub use msr::MsrRequest;
pub use msr_response::MsrResponse;
pub use outcome::{Exception, GuestRequestResult, Malformed, Outcome, PscResult};
pub use page::GhcbPage;
pub use psc::{PscEntry, PscEntryError, PscError, PscOperation, PscRequest};
