//! What a signal does: the check ends early, and what was judged so far is reported.

use crate::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The exit status of a shell for a program that `SIGINT` ended.
pub(super) const STATUS: u8 = 130;

/// A flag that the first signal sets. The second ends this process at once.
pub(super) fn on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the flag is looked at before it is set.
        flag::register_conditional_shutdown(signal, STATUS.into(), Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| format!("cannot wait for signals: {error}"))?;
    }
    Ok(stop)
}
