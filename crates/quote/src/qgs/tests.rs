use super::*;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #[test]
    fn a_request_comes_back_from_its_message(report in bytes(), id_list in bytes()) {
        let request = Request { report: &report, id_list: &id_list };
        match request.encode() {
            Ok(message) => prop_assert_eq!(Request::decode(&message), Ok(request)),
            Err(error) => prop_assert_eq!((error, report.len()), (QgsError::Empty, 0)),
        }
    }

    #[test]
    fn an_answer_comes_back_from_its_message(selected_id in bytes(), quote in bytes()) {
        let response = Response { selected_id: &selected_id, quote: &quote };
        match response.encode() {
            Ok(message) => prop_assert_eq!(Response::decode(&message), Ok(response)),
            Err(error) => prop_assert_eq!((error, quote.len()), (QgsError::Empty, 0)),
        }
    }

    #[test]
    fn what_is_understood_of_any_bytes_encodes_to_bytes_with_the_same_meaning(message in bytes()) {
        if let Ok(response) = Response::decode(&message) {
            let again = response.encode().unwrap();
            prop_assert_eq!(Response::decode(&again), Ok(response));
        }
        if let Ok(request) = Request::decode(&message) {
            let again = request.encode().unwrap();
            prop_assert_eq!(Request::decode(&again), Ok(request));
        }
    }

    #[test]
    fn no_shortened_or_lengthened_message_is_understood(quote in bytes(), cut in 0usize..300, more in 1usize..9) {
        prop_assume!(!quote.is_empty());
        let message = Response { selected_id: &[], quote: &quote }.encode().unwrap();
        if cut < message.len() {
            prop_assert!(Response::decode(&message[..cut]).is_err());
        }
        let longer = [message.as_slice(), &vec![0; more]].concat();
        let size = QgsError::Size { stated: u32::try_from(message.len()).unwrap(), bytes: longer.len() };
        prop_assert_eq!(Response::decode(&longer), Err(size));
    }
}

#[test]
fn a_request_has_the_bytes_that_the_service_reads() {
    let message = Request { report: b"report", id_list: b"id" }.encode().unwrap();
    let mut expected = vec![1, 0, 1, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0];
    expected.extend_from_slice(b"reportid");
    assert_eq!(message, expected);
    assert_eq!(frame(&message).unwrap()[..4], [0, 0, 0, 32], "the length of the frame is big-endian");
    assert_eq!(frame_length([1, 2, 3, 4]), 0x0102_0304);
}

/// An answer whose field at an offset has this number.
fn answer_with(offset: usize, number: u32) -> Vec<u8> {
    let mut message = Response { selected_id: b"id", quote: b"quote" }.encode().unwrap();
    message[offset..offset + 4].copy_from_slice(&number.to_le_bytes());
    message
}

#[test]
fn each_field_that_does_not_fit_is_named() {
    for (message, expected) in [
        (answer_with(0, 0x1_0002), QgsError::Version { major: 2 }),
        (answer_with(0, 0x1_0000), QgsError::Version { major: 0 }),
        (answer_with(4, 0), QgsError::Type { number: 0, expected: 1 }),
        (answer_with(4, 3), QgsError::Type { number: 3, expected: 1 }),
        (answer_with(8, 30), QgsError::Size { stated: 30, bytes: 31 }),
        (answer_with(12, 0x1_1001), QgsError::Service { code: 0x1_1001 }),
        (answer_with(16, 3), QgsError::Parts { first: 3, second: 5, room: 7 }),
        (answer_with(16, u32::MAX), QgsError::Parts { first: u32::MAX, second: 5, room: 7 }),
        (answer_with(20, u32::MAX), QgsError::Parts { first: 2, second: u32::MAX, room: 7 }),
        (vec![], QgsError::Short { bytes: 0 }),
    ] {
        assert_eq!(Response::decode(&message), Err(expected));
    }
    let mut empty = answer_with(16, 7);
    empty[20] = 0;
    assert_eq!(Response::decode(&empty), Err(QgsError::Empty));
    let request = Request { report: b"r", id_list: &[] }.encode().unwrap();
    assert_eq!(Response::decode(&request), Err(QgsError::Type { number: 0, expected: 1 }));
}

#[test]
fn every_minor_version_of_the_same_messages_is_understood() {
    for minor in [0u32, 1, 2, 0xffff] {
        let response = Response { selected_id: b"id", quote: b"quote" };
        assert_eq!(Response::decode(&answer_with(0, minor << 16 | 1)), Ok(response), "1.{minor}");
    }
}

#[test]
fn a_failure_is_an_answer_of_a_header_alone() {
    for code in [1, ERROR_UNEXPECTED, u32::MAX] {
        let message = encode_failure(code);
        assert_eq!(Response::decode(&message), Err(QgsError::Service { code }));
    }
    // A service that says that all is well has to bring a quote.
    assert_eq!(Response::decode(&encode_failure(0)), Err(QgsError::Short { bytes: 16 }));
}
