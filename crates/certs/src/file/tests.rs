use super::*;
use crate::clock::manual::ManualClock;
use crate::clock::{Clock, SystemClock};
use crate::testing::{Folder, data, table_of};
use exeunt::certs::{CheckedTable, Provider as _, Unavailable};
use exeunt_proto::certs::{Certificate, VCEK};
use exeunt_proto::report::TcbVersion;
use std::fs::OpenOptions;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

const SHORT: Duration = Duration::from_millis(50);

/// A table with one certificate of these bytes.
fn table(bytes: &[u8]) -> CheckedTable {
    CheckedTable::build(&[Certificate { guid: VCEK, bytes }]).unwrap()
}

fn options(instead: Instead) -> Options {
    Options { wait_limit: SHORT, missing: instead, damaged: instead, ..Options::default() }
}

fn exclusive(path: &Path) -> FileLock {
    FileLock::acquire(path, Mode::Exclusive, SHORT, &SystemClock::default()).unwrap()
}

/// What the provider says of the file, and what a guest gets with each option, in their order.
fn answers(path: &Path) -> (FileError, [Result<Vec<u8>, Unavailable>; 3]) {
    let start = Instant::now();
    let error = FileProvider::new(path).with_options(options(Instead::Busy)).read().unwrap_err();
    let leases = [Instead::EmptyTable, Instead::Busy, Instead::Broken].map(|instead| {
        let reported = Arc::new(AtomicU32::new(0));
        let counter = reported.clone();
        let provider = FileProvider::new(path)
            .with_options(options(instead))
            .with_report(move |_| _ = counter.fetch_add(1, Ordering::Relaxed));
        let lease = provider.lease().map(|lease| lease.table().as_bytes().to_vec());
        assert_eq!(reported.load(Ordering::Relaxed), 1, "each failure is reported once");
        lease
    });
    assert!(start.elapsed() < Duration::from_secs(2), "a guest waited {:?}", start.elapsed());
    (error, leases)
}

/// What a file that is of no use leads to, with each option.
fn by_option() -> [Result<Vec<u8>, Unavailable>; 3] {
    [Ok(vec![0; 24]), Err(Unavailable::Busy), Err(Unavailable::Broken)]
}

#[test]
fn a_lease_has_the_table_of_the_file_and_holds_a_shared_lock_until_it_is_dropped() {
    let folder = Folder::new("lease");
    let path = folder.file("certs", table(b"one").as_bytes());
    let provider = FileProvider::new(&path);
    let lease = provider.lease().unwrap();
    assert_eq!(lease.table().as_bytes(), table(b"one").as_bytes());
    let other_reader = provider.lease().unwrap();
    let clock = SystemClock::default();
    let refused = FileLock::acquire(&path, Mode::Exclusive, Duration::ZERO, &clock);
    assert!(matches!(refused, Err(FileError::Busy { .. })), "{refused:?}");
    drop(other_reader);
    let refused = FileLock::acquire(&path, Mode::Exclusive, Duration::ZERO, &clock);
    assert!(matches!(refused, Err(FileError::Busy { .. })), "{refused:?}");
    drop(lease);
    FileLock::acquire(&path, Mode::Exclusive, Duration::ZERO, &clock).unwrap();
}

#[test]
fn a_file_that_stays_locked_is_busy_within_the_limit_whatever_the_options_are() {
    let folder = Folder::new("busy");
    let path = folder.file("certs", table(b"one").as_bytes());
    let lock = exclusive(&path);
    let (error, leases) = answers(&path);
    assert!(matches!(error, FileError::Busy { waited, .. } if waited >= SHORT), "{error:?}");
    assert!(leases.iter().all(|lease| *lease == Err(Unavailable::Busy)), "{leases:?}");
    drop(lock);
    assert!(FileProvider::new(&path).lease().unwrap().is_guarded());
}

#[test]
fn waiting_is_bounded_by_the_limit_and_not_by_the_number_of_tries() {
    let folder = Folder::new("bounded");
    let path = folder.file("certs", table(b"one").as_bytes());
    let _lock = exclusive(&path);
    for limit in [0, 1, 7, 1000].map(Duration::from_millis) {
        let clock = ManualClock::new();
        let error = FileLock::acquire(&path, Mode::Shared, limit, &clock).unwrap_err();
        assert!(matches!(error, FileError::Busy { waited, .. } if waited == limit), "{limit:?}: {error:?}");
        assert_eq!(clock.now(), limit);
        let longest = clock.slept().into_iter().max().unwrap_or_default();
        assert!(longest <= Duration::from_millis(20), "a lock that is free is seen soon: {longest:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_missing() {
    let folder = Folder::new("missing");
    let (error, leases) = answers(&folder.path().join("certs"));
    assert!(matches!(error, FileError::Missing { .. }), "{error:?}");
    assert_eq!(leases, by_option());
}

#[test]
fn every_truncation_and_any_garbage_is_malformed() {
    let folder = Folder::new("malformed");
    let whole = table(b"certificate").as_bytes().to_vec();
    for length in 0..whole.len() {
        let path = folder.file("certs", &whole[..length]);
        let error = FileProvider::new(&path).read().unwrap_err();
        assert!(matches!(error, FileError::Malformed { .. }), "{length} bytes: {error:?}");
    }
    let path = folder.file("certs", [0xa5; 4096]);
    let (error, leases) = answers(&path);
    assert!(matches!(error, FileError::Malformed { .. }), "{error:?}");
    assert_eq!(leases, by_option());
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let folder = Folder::new("kinds");
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let cases =
        [(folder.path(), "folder"), (&fifo, "pipe"), (&socket, "socket"), (Path::new("/dev/zero"), "device")];
    for (path, expected) in cases {
        let (error, leases) = answers(path);
        assert!(matches!(error, FileError::NotRegular { kind, .. } if kind == expected), "{error:?}");
        assert_eq!(leases, by_option(), "{path:?}");
    }
}

#[test]
fn a_file_above_the_limit_is_refused_by_its_size_and_one_at_the_limit_is_taken() {
    let folder = Folder::new("large");
    let path = folder.file("certs", b"");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for bytes in [MAX_TABLE_BYTES + 1, 1 << 40] {
        file.set_len(bytes).unwrap();
        let (error, leases) = answers(&path);
        assert!(matches!(error, FileError::TooLarge { .. }), "{bytes}: {error:?}");
        assert_eq!(leases, by_option());
    }
    file.set_len(MAX_TABLE_BYTES).unwrap();
    let lease = FileProvider::new(&path).lease().unwrap();
    assert_eq!(lease.table().as_bytes().len() as u64, MAX_TABLE_BYTES);
}

#[test]
fn a_file_without_a_size_is_read_to_its_end() {
    // Files of the kernel claim to be empty.
    let path = Path::new("/proc/self/status");
    let (file, metadata) = read::open_regular(path, false).unwrap();
    assert_eq!(metadata.len(), 0);
    let bytes = read::read_all(&file, path).unwrap();
    assert!(bytes.starts_with(b"Name:") && bytes.ends_with(b"\n"), "{} bytes", bytes.len());
}

#[test]
fn a_check_that_fails_keeps_the_table_from_guests_and_gives_its_reason() {
    let folder = Folder::new("check");
    let path = folder.file("certs", table(b"bad").as_bytes());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let check = |table: &CheckedTable| {
        if table.as_bytes().ends_with(b"bad") { Err("the chain does not verify".to_string()) } else { Ok(()) }
    };
    let provider = FileProvider::new(&path)
        .with_check(check)
        .with_report(move |error| log.lock().unwrap().push(error.to_string()));
    assert_eq!(provider.lease().unwrap().table().as_bytes(), [0; 24]);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].ends_with("certs is refused: the chain does not verify"), "{seen:?}");
    folder.file("certs", table(b"good").as_bytes());
    assert_eq!(provider.lease().unwrap().table().as_bytes(), table(b"good").as_bytes());
}

#[test]
fn certificates_for_another_tcb_than_the_reported_one_are_not_handed_out() {
    let folder = Folder::new("tcb");
    let path = folder.file("certs", table_of(&data::MILAN).as_bytes());
    let tcb = TcbVersion { fmc: None, boot_loader: 3, tee: 0, snp: 20, microcode: 209 };
    let later = Arc::new(ManualClock::at(SystemTime::now() + Duration::from_secs(10)));
    let reported = Arc::new(Mutex::new(Some(tcb)));
    let answer = reported.clone();
    let provider =
        FileProvider::new(&path).with_clock(later).with_reported_tcb(move || *answer.lock().unwrap());
    let bytes = || provider.lease().unwrap().table().as_bytes().to_vec();
    assert_eq!(bytes(), table_of(&data::MILAN).as_bytes());
    // The firmware went on and the file, which is kept by now, did not.
    let newer = TcbVersion { snp: 21, ..tcb };
    *reported.lock().unwrap() = Some(newer);
    assert_eq!(bytes(), [0; 24]);
    let error = provider.read().unwrap_err();
    let FileError::OtherTcb { certified, reported: said, .. } = error else { panic!("{error:?}") };
    assert_eq!((certified, said), (tcb, newer));
    // A platform that says nothing leaves nothing to compare.
    *reported.lock().unwrap() = None;
    assert_eq!(bytes(), table_of(&data::MILAN).as_bytes());
    // What has no chain cannot be compared, and is not handed out either.
    *reported.lock().unwrap() = Some(tcb);
    folder.file("certs", table(b"no certificate").as_bytes());
    assert!(matches!(provider.read(), Err(FileError::Refused { .. })));
}

/// A clock during whose sleep something happens once.
struct During<F> {
    action: Mutex<Option<F>>,
}

impl<F> std::fmt::Debug for During<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("During")
    }
}

impl<F: FnOnce() + Send> Clock for During<F> {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, _: Duration) {
        let action = self.action.lock().unwrap().take();
        action.expect("one sleep")();
    }
}

#[test]
fn a_file_that_was_renamed_into_place_while_the_lock_was_waited_for_is_the_one_that_is_read() {
    let folder = Folder::new("renamed");
    let path = folder.file("certs", table(b"old").as_bytes());
    let lock = exclusive(&path);
    let (new, target) = (folder.file("new", table(b"new").as_bytes()), path.clone());
    let action = move || {
        std::fs::rename(new, target).unwrap();
        drop(lock);
    };
    let clock = During { action: Mutex::new(Some(action)) };
    let provider = FileProvider::new(&path).with_clock(Arc::new(clock));
    assert_eq!(provider.lease().unwrap().table().as_bytes(), table(b"new").as_bytes());
}

#[test]
fn a_file_that_was_rewritten_while_the_lock_was_waited_for_is_read_anew() {
    let folder = Folder::new("rewritten");
    let path = folder.file("certs", table(b"old").as_bytes());
    let lock = exclusive(&path);
    let target = path.clone();
    let action = move || {
        std::fs::write(target, table(b"newer").as_bytes()).unwrap();
        drop(lock);
    };
    let clock = During { action: Mutex::new(Some(action)) };
    let provider = FileProvider::new(&path).with_clock(Arc::new(clock));
    assert_eq!(provider.lease().unwrap().table().as_bytes(), table(b"newer").as_bytes());
}

#[test]
fn a_table_is_kept_only_when_a_later_change_is_certain_to_show() {
    let folder = Folder::new("kept");
    let path = folder.file("certs", table(b"aaa").as_bytes());
    let now = SystemTime::now();
    let at = |seconds| Arc::new(ManualClock::at(now + Duration::from_secs(seconds)));
    // Just written: another content may get the same time, so each request reads.
    let provider = FileProvider::new(&path).with_clock(Arc::new(ManualClock::at(now)));
    let first = provider.lease().unwrap();
    assert!(!std::ptr::eq(first.table(), provider.lease().unwrap().table()));
    drop(first);
    // Later it is kept, until the file changes.
    let provider = FileProvider::new(&path).with_clock(at(10));
    let first = provider.lease().unwrap();
    assert!(std::ptr::eq(first.table(), provider.lease().unwrap().table()));
    drop(first);
    let clock = SystemClock::default();
    replace(&path, &table(b"bbb"), SHORT, None, &clock).unwrap();
    assert_eq!(provider.lease().unwrap().table().as_bytes(), table(b"bbb").as_bytes());
    // By option never.
    let options = Options { keep: false, ..Options::default() };
    let provider = FileProvider::new(&path).with_clock(at(20)).with_options(options);
    let first = provider.lease().unwrap();
    assert!(!std::ptr::eq(first.table(), provider.lease().unwrap().table()));
}

#[test]
fn what_a_process_of_the_same_number_writes_in_another_container_is_left_alone() {
    let folder = Folder::new("containers");
    // Each container has a first process, which has written nothing before.
    let others: Vec<_> =
        (0..1000).map(|number| format!(".certs.{}-{number}.new", std::process::id())).collect();
    for name in &others {
        folder.file(name, b"half");
    }
    let clock = SystemClock::default();
    for bytes in [b"one", b"two"] {
        replace(&folder.path().join("certs"), &table(bytes), SHORT, None, &clock).unwrap();
    }
    let mut expected = others;
    expected.push("certs".into());
    expected.sort();
    assert_eq!(folder.names(), expected);
}

#[test]
fn replacing_waits_for_readers_and_leaves_the_file_alone_if_they_stay() {
    let folder = Folder::new("replace");
    let path = folder.file("certs", table(b"old").as_bytes());
    let clock = SystemClock::default();
    let lease = FileProvider::new(&path).lease().unwrap();
    let busy = replace(&path, &table(b"new"), SHORT, None, &clock);
    assert!(matches!(busy, Err(FileError::Busy { .. })), "{busy:?}");
    assert_eq!(std::fs::read(&path).unwrap(), table(b"old").as_bytes());
    drop(lease);
    replace(&path, &table(b"new"), SHORT, None, &clock).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), table(b"new").as_bytes());
    assert_eq!(folder.names(), ["certs"], "no other file is left");
}

#[test]
fn a_file_that_is_not_there_is_created_once_by_any_number_of_writers() {
    let folder = Folder::new("create");
    let path = folder.path().join("certs");
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                let clock = SystemClock::default();
                replace(path, &table(&[writer; 100]), Duration::from_secs(10), None, &clock).unwrap();
            });
        }
    });
    FileProvider::new(&path).read().unwrap();
    assert_eq!(folder.names(), ["certs"]);
}

#[test]
fn what_cannot_be_written_is_an_error_and_nothing_is_left() {
    let folder = Folder::new("unwritable");
    let clock = SystemClock::default();
    let nowhere = folder.path().join("no/such/folder");
    let error = replace(&nowhere, &table(b"x"), SHORT, None, &clock).unwrap_err();
    assert!(matches!(error, FileError::System { .. } | FileError::Missing { .. }), "{error:?}");
    let error = replace(folder.path(), &table(b"x"), SHORT, None, &clock).unwrap_err();
    assert!(matches!(error, FileError::NotRegular { kind: "folder", .. }), "{error:?}");
    assert!(folder.names().is_empty());
}

#[test]
fn the_lock_of_a_parent_is_enough_as_long_as_it_is_held_and_on_this_file() {
    let folder = Folder::new("held");
    let path = folder.file("certs", table(b"old").as_bytes());
    let other = folder.file("other", table(b"old").as_bytes());
    let clock = SystemClock::default();
    let lock = exclusive(&path);
    let held = Held::from_value(&Held::by(&lock).to_value());
    assert_eq!(held, Some(Held::by(&lock)));
    // Of another file it is no help.
    let other_lock = exclusive(&other);
    let refused = replace(&other, &table(b"new"), SHORT, held, &clock);
    assert!(matches!(refused, Err(FileError::Busy { .. })), "{refused:?}");
    drop(other_lock);
    replace(&path, &table(b"new"), SHORT, held, &clock).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), table(b"new").as_bytes());
    // The name has another file now, which nobody holds.
    replace(&path, &table(b"newer"), SHORT, held, &clock).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), table(b"newer").as_bytes());
    for value in ["", "1", ":", "1:", "a:b", "1:2:3", "-1:2"] {
        assert_eq!(Held::from_value(value), None, "{value}");
    }
}

#[test]
fn whoever_reads_sees_one_of_the_contents_whole_while_a_writer_replaces_them() {
    let folder = Folder::new("storm");
    let path = folder.file("certs", table(&[0; 5000]).as_bytes());
    let stop = AtomicBool::new(false);
    let (leases, rounds) = (AtomicU32::new(0), 200u32);
    std::thread::scope(|scope| {
        for keep in [true, false] {
            let (path, stop, leases) = (&path, &stop, &leases);
            scope.spawn(move || {
                let options = Options { keep, wait_limit: Duration::from_secs(10), ..Options::default() };
                let provider = FileProvider::new(path).with_options(options);
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    let lease = provider.lease().unwrap();
                    let (generation, rest) = lease.table().as_bytes()[48..].split_first_chunk::<4>().unwrap();
                    let generation = u32::from_le_bytes(*generation);
                    assert!(rest.iter().all(|byte| *byte == generation.to_le_bytes()[0]), "torn");
                    assert!(generation >= newest, "{generation} after {newest}");
                    newest = generation;
                    drop(lease);
                    leases.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(200));
                }
                assert!(newest > 0);
            });
        }
        let clock = SystemClock::default();
        for generation in 1..=rounds {
            let mut bytes = vec![generation.to_le_bytes()[0]; 5000];
            bytes[..4].copy_from_slice(&generation.to_le_bytes());
            replace(&path, &table(&bytes), Duration::from_secs(10), None, &clock).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(leases.load(Ordering::Relaxed) > 2);
}

#[test]
fn a_writer_is_not_kept_out_by_readers_of_whom_there_is_always_one() {
    let folder = Folder::new("starve");
    let path = folder.file("certs", table(b"old").as_bytes());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let options = Options { wait_limit: Duration::from_secs(60), ..Options::default() };
                let provider = FileProvider::new(&path).with_options(options);
                while !stop.load(Ordering::Relaxed) {
                    let lease = provider.lease().unwrap();
                    std::thread::sleep(Duration::from_micros(300));
                    drop(lease);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(20));
        for round in 0..5u8 {
            let clock = SystemClock::default();
            let replaced = replace(&path, &table(&[round; 10]), Duration::from_secs(30), None, &clock);
            if replaced.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            replaced.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Locks all bytes, as tools do that know the kernel's documentation and not this crate.
fn plain_lock(file: &std::fs::File, kind: i32) -> bool {
    use nix::fcntl::{FcntlArg, fcntl};
    let lock = nix::libc::flock {
        l_type: i16::try_from(kind).unwrap(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).is_ok()
}

#[test]
fn tools_that_lock_the_whole_file_and_we_exclude_each_other() {
    use nix::libc::{F_RDLCK, F_UNLCK, F_WRLCK};
    let folder = Folder::new("plain");
    let path = folder.file("certs", table(b"one").as_bytes());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let clock = SystemClock::default();
    let ours = |mode| FileLock::acquire(&path, mode, Duration::ZERO, &clock);
    // Mine, theirs, and whether both can be there.
    let cases = [
        (Mode::Shared, F_RDLCK, true),
        (Mode::Shared, F_WRLCK, false),
        (Mode::Exclusive, F_RDLCK, false),
        (Mode::Exclusive, F_WRLCK, false),
    ];
    for (mode, theirs, together) in cases {
        let lock = ours(mode).unwrap();
        assert_eq!(plain_lock(&file, theirs), together, "{mode:?} first");
        drop(lock);
        assert!(plain_lock(&file, theirs), "{mode:?} is given back");
        assert_eq!(ours(mode).is_ok(), together, "{mode:?} second");
        assert!(plain_lock(&file, F_UNLCK));
    }
}
