use super::*;
use crate::qgs::{ERROR_UNEXPECTED, QgsError};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

fn ask(conduct: Conduct, time: Duration) -> Result<Vec<u8>, GetQuoteError> {
    against(conduct, Duration::ZERO, |address| get_quote(address, REPORT, 4096, time))
}

#[test]
fn a_service_answers_with_a_quote_that_says_that_it_is_simulated() {
    assert_eq!(ask(Conduct::Answer, LONG).unwrap(), simulated_quote(REPORT));
}

#[test]
fn each_misbehaviour_of_a_service_is_an_error_of_its_own() {
    let failed = ask(Conduct::Fail(0x1_1001), LONG);
    assert!(
        matches!(failed, Err(GetQuoteError::Message(QgsError::Service { code: 0x1_1001 }))),
        "{failed:?}"
    );
    let garbage = ask(Conduct::Garbage, LONG);
    assert!(
        matches!(garbage, Err(GetQuoteError::Message(QgsError::Version { major: 0x5a5a }))),
        "{garbage:?}"
    );
    let early = ask(Conduct::CloseEarly, LONG);
    let is_eof = |error: &std::io::Error| error.kind() == ErrorKind::UnexpectedEof;
    assert!(matches!(&early, Err(GetQuoteError::Connection(error)) if is_eof(error)), "{early:?}");
    let oversize = ask(Conduct::Oversize, LONG);
    let expected = matches!(oversize, Err(GetQuoteError::Length { bytes: u32::MAX, limit: 4120 }));
    assert!(expected, "{oversize:?}");
}

#[test]
fn a_quote_larger_than_the_room_is_not_read() {
    let quote_bytes = simulated_quote(REPORT).len();
    against(Conduct::Answer, Duration::ZERO, |address| {
        assert!(get_quote(address, REPORT, quote_bytes, LONG).is_ok());
        let result = get_quote(address, REPORT, quote_bytes - 1, LONG);
        assert!(matches!(result, Err(GetQuoteError::Length { .. })), "{result:?}");
    });
}

#[test]
fn the_time_is_for_everything_together_however_busy_the_service_looks() {
    let time = Duration::from_millis(200);
    for conduct in [Conduct::Trickle(Duration::from_millis(20)), Conduct::Answer] {
        let (taken, result) = against(conduct, Duration::from_millis(300), |address| {
            let start = Instant::now();
            let result = get_quote(address, REPORT, 4096, time);
            (start.elapsed(), result)
        });
        let is_late = |error: &std::io::Error| error.kind() == ErrorKind::TimedOut;
        assert!(matches!(&result, Err(GetQuoteError::Connection(error)) if is_late(error)), "{result:?}");
        assert!(taken >= time && taken < LONG, "{taken:?}");
    }
}

#[test]
fn a_service_that_takes_no_connections_does_not_hold_a_client_for_ever() {
    let path = path();
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let address = Address::Unix(path.clone());
    // The first ones find a place in the queue and wait for an answer. They keep the place when they have given up.
    let source = (0..100).find_map(|_| match get_quote(&address, REPORT, 4096, Duration::from_millis(20)) {
        Err(GetQuoteError::Connect { source, .. }) => Some(source),
        Err(GetQuoteError::Connection(error)) if error.kind() == ErrorKind::TimedOut => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(source.unwrap().kind(), ErrorKind::TimedOut);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn an_address_where_nobody_listens_is_told_from_a_service_that_fails() {
    for address in [Address::Unix(path()), Address::Unix("x".repeat(200).into())] {
        let result = get_quote(&address, REPORT, 4096, LONG);
        assert!(matches!(result, Err(GetQuoteError::Connect { .. })), "{result:?}");
    }
}

#[test]
fn a_report_that_is_empty_is_not_sent() {
    let result = get_quote(&Address::Unix(path()), &[], 4096, LONG);
    assert!(matches!(result, Err(GetQuoteError::Message(QgsError::Empty))), "{result:?}");
}

#[test]
fn a_service_refuses_what_is_no_request_and_survives_it() {
    against(Conduct::Answer, Duration::ZERO, |address| {
        let Address::Unix(path) = address else { unreachable!() };
        let send = |bytes: &[u8]| {
            let mut socket = UnixStream::connect(path).unwrap();
            socket.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            // A service that hangs up with unread bytes resets the connection.
            let _ = socket.read_to_end(&mut answer);
            answer
        };
        let refusal = qgs::frame(&qgs::encode_failure(ERROR_UNEXPECTED)).unwrap();
        assert_eq!(send(&[0, 0, 0, 3, 1, 2, 3]), refusal);
        assert_eq!(send(&[0, 0, 0, 0]), refusal);
        assert_eq!(send(&[0xff; 64]), b"", "too large to be read");
        drop(UnixStream::connect(path).unwrap());
        assert!(get_quote(address, REPORT, 4096, LONG).is_ok());
    });
}

#[test]
fn the_path_of_a_service_goes_away_with_it_and_only_then() {
    let path = path();
    let address = Address::Unix(path.clone());
    let server = Server::new(&address, Conduct::Answer, Duration::ZERO).unwrap();
    assert!(Server::new(&address, Conduct::Answer, Duration::ZERO).is_err());
    assert!(path.exists(), "the one that failed leaves the path alone");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn vsock_works_as_unix_sockets_do() {
    let address = Address::Vsock { cid: Some(1), port: 0x4_0500 + std::process::id() % 1000 };
    let server = match Server::new(&address, Conduct::Answer, Duration::ZERO) {
        Ok(server) => server,
        Err(error) => return eprintln!("skipped: vsock: {error}"),
    };
    thread::scope(|scope| {
        scope.spawn(|| server.serve(drop));
        match get_quote(&address, REPORT, 4096, LONG) {
            Ok(quote) => assert_eq!(quote, simulated_quote(REPORT)),
            Err(GetQuoteError::Connect { source, .. }) => {
                eprintln!("skipped: vsock: {source}");
            }
            Err(other) => panic!("{other}"),
        }
        server.close();
    });
}
