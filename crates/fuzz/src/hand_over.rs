//! The two sides of a migration, of which the other one says anything.

use exeunt::migrate::{
    Action, Frames, Input, Message, MessageError, Offer, Record, Side, Source, Target, TransferId,
};
use std::collections::VecDeque;

const TRANSFER: TransferId = TransferId([1; 16]);

/// The bytes are what comes over the socket, and a record.
pub(crate) fn hand_over(data: &[u8]) {
    if let Ok(record) = Record::from_bytes(data) {
        assert_eq!(record.to_bytes(), data, "a record has one form");
    }
    let inputs = inputs(data);
    target(inputs.clone());
    source(inputs);
}

/// The messages of a stream, and how it ends.
fn inputs(data: &[u8]) -> VecDeque<Input> {
    let (mut frames, mut inputs, mut rest) = (Frames::default(), VecDeque::new(), data);
    let broken = |error: MessageError| Input::Broken(error);
    loop {
        match frames.pop() {
            Ok(Some(message)) => {
                let bytes = message.to_bytes();
                let mut again = Frames::default();
                again.push(&bytes);
                assert_eq!(again.pop(), Ok(Some(message.clone())), "what is sent is what is read");
                inputs.push_back(Input::Message(message));
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                inputs.push_back(broken(error));
                return inputs;
            }
        }
        let wants = frames.wants().unwrap_or(0).min(rest.len());
        if wants == 0 {
            inputs.push_back(frames.finish().map_or_else(broken, |()| Input::Closed));
            return inputs;
        }
        let (now, later) = rest.split_at(wants);
        frames.push(now);
        rest = later;
    }
}

/// A target runs only what it has all bytes of, what it holds, and what it was given.
fn target(mut inputs: VecDeque<Input>) {
    let (mut machine, mut action) = Target::begin(0, 1, 1 << 16);
    let (mut bytes, mut has_record, mut was_given) = (0u64, false, false);
    let mut next = || inputs.pop_front().unwrap_or(Input::Closed);
    loop {
        let input = match &action {
            Action::Run => {
                let offered = machine.offer().map(|offer| offer.bytes);
                assert!(offered == Some(bytes) && has_record && was_given);
                return;
            }
            Action::Stop(_) => return,
            Action::Wait { .. } => next(),
            Action::Keep { bytes: more, left_bytes, .. } => {
                bytes += more.len() as u64;
                if *left_bytes == 0 { Input::Done } else { next() }
            }
            Action::Record(Record::Holds { .. }) => {
                has_record = true;
                Input::Done
            }
            Action::Decide(_, side) => {
                assert!(has_record && *side == Side::Target);
                was_given = true;
                Input::Decided(Side::Target)
            }
            Action::Check(offer) => {
                let _ = offer.read();
                Input::Done
            }
            _ => Input::Done,
        };
        (machine, action) = machine.handle(0, input);
    }
}

/// A source that has offered runs or gives up only as it was told.
fn source(mut inputs: VecDeque<Input>) {
    let (mut machine, mut action) = Source::begin(TRANSFER, 1);
    let offer =
        Offer { transfer: TRANSFER, checkpoint: [2; 32], bytes: 1, origin: Vec::new(), needs: Vec::new() };
    let decides = if inputs.len() % 2 == 0 { Side::Source } else { Side::Target };
    let mut was_told = None;
    loop {
        let input = match &action {
            Action::Run => return assert_eq!(was_told, Some(Side::Source)),
            Action::Stop(_) => return assert_eq!(was_told, Some(Side::Target)),
            Action::Save => Input::Saved(offer.clone()),
            Action::Wait { .. } => inputs.pop_front().unwrap_or(Input::Closed),
            Action::Send(message) => {
                assert!(matches!(message, Message::Offer(_)));
                Input::Done
            }
            Action::Decide(..) => {
                was_told = Some(decides);
                Input::Decided(decides)
            }
            _ => Input::Done,
        };
        (machine, action) = machine.handle(0, input);
    }
}
