//! Events for the `tracing` crate.
//!
//! Each exit is a span `exit` at level `DEBUG` with the fields `kind` and `errno`; plan, effects and answer are events in
//! it at `TRACE`, a failed effect at `WARN`. An end is an event at the level of its severity, with the fields `kind`,
//! `status` and `detail`, and the line for the log as its message. Target of all: `exeunt`. Text that a guest chose is
//! escaped and in quotes.

use std::fmt;

use exeunt::Stop;
use exeunt::layer::event::{Event, ReplyKind};
use exeunt::layer::trace::Observer;
use exeunt::terminate::{Field, Severity};
use tracing::{Span, debug_span, error, info, trace, warn};

/// An observer that hands all to the subscriber of the moment. One for each vCPU.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    span: Option<Span>,
}

impl Tracing {
    /// An observer between two exits.
    #[must_use]
    pub const fn new() -> Self {
        Self { span: None }
    }
}

impl Observer for Tracing {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Exit { kind, errno } => {
                let errno = errno.map_or(0, |errno| errno.0);
                self.span = Some(debug_span!(target: "exeunt", "exit", kind = kind.name(), errno));
            }
            Event::Plan(kind) => {
                let parent = self.span.as_ref().and_then(Span::id);
                trace!(target: "exeunt", parent: parent, plan = kind.name());
            }
            Event::Effect(effect) => {
                let parent = self.span.as_ref().and_then(Span::id);
                let (name, gpa, size_bytes) = (effect.kind.name(), effect.gpa.0, effect.size_bytes);
                match effect.result {
                    Ok(()) => trace!(target: "exeunt", parent: parent, effect = name, gpa, size_bytes),
                    Err(errno) => {
                        warn!(target: "exeunt", parent: parent, effect = name, gpa, size_bytes, %errno, "failed");
                    }
                }
            }
            Event::Reply(reply) => {
                let parent = self.span.take().and_then(|span| span.id());
                trace!(target: "exeunt", parent: parent, reply = ReplyKind::of(&reply).name());
            }
            _ => {}
        }
    }

    fn stop(&mut self, stop: &Stop) {
        let parent = self.span.take().and_then(|span| span.id());
        let (kind, detail, line) = (stop.kind(), Detail(stop), stop.log_line());
        let (severity, name, status) = (kind.severity(), kind.name(), kind.exit_status());
        match severity {
            Severity::Info => {
                info!(target: "exeunt", parent: parent, kind = name, status, %detail, "{line}");
            }
            Severity::Warning => {
                warn!(target: "exeunt", parent: parent, kind = name, status, %detail, "{line}");
            }
            Severity::Error | Severity::Critical => {
                error!(target: "exeunt", parent: parent, kind = name, status, %detail, "{line}");
            }
        }
    }
}

/// The fields of a stop, `name=value` with blanks between, and quotes around what the guest wrote.
struct Detail<'a>(&'a Stop);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        let mut is_first = true;
        self.0.fields(|name, field| {
            let blank = if is_first { "" } else { " " };
            is_first = false;
            if result.is_ok() {
                result = match field {
                    // The guest may write `name=value`, too.
                    Field::GuestText(_) => write!(f, "{blank}{name}=\"{field}\""),
                    _ => write!(f, "{blank}{name}={field}"),
                };
            }
        });
        result
    }
}

#[cfg(test)]
mod tests;
