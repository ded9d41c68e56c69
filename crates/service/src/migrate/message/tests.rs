use super::*;

fn all() -> Vec<Message> {
    let offer = Offer {
        transfer: TransferId([1; 16]),
        checkpoint: [2; 32],
        bytes: 77,
        origin: b"origin".to_vec(),
        needs: b"needs".to_vec(),
    };
    vec![
        Message::Offer(offer),
        Message::Accept,
        Message::Refuse("no".into()),
        Message::Data(vec![9; 300]),
        Message::Taken,
        Message::Dropped(String::new()),
    ]
}

fn read(bytes: &[u8]) -> Result<Vec<Message>, MessageError> {
    let (mut frames, mut messages) = (Frames::default(), Vec::new());
    for byte in bytes {
        assert!(frames.wants()? > 0);
        frames.push(&[*byte]);
        while let Some(message) = frames.pop()? {
            messages.push(message);
        }
    }
    frames.finish()?;
    Ok(messages)
}

#[test]
fn messages_are_read_as_they_were_sent_byte_by_byte_and_all_at_once() {
    let bytes: Vec<u8> = all().iter().flat_map(Message::to_bytes).collect();
    assert_eq!(read(&bytes), Ok(all()));
    let mut frames = Frames::default();
    frames.push(&bytes);
    for message in all() {
        assert_eq!(frames.pop(), Ok(Some(message)));
    }
    assert_eq!((frames.pop(), frames.finish(), frames.wants()), (Ok(None), Ok(()), Ok(5)));
}

#[test]
fn a_stream_that_ends_inside_of_a_message_is_cut_off_at_every_byte() {
    for message in all() {
        let bytes = message.to_bytes();
        for length in 1..bytes.len() {
            assert_eq!(read(&bytes[..length]), Err(MessageError::CutOff), "{} at {length}", message.name());
        }
    }
}

#[test]
fn every_kind_and_every_length_that_no_message_has_is_refused() {
    for kind in (0..=255u8).filter(|kind| !(1..=6).contains(kind)) {
        assert_eq!(read(&[kind]), Err(MessageError::UnknownKind { kind }));
    }
    for kind in 1..=6u8 {
        let mut head = vec![kind];
        head.extend((MAX_MESSAGE_BYTES + 1).to_le_bytes());
        assert_eq!(read(&head), Err(MessageError::TooLong { kind, bytes: MAX_MESSAGE_BYTES + 1 }));
    }
    let malformed = |kind, payload: &[u8]| {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(payload);
        assert_eq!(read(&bytes), Err(MessageError::Malformed { kind }), "{payload:02x?}");
    };
    for (kind, payload) in [(2, &b"x"[..]), (5, b"x"), (3, &[0xff]), (6, &[0xff]), (4, b"")] {
        malformed(kind, payload);
    }
    malformed(4, &vec![0; MAX_DATA_BYTES + 1]);
    malformed(3, &[b'a'; MAX_TEXT_BYTES + 1]);
    let offer = all()[0].to_bytes();
    for length in 0..offer.len() - HEAD_BYTES {
        malformed(1, &offer[HEAD_BYTES..HEAD_BYTES + length]);
    }
    malformed(1, &[&offer[HEAD_BYTES..], b"x"].concat());
    let mut newer = offer.clone();
    newer[HEAD_BYTES] = 2;
    assert_eq!(read(&newer), Err(MessageError::Protocol { protocol: 2 }));
}

#[test]
fn a_long_reason_is_cut_at_a_border_of_a_letter() {
    let long = "ä".repeat(MAX_TEXT_BYTES);
    let sent = read(&Message::Refuse(long).to_bytes());
    assert_eq!(sent, Ok(vec![Message::Refuse("ä".repeat(MAX_TEXT_BYTES / 2))]));
    let odd = format!("a{}", "ä".repeat(MAX_TEXT_BYTES));
    let Ok([Message::Refuse(text)]) =
        read(&Message::Refuse(odd).to_bytes()).as_deref().map(|it| [it[0].clone()])
    else {
        panic!("a refusal")
    };
    assert_eq!(text.len(), MAX_TEXT_BYTES - 1);
}
