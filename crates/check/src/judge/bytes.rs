//! The bytes of the exit that a rule was broken at.

use super::view::ExitView;
use crate::timeline::{meaning, payload_bytes};
use zerocopy::IntoBytes as _;

/// An exit as `KVM_RUN` brought it, and what was in its place when the vCPU was entered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitBytes {
    /// What the ioctl returned: 0, or the name of the error.
    pub returned: String,
    /// `exit_reason`, with its name.
    pub reason: String,
    /// What the bytes mean.
    pub meaning: String,
    /// The bytes of the union that the exit is made of, from offset 0x20 of the page.
    pub exit: Vec<u8>,
    /// The same bytes at the next entry of the vCPU: the VMM's answer. There is none if it did not enter again.
    pub answer: Option<Vec<u8>>,
    /// The head of `struct kvm_run`, up to the end of the union.
    pub page: Vec<u8>,
}

impl ExitBytes {
    pub(super) fn of(exit: &ExitView<'_>) -> Self {
        let page = &exit.run.after;
        let length = payload_bytes(&exit.meaning);
        let head = |union: &[u8]| union.get(..length).unwrap_or_default().to_vec();
        Self {
            returned: exit.run.entered.map_or_else(|errno| errno.to_string(), |()| "0".into()),
            reason: page.reason().to_string(),
            meaning: exit.meaning.as_ref().map_or_else(ToString::to_string, meaning),
            exit: head(&page.exit),
            answer: exit.answer.map(|run| head(&run.before.exit)),
            page: page.as_bytes().to_vec(),
        }
    }
}
