//! One line on standard error that says what is being played, where someone looks at a terminal.

use super::Args;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// What ends sooner needs no line.
const DELAY: Duration = Duration::from_millis(150);

/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

pub(super) struct Progress {
    is_wanted: bool,
    is_shown: bool,
    started: Instant,
}

impl Progress {
    pub(super) fn new(args: &Args) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_wanted = !args.quiet && !args.no_progress && !is_dumb && stderr().is_terminal();
        // A VMM can hang in its first scene, and someone has to see in which.
        let delay = if args.is_foreign() { Duration::ZERO } else { DELAY };
        let now = Instant::now();
        Self { is_wanted, is_shown: false, started: now.checked_add(delay).unwrap_or(now) }
    }

    /// The scene that is played now.
    pub(super) fn show(&mut self, scene: &str, nth: usize, of: usize) {
        if !self.is_wanted || Instant::now() < self.started {
            return;
        }
        self.is_shown = true;
        let line: String = format!("[{nth}/{of}] {scene}").chars().take(columns()).collect();
        // Nobody is left to tell if this fails.
        let _ = write!(stderr(), "\r\x1b[K{line}");
    }

    /// Nothing is played any more, and no line is left.
    pub(super) fn clear(&mut self) {
        if self.is_shown {
            let _ = write!(stderr(), "\r\x1b[K");
            self.is_shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One less than there are, so that the cursor stays in its line.
fn columns() -> usize {
    let known = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| usize::from(size.ws_col));
    if known == 0 { COLUMNS - 1 } else { known.saturating_sub(1) }
}
