use super::*;
use crate::clock::manual::ManualClock;
use crate::kds::Https;
use crate::kds::server::{Act, Server};
use crate::testing::data::{MILAN, MILAN_VCEK, TURIN_VCEK};
use crate::testing::{Folder, data};
use std::path::Path;
use std::time::Instant;

/// How long the transport of these tests waits for a server that answers, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(20);
/// How long for one that does not.
const NOT_LONG: Duration = Duration::from_millis(500);

fn request_of(der: &[u8]) -> Request {
    let certificate = Certificate::from_der(der).unwrap();
    let endorsement = certificate.endorsement().unwrap();
    Request {
        product: endorsement.product().unwrap(),
        chip: endorsement.chip.clone().unwrap(),
        tcb: endorsement.tcb,
    }
}

fn milan() -> Request {
    request_of(MILAN_VCEK)
}

struct World {
    server: Server,
    clock: Arc<ManualClock>,
    client: Client,
}

fn settings(base: &str) -> Settings {
    Settings { base: base.into(), attempts: 3, ..Settings::default() }
}

fn world_with(script: Vec<Act>, cache: Option<&Path>, timeout: Duration) -> World {
    let server = Server::start(script);
    let clock = Arc::new(ManualClock::new());
    let settings = settings(&server.base());
    let client = Client::new(Arc::new(Https::new(timeout)), clock.clone(), settings, cache.map(Cache::new));
    World { server, clock, client }
}

fn world(script: Vec<Act>) -> World {
    world_with(script, None, SOON)
}

#[test]
fn a_chain_is_fetched_in_two_requests_and_verifies() {
    for der in [MILAN_VCEK, TURIN_VCEK] {
        let World { server, clock, client } = world(vec![]);
        let fetched = client.fetch(&request_of(der)).unwrap();
        assert_eq!(fetched.chain.vek.der(), der);
        assert_eq!((fetched.requests, fetched.notes.len()), (2, 0));
        assert_eq!(clock.slept().iter().sum::<Duration>(), Duration::from_secs(10), "a turn is ten seconds");
        let asked = server.asked();
        assert!(asked[0].ends_with("/cert_chain"), "{asked:?}");
        let parts = if der == MILAN_VCEK {
            "?blSPL=03&teeSPL=00&snpSPL=20&ucodeSPL=209"
        } else {
            "?fmcSPL=01&blSPL=01"
        };
        assert!(asked[1].contains(parts), "{asked:?}");
        let table = fetched.bundle().unwrap().table().unwrap();
        assert_eq!(Chain::all_of(&table).unwrap().len(), 1);
    }
}

#[test]
fn what_was_fetched_once_is_not_asked_for_again_and_is_there_offline() {
    let folder = Folder::new("kds-cache");
    let World { server, client, .. } = world_with(vec![], Some(folder.path()), SOON);
    assert_eq!(client.fetch(&milan()).unwrap().requests, 2);
    assert_eq!(client.fetch(&milan()).unwrap().requests, 0);
    assert_eq!(server.asked().len(), 2);
    let offline = |base: &str| {
        let settings = Settings { is_offline: true, ..settings(base) };
        let clock = Arc::new(ManualClock::new());
        Client::new(Arc::new(Https::new(SOON)), clock, settings, Some(Cache::new(folder.path())))
    };
    let fetched = offline(&server.base()).fetch(&milan()).unwrap();
    assert_eq!((fetched.chain.vek.der(), fetched.requests), (MILAN_VCEK, 0));
    let missing = offline(&server.base()).fetch(&request_of(TURIN_VCEK));
    assert!(matches!(missing, Err(KdsError::NotCached { .. })), "{missing:?}");
    let elsewhere = offline("http://192.0.2.1").fetch(&milan());
    assert!(matches!(elsewhere, Err(KdsError::NotCached { .. })), "what another service said is its own");
    assert_eq!(server.asked().len(), 2, "nobody was asked");
}

#[test]
fn an_entry_of_the_cache_that_is_damaged_or_swapped_is_fetched_anew() {
    let folder = Folder::new("kds-damaged");
    let World { server, client, .. } = world_with(vec![], Some(folder.path()), SOON);
    client.fetch(&milan()).unwrap();
    let file = |end: &str| {
        let found = folder.walk().into_iter().find(|path| path.to_str().unwrap().contains(end));
        found.unwrap_or_else(|| panic!("{end}: {:?}", folder.walk()))
    };
    for (end, bytes) in
        [("blSPL", &b"garbage"[..]), ("blSPL", TURIN_VCEK), ("blSPL", b""), ("cert_chain", b"x")]
    {
        std::fs::write(file(end), bytes).unwrap();
        let fetched = client.fetch(&milan()).unwrap();
        assert_eq!((fetched.requests, fetched.notes.len()), (1, 1), "{end}: {:?}", fetched.notes);
        assert!(fetched.notes[0].starts_with("an entry of the cache is damaged"), "{:?}", fetched.notes);
        assert_eq!(fetched.chain.vek.der(), MILAN_VCEK);
    }
    assert_eq!(server.asked().len(), 6);
    std::fs::write(file("blSPL"), b"garbage").unwrap();
    let settings = Settings { is_offline: true, ..settings(&server.base()) };
    let clock = Arc::new(ManualClock::new());
    let offline = Client::new(Arc::new(Https::new(SOON)), clock, settings, Some(Cache::new(folder.path())));
    let error = offline.fetch(&milan()).unwrap_err().to_string();
    assert!(error.contains("is not in the cache") && error.contains("is damaged"), "{error}");
}

#[test]
fn a_server_that_says_too_many_requests_is_left_alone_for_as_long_as_it_says() {
    let seconds = |text: &str| Act::status(429, &[("Retry-After", text)]);
    let World { server: _server, clock, client } = world(vec![seconds("37"), seconds("0")]);
    client.fetch(&milan()).unwrap();
    let slept: Vec<_> =
        clock.slept().into_iter().filter(|time| !time.is_zero()).map(|time| time.as_secs()).collect();
    // Never less than a turn, whatever the server says.
    assert_eq!(slept, [37, 10, 10]);
}

#[test]
fn a_date_to_come_back_at_is_understood() {
    let at = SystemTime::now() + Duration::from_secs(90);
    let World { server: _server, clock, client } =
        world(vec![Act::status(503, &[("Retry-After", &httpdate::fmt_http_date(at))])]);
    client.fetch(&milan()).unwrap();
    let first = clock.slept().into_iter().find(|time| !time.is_zero()).unwrap();
    assert!((85..=90).contains(&first.as_secs()), "{first:?}");
    for (text, expected) in [
        ("5", Some(5)),
        (" 7 ", Some(7)),
        ("-1", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
    ] {
        assert_eq!(retry_time(text, SystemTime::now()).map(|time| time.as_secs()), expected, "{text}");
    }
}

#[test]
fn a_server_that_wants_more_time_than_there_is_ends_the_fetch_at_once_with_the_time() {
    let script = vec![Act::status(429, &[("Retry-After", "3600")])];
    let World { server, clock, client } = world(script);
    let error = client.fetch(&milan()).unwrap_err();
    let KdsError::RateLimited { after, .. } = error else { panic!("{error:?}") };
    assert_eq!(after, Duration::from_secs(3600));
    assert_eq!((clock.now(), server.asked().len()), (Duration::ZERO, 1), "nobody waits in vain");
}

#[test]
fn a_wait_that_the_server_asked_for_is_kept_by_the_next_process() {
    let folder = Folder::new("kds-pace");
    let script = vec![Act::status(429, &[("Retry-After", "600")])];
    let World { server, client, .. } = world_with(script, Some(folder.path()), SOON);
    assert!(matches!(client.fetch(&milan()), Err(KdsError::RateLimited { .. })));
    let next = |base: &str| {
        let clock = Arc::new(ManualClock::new());
        let settings = settings(base);
        Client::new(Arc::new(Https::new(SOON)), clock, settings, Some(Cache::new(folder.path())))
    };
    let error = next(&server.base()).fetch(&milan()).unwrap_err();
    let KdsError::RateLimited { after, .. } = error else { panic!("{error:?}") };
    assert!((590..=600).contains(&after.as_secs()), "{after:?}");
    assert_eq!(server.asked().len(), 1, "the server was asked once by both");
    // A clock that was set back by more than two days does not end the service for good.
    let file = folder.walk().into_iter().find(|path| path.ends_with("not-before")).unwrap();
    std::fs::write(&file, "99999999999999\n").unwrap();
    next(&server.base()).fetch(&milan()).unwrap();
    std::fs::write(&file, "garbage").unwrap();
    next(&server.base()).fetch(&request_of(TURIN_VCEK)).unwrap();
}

#[test]
fn a_server_that_wants_more_than_days_is_left_alone_too() {
    for seconds in ["100000", "604800", "18446744073709551615"] {
        let folder = Folder::new("kds-days");
        for cache in [None, Some(folder.path())] {
            let script = (0..5).map(|_| Act::status(429, &[("Retry-After", seconds)])).collect();
            let World { server, clock, client } = world_with(script, cache, SOON);
            let error = client.fetch(&milan()).unwrap_err();
            let KdsError::RateLimited { after, .. } = error else { panic!("{seconds}: {error:?}") };
            assert!(after > Duration::from_secs(86_000), "{seconds}: {after:?}");
            assert_eq!((clock.now(), server.asked().len()), (Duration::ZERO, 1), "{seconds}");
        }
    }
}

#[test]
fn without_a_time_the_pause_doubles_up_to_the_longest_and_differs_by_chip() {
    let World { server: _server, client, .. } = world(vec![]);
    let pauses: Vec<_> = (0..40).map(|attempt| client.pause(attempt, "chip").as_secs_f64()).collect();
    for (attempt, pause) in pauses.iter().enumerate() {
        let least = (10.0 * 2f64.powi(i32::try_from(attempt.min(20)).unwrap())).min(120.0);
        assert!((least..=least * 1.5).contains(pause), "attempt {attempt}: {pause}");
    }
    assert_ne!(client.pause(0, "chip"), client.pause(0, "another"));
}

#[test]
fn a_server_that_knows_no_such_chip_is_asked_once() {
    let World { server, client, .. } = world(vec![Act::Serve, Act::status(404, &[])]);
    let error = client.fetch(&milan()).unwrap_err();
    assert!(matches!(error, KdsError::NotFound { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 2);
    let World { server, client, .. } = world(vec![Act::status(403, &[])]);
    let error = client.fetch(&milan()).unwrap_err();
    assert!(matches!(error, KdsError::Refused { status: 403, .. }), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

/// A server that acts so, to the end of a fetch: how often it was asked, and what happened last.
fn unanswered(act: fn() -> Act, timeout: Duration) -> (usize, String) {
    let World { server, client, .. } = world_with((0..4).map(|_| act()).collect(), None, timeout);
    let error = client.fetch(&milan()).unwrap_err();
    let KdsError::Unreachable { attempts: 3, last, .. } = error else { panic!("{error:?}") };
    (server.asked().len(), last)
}

#[test]
fn every_answer_that_is_none_is_asked_for_again_and_ends() {
    type Make = fn() -> Act;
    let acts: [(&str, Make, &str); 5] = [
        ("closes", || Act::Bytes(Vec::new()), ""),
        ("garbage", || Act::Bytes(b"\x00\xffgarbage\r\n\r\n".to_vec()), ""),
        ("truncated", || Act::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nshort".to_vec()), ""),
        ("endless", || Act::Endless, "has more than 65536 bytes"),
        ("broken", || Act::status(500, &[]), "status 500"),
    ];
    for (name, act, says) in acts {
        // Twice, and then it serves.
        let World { server, client, .. } = world(vec![act(), act()]);
        let fetched = client.fetch(&milan()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((fetched.requests, server.asked().len()), (4, 4), "{name}");
        let (asked, last) = unanswered(act, SOON);
        assert!(asked == 3 && last.contains(says), "{name}: {asked} times, {last}");
    }
}

#[test]
fn a_server_that_hangs_or_drips_is_waited_for_up_to_the_limit() {
    for act in [(|| Act::Hang) as fn() -> Act, || Act::Drip] {
        let start = Instant::now();
        let (asked, last) = unanswered(act, NOT_LONG);
        assert!(asked == 3 && last.contains("no answer within 500ms"), "{asked} times, {last}");
        let elapsed = start.elapsed();
        assert!(elapsed >= NOT_LONG * 3 && elapsed < SOON, "{elapsed:?}");
    }
}

#[test]
fn nobody_there_is_no_answer() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock = Arc::new(ManualClock::new());
    let client = Client::new(Arc::new(Https::new(SOON)), clock, settings(&format!("http://{free}")), None);
    assert!(matches!(client.fetch(&milan()), Err(KdsError::Unreachable { attempts: 3, .. })));
}

#[test]
fn what_is_not_the_certificate_that_was_asked_for_is_refused_and_not_kept() {
    let folder = Folder::new("kds-wrong");
    let [vcek, ask, ark] = MILAN;
    let mut forged = vcek.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let mut forged_ask = crate::testing::pem(&[ask, ark]);
    forged_ask = forged_ask.replacen('A', "B", 1);
    let body = |bytes: &[u8]| Act::body(bytes);
    let cases: Vec<(&str, Vec<Act>)> = vec![
        ("garbage for a chain", vec![body(b"garbage")]),
        ("nothing for a chain", vec![body(b"")]),
        ("an ASK alone", vec![body(ask)]),
        (
            "the chain of Turin",
            vec![body(crate::testing::pem(&[data::TURIN_ASK, data::TURIN_ARK]).as_bytes())],
        ),
        ("a forged chain", vec![body(forged_ask.as_bytes())]),
        ("garbage for a VCEK", vec![Act::Serve, body(b"garbage")]),
        ("a VCEK cut short", vec![Act::Serve, body(&vcek[..500])]),
        ("the VCEK of another chip", vec![Act::Serve, body(TURIN_VCEK)]),
        ("a VLEK", vec![Act::Serve, body(data::MILAN_VLEK)]),
        ("an ASK for a VCEK", vec![Act::Serve, body(ask)]),
    ];
    for (name, script) in cases {
        let requests = script.len();
        let World { server, client, .. } = world_with(script, Some(folder.path()), SOON);
        let error = client.fetch(&milan()).unwrap_err();
        let is_typed =
            matches!(error, KdsError::Garbage { .. } | KdsError::Other { .. } | KdsError::Chain(_));
        assert!(is_typed, "{name}: {error:?}");
        assert_eq!(server.asked().len(), requests, "{name}: a wrong answer is not asked for again");
        let kept = folder.walk().into_iter().filter(|path| path.to_str().unwrap().contains("blSPL")).count();
        assert_eq!(kept, 0, "{name} is kept");
    }
    // A VCEK that parses and is signed by nobody: found when the chain is put together.
    let World { server: _server, client, .. } = world(vec![Act::Serve, body(&forged)]);
    assert!(matches!(client.fetch(&milan()), Err(KdsError::Chain(_))));
}

#[test]
fn a_forged_certificate_that_was_kept_is_fetched_anew() {
    let folder = Folder::new("kds-forged");
    let mut forged = MILAN_VCEK.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let script = vec![Act::Serve, Act::body(&forged)];
    let World { server: _server, client, .. } = world_with(script, Some(folder.path()), SOON);
    // It is what was asked for, as far as it says so itself.
    assert!(matches!(client.fetch(&milan()), Err(KdsError::Chain(_))));
    let fetched = client.fetch(&milan()).unwrap();
    assert_eq!(fetched.chain.vek.der(), MILAN_VCEK);
    assert_eq!((fetched.requests, fetched.notes.len()), (2, 1), "{:?}", fetched.notes);
    assert_eq!(client.fetch(&milan()).unwrap().requests, 0, "the right one is kept");
}

#[test]
fn a_request_for_another_tcb_does_not_take_the_certificate_of_this_one() {
    let wanted = Request { tcb: TcbVersion { snp: 21, ..milan().tcb }, ..milan() };
    let World { server: _server, client, .. } = world(vec![Act::Serve, Act::body(MILAN_VCEK)]);
    let error = client.fetch(&wanted).unwrap_err().to_string();
    assert!(error.contains("it is for the TCB bl3.tee0.snp20.ucode209"), "{error}");
}

#[test]
fn a_client_is_shared_by_threads_that_take_turns() {
    let World { server, clock, client } = world(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.fetch(&milan()).unwrap());
        }
    });
    assert_eq!(server.asked().len(), 8);
    assert!(clock.now() >= Duration::from_secs(70), "{:?}", clock.now());
}
