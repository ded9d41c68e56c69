use super::*;
use crate::clock::SystemClock;
use crate::testing::data::{MILAN, MILAN_NEXT, TURIN, VLEK};
use crate::testing::{Folder, table_of};
use object_store::memory::InMemory;

const LIMIT: Duration = Duration::from_secs(20);

fn folder_store(folder: &Folder) -> Store {
    let location: Location = folder.path().to_str().unwrap().parse().unwrap();
    Store::open(&location, Arc::new(SystemClock::default())).unwrap()
}

fn memory_store() -> Store {
    Store::over(Arc::new(InMemory::new()), "fleet", Arc::new(SystemClock::default()))
}

fn publish(store: &Store, table: &CheckedTable) -> Result<Published, StoreError> {
    Ok(wait(LIMIT, store.publish(table, false))?.remove(0))
}

fn fetch(store: &Store, subject: &Subject, tcb: Option<TcbVersion>) -> Result<CheckedTable, StoreError> {
    wait(LIMIT, store.fetch(subject, tcb))
}

fn subject_and_tcb(table: &CheckedTable) -> (Subject, TcbVersion) {
    let chain = Chain::all_of(table).unwrap().remove(0);
    (Subject::of(&chain).unwrap(), chain.endorsement().unwrap().tcb)
}

/// What every store has to do.
fn round_trip(store: &Store) {
    let (old, new) = (table_of(&MILAN), table_of(&MILAN_NEXT));
    let ((subject, old_tcb), (same, new_tcb)) = (subject_and_tcb(&old), subject_and_tcb(&new));
    assert_eq!(subject, same);
    assert!(matches!(fetch(store, &subject, None), Err(StoreError::NotPublished { tcb: None, .. })));
    let first = publish(store, &old).unwrap();
    assert_eq!((first.is_new, first.pointer.generation), (true, 1));
    let again = publish(store, &old).unwrap();
    assert_eq!((again.is_new, again.pointer), (false, first.pointer), "to publish twice is to publish once");
    assert_eq!(fetch(store, &subject, None).unwrap(), old);
    let second = publish(store, &new).unwrap();
    assert_eq!((second.is_new, second.pointer.generation), (true, 2));
    assert_eq!(fetch(store, &subject, None).unwrap(), new);
    assert_eq!(fetch(store, &subject, Some(new_tcb)).unwrap(), new);
    assert_eq!(fetch(store, &subject, Some(old_tcb)).unwrap(), old, "a host that went back finds its own");
    let other = TcbVersion { snp: 99, ..new_tcb };
    let missing = fetch(store, &subject, Some(other));
    assert!(matches!(missing, Err(StoreError::NotPublished { tcb: Some(tcb), .. }) if tcb == other));
    let older = publish(store, &old);
    assert!(
        matches!(older, Err(StoreError::Older { current, new, .. }) if (current, new) == (new_tcb, old_tcb)),
        "{older:?}"
    );
    let back = wait(LIMIT, store.publish(&old, true)).unwrap().remove(0);
    assert_eq!((back.is_new, back.pointer.generation), (true, 3));
    // Others are not concerned.
    for certificates in [TURIN, VLEK] {
        let table = table_of(&certificates);
        let (subject, _) = subject_and_tcb(&table);
        assert_eq!(publish(store, &table).unwrap().pointer.generation, 1);
        assert_eq!(fetch(store, &subject, None).unwrap(), table);
    }
    assert_eq!(fetch(store, &subject, None).unwrap(), old);
}

#[test]
fn a_folder_and_a_store_with_conditional_writes_do_the_same() {
    let folder = Folder::new("store");
    round_trip(&folder_store(&folder));
    round_trip(&memory_store());
}

#[cfg(feature = "s3")]
fn bucket(server: &fake_s3::FakeS3) -> Store {
    let builder =
        object_store::aws::AmazonS3Builder::new().with_access_key_id("key").with_secret_access_key("secret");
    let objects = s3::build(builder, "bucket", Some(&server.endpoint()), Some("us-east-1")).unwrap();
    Store::over(Arc::new(objects), "some/prefix", Arc::new(SystemClock::default()))
}

#[cfg(feature = "s3")]
#[test]
fn a_bucket_does_the_same_and_every_write_to_it_has_a_condition() {
    let server = fake_s3::FakeS3::start();
    round_trip(&bucket(&server));
    let asked = server.asked();
    let puts: Vec<_> = asked.iter().filter(|line| line.starts_with("PUT")).collect();
    assert!(puts.len() >= 8, "{asked:?}");
    for put in puts {
        let is_pointer = put.contains("/current/");
        let creates = put.ends_with(" if-none-match *");
        assert!(creates || (is_pointer && put.contains(" if-match \"")), "{put}");
        assert!(put.starts_with("PUT bucket/some/prefix/"), "{put}");
    }
    assert!(server.keys().iter().all(|key| key.starts_with("bucket/some/prefix/")), "{:?}", server.keys());
}

#[cfg(feature = "s3")]
#[test]
fn a_bucket_that_refuses_is_an_error_with_the_object() {
    let server = fake_s3::FakeS3::start();
    let store = bucket(&server);
    server.forbid();
    let error = publish(&store, &table_of(&MILAN)).unwrap_err();
    assert!(matches!(error, StoreError::Backend { what: "write", .. }), "{error:?}");
    assert!(error.to_string().contains("some/prefix/chips/"), "{error}");
}

#[test]
fn publishers_that_meet_leave_a_pointer_that_counts_all_their_changes() {
    let folder = Folder::new("store-race");
    for store in [folder_store(&folder), memory_store()] {
        let tables = [table_of(&MILAN), table_of(&MILAN_NEXT)];
        let changes = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let (store, tables, changes) = (&store, &tables, &changes);
                scope.spawn(move || {
                    for round in 0..4 {
                        let table = &tables[(thread + round) % 2];
                        match wait(LIMIT, store.publish(table, true)) {
                            Ok(published) if published[0].is_new => {
                                changes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                            Ok(_) | Err(StoreError::Contended { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                });
            }
        });
        let (subject, _) = subject_and_tcb(&tables[0]);
        let pointer = wait(LIMIT, store.current(&subject)).unwrap().unwrap();
        assert_eq!(pointer.generation, changes.into_inner(), "a change that was lost");
        assert!(tables.contains(&fetch(&store, &subject, None).unwrap()));
    }
}

/// The files of a store in a folder: its table and its pointer.
fn files(folder: &Folder) -> [PathBuf; 2] {
    let find =
        |end: &str| folder.walk().into_iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap();
    [find(".table"), find(".json")]
}

#[test]
fn a_table_that_was_changed_in_the_store_reaches_nobody() {
    let folder = Folder::new("store-table");
    let store = folder_store(&folder);
    let table = table_of(&MILAN);
    let (subject, _) = subject_and_tcb(&table);
    publish(&store, &table).unwrap();
    let [path, _] = files(&folder);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[2000] ^= 1;
    let large = vec![0; usize::try_from(MAX_TABLE_BYTES).unwrap() + 1];
    for (name, bytes) in
        [("flipped", &flipped[..]), ("truncated", &whole[..100]), ("empty", b""), ("large", &large)]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = fetch(&store, &subject, None).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{name}: {error:?}");
        let error = publish(&store, &table).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{name} is not written over: {error:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = fetch(&store, &subject, None).unwrap_err().to_string();
    assert!(error.contains("is what the pointer leads to, and is not there"), "{error}");
    publish(&store, &table).unwrap();
    assert_eq!(fetch(&store, &subject, None).unwrap(), table, "what is missing can be put back");
}

#[test]
fn a_table_of_another_chip_under_a_right_name_is_refused() {
    let folder = Folder::new("store-swapped");
    let store = folder_store(&folder);
    let (milan, turin) = (table_of(&MILAN), table_of(&TURIN));
    publish(&store, &milan).unwrap();
    let [path, pointer] = files(&folder);
    let digest = hex(&Sha256::digest(turin.as_bytes()));
    std::fs::write(path.with_file_name(format!("{digest}.table")), turin.as_bytes()).unwrap();
    let old = hex(&Sha256::digest(milan.as_bytes()));
    let text = std::fs::read_to_string(&pointer).unwrap().replace(&old, &digest);
    std::fs::write(&pointer, text).unwrap();
    let error = fetch(&store, &subject_and_tcb(&milan).0, None).unwrap_err().to_string();
    assert!(error.contains("holds certificates for another chip or TCB"), "{error}");
}

#[test]
fn a_pointer_without_a_meaning_is_an_error_and_never_becomes_a_name() {
    let folder = Folder::new("store-pointer");
    let store = folder_store(&folder);
    let table = table_of(&MILAN);
    let (subject, _) = subject_and_tcb(&table);
    let good = publish(&store, &table).unwrap().pointer;
    let [_, path] = files(&folder);
    let with = |change: fn(&mut Pointer)| {
        let mut pointer = good.clone();
        change(&mut pointer);
        pointer.to_bytes()
    };
    let cases = [
        ("garbage", b"garbage".to_vec()),
        ("empty", Vec::new()),
        ("another JSON", b"{\"format\": 1}".to_vec()),
        ("a later format", with(|pointer| pointer.format = 2)),
        ("a path for a digest", with(|pointer| pointer.sha256 = "../../../../etc/passwd".into())),
        ("a path for a TCB", with(|pointer| pointer.tcb = "../..".into())),
        ("a large digest", with(|pointer| pointer.sha256 = pointer.sha256.to_uppercase())),
    ];
    for (name, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = fetch(&store, &subject, None).unwrap_err();
        assert!(matches!(error, StoreError::Pointer { .. }), "{name}: {error:?}");
        let error = publish(&store, &table).unwrap_err();
        assert!(matches!(error, StoreError::Pointer { .. }), "{name} is not written over: {error:?}");
    }
    std::fs::write(&path, vec![b' '; 20 << 10]).unwrap();
    assert!(matches!(fetch(&store, &subject, None), Err(StoreError::Damaged { .. })));
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_pointer_is_refused_or_names_a_digest_and_a_tcb() {
    let store = memory_store();
    let whole = publish(&store, &table_of(&MILAN)).unwrap().pointer.to_bytes();
    let is_safe = |bytes: &[u8]| match Pointer::from_bytes(bytes) {
        Ok(pointer) => {
            pointer.tcb().is_ok() && pointer.sha256.len() == 64 && !pointer.sha256.contains(['/', '.'])
        }
        Err(_) => true,
    };
    for length in 0..whole.len() {
        assert!(is_safe(&whole[..length]), "{length}");
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[length] ^= 1 << bit;
            assert!(is_safe(&flipped), "byte {length}, bit {bit}");
        }
    }
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_up_to_the_limit() {
    let folder = Folder::new("store-hangs");
    let store = folder_store(&folder);
    let table = table_of(&MILAN);
    publish(&store, &table).unwrap();
    let [_, path] = files(&folder);
    std::fs::remove_file(&path).unwrap();
    // To open a pipe that nobody writes to waits for ever.
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let short = Duration::from_millis(100);
    let start = std::time::Instant::now();
    let hung = wait(short, store.fetch(&subject_and_tcb(&table).0, None));
    // What is no regular file may be refused instead of waited for.
    assert!(hung.is_err(), "{hung:?}");
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    // The thread that waits is let go.
    let _ = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
}

#[test]
fn addresses_are_folders_files_and_buckets() {
    let parse = |text: &str| text.parse::<Location>();
    assert_eq!(parse("fleet/certs").unwrap(), Location::Folder("fleet/certs".into()));
    assert_eq!(parse("file:///srv/certs").unwrap(), Location::Folder("/srv/certs".into()));
    #[cfg(feature = "s3")]
    assert_eq!(
        parse("s3://bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu").unwrap(),
        Location::Bucket {
            bucket: "bucket".into(),
            prefix: "a/b".into(),
            endpoint: Some("http://127.0.0.1:9000".into()),
            region: Some("eu".into()),
        }
    );
    for text in ["", "file://srv", "http://host/x", "s3://", "s3:///x", "s3://bucket?colour=red"] {
        assert!(matches!(parse(text), Err(StoreError::Address { .. })), "{text}");
    }
    let nowhere = Store::open(&Location::Folder("/proc/nowhere".into()), Arc::new(SystemClock::default()));
    assert!(matches!(nowhere, Err(StoreError::Address { .. })));
}
