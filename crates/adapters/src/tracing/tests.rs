use super::*;
use exeunt::layer::event::{ActionKind, Effect, ExitKind, PlanKind};
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::ghci::FatalError;
use exeunt_proto::reply::{ConversionReply, Reply};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// Keeps every span and event as one line of text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "exeunt"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        self.0.lock().unwrap().push(format!("span{}", fields.0));
        Id::from_u64(7)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let parent = event.parent().map_or(0, Id::into_u64);
        self.0.lock().unwrap().push(format!("{} in {parent}{}", event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn an_exit_is_a_span_with_its_events_and_an_end_has_the_level_of_its_severity() {
    let lines = Lines::default();
    let mut message = [0; 64];
    message[..8].copy_from_slice(b"no\n\x1b a=1");
    let fatal = Stop::FatalError(Box::new(FatalError { error: 5, gpa: None, message }));
    tracing::subscriber::with_default(lines.clone(), || {
        let mut observer = Tracing::new();
        let effect = |result| {
            Event::Effect(Effect { kind: ActionKind::MakeShared, gpa: Gpa(0x1000), size_bytes: 4096, result })
        };
        observer.event(&Event::Exit { kind: ExitKind::Hypercall, errno: None });
        observer.event(&Event::Plan(PlanKind::Convert));
        observer.event(&effect(Ok(())));
        observer.event(&effect(Err(Errno::ENOMEM)));
        observer.event(&Event::Reply(Reply::Conversion(ConversionReply::Again)));
        observer.stop(&Stop::Shutdown);
        observer.event(&Event::Exit { kind: ExitKind::SystemEvent, errno: None });
        observer.stop(&fatal);
    });
    let seen = lines.0.lock().unwrap().clone();
    let expected = [
        "span kind=\"hypercall\" errno=0",
        "TRACE in 7 plan=\"convert\"",
        "TRACE in 7 effect=\"make_shared\" gpa=4096 size_bytes=4096",
        "WARN in 7 message=failed effect=\"make_shared\" gpa=4096 size_bytes=4096 errno=ENOMEM",
        "TRACE in 7 reply=\"conversion_again\"",
        "WARN in 0 message=warning: triple_fault: the guest was shut down by a triple fault (exit status 20) \
         kind=\"triple_fault\" status=20 detail=",
        "span kind=\"system_event\" errno=0",
        "WARN in 7 message=warning: tdx_fatal: the TD gave up: fatal error 0x5: \"no\\n\\x1b a=1\" (exit status 23) \
         kind=\"tdx_fatal\" status=23 detail=error=0x5 message=\"no\\n\\x1b a=1\"",
    ];
    assert_eq!(seen, expected);
}
