//! A guest asks for reports with certificates while an updater changes firmware and file.

use crate::world::{BUFFER, PAGES, attested, launch, vm_on};
use exeunt::certs::{Certificates, CheckedTable, Guard, Lease, Provider, Unavailable};
use exeunt::memory::MemoryOptions;
use exeunt::{Policy, Stop, step};
use exeunt_abi::ghcb::guest_message::vmm_error;
use exeunt_certs::chain::{Bundle, Chain, ChainError, Root, Verifier, parse_report};
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::{FileError, FileLock, FileProvider, Held, Mode, Options, replace};
use exeunt_check::known;
use exeunt_model::guest::Access;
use exeunt_model::guest::message::Reply;
use exeunt_model::psp::{Endorser, Psp, PspConfig, Version};
use exeunt_proto::report::TcbVersion;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const BUFFER_PAGES: u64 = 4;
const LONG: Duration = Duration::from_secs(30);

/// A report and the table that came with it, or that the guest was told to come back.
#[derive(Debug)]
enum Got {
    Attested { payload: Vec<u8>, table: Vec<u8> },
    Busy,
}

/// A folder for one test's file, gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exeunt-check-certs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn table(&self) -> PathBuf {
        self.0.join("certs.bin")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn psp(seed: u64) -> Psp {
    Psp::new(PspConfig { seed, ..PspConfig::default() })
}

/// The table that goes with the firmware as it is.
fn table_of(psp: &Psp) -> CheckedTable {
    let mut bundle = Bundle::default();
    for der in psp.certificates(Endorser::Vcek).unwrap() {
        bundle.add(&der).unwrap();
    }
    bundle.table().unwrap()
}

/// The next firmware, committed: the reported TCB and the key change.
fn update(psp: &Psp) {
    let Version { major, minor, build, mut tcb } = psp.config().version;
    tcb[7] = psp.snp_platform_status().unwrap().reported_tcb_version.get().to_le_bytes()[7] + 1;
    psp.update_firmware(Version { major, minor, build, tcb }).unwrap();
    psp.snp_commit().unwrap();
}

fn reported(psp: &Psp) -> Option<TcbVersion> {
    let tcb = psp.snp_platform_status().ok()?.reported_tcb_version.get().to_le_bytes();
    Some(TcbVersion::decode(tcb, 0x19))
}

/// Changes firmware and file under the lock, as an updater does.
fn update_both(psp: &Psp, path: &Path) {
    let clock = SystemClock::default();
    let lock = FileLock::acquire(path, Mode::Exclusive, LONG, &clock).unwrap();
    update(psp);
    replace(path, &table_of(psp), LONG, Some(Held::by(&lock)), &clock).unwrap();
}

/// What a guest gets that asks `times` times.
fn ask(psp: &Psp, certificates: Certificates, times: usize) -> Vec<Got> {
    let vm = vm_on(psp.clone(), true);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let program = |cpu| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        for _ in 0..times {
            let room = Some((BUFFER, BUFFER_PAGES));
            let got = match channel.report(&cpu, &ghcb, PAGES, room, [0x5a; 64]).await? {
                Reply::Payload(payload, _) => {
                    let table = cpu.read(BUFFER, 4096 * 4, Access::Shared).await?;
                    Got::Attested { payload, table }
                }
                Reply::Refused(answer) if answer.info_2 == vmm_error::BUSY => Got::Busy,
                other => panic!("the key of the guest is lost: {other:?}"),
            };
            log.lock().unwrap().push(got);
        }
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    launch(&vm);
    let mut policy = Policy::new(known::guest_memory(&vm, MemoryOptions::default()).unwrap());
    policy.certificates = certificates;
    let mut host = vm.effects();
    let stop = loop {
        if let Err(stop) = step(&mut vcpu, &mut host, &policy) {
            break stop;
        }
    };
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(matches!(stop, Stop::Halted) && seen.len() == times, "{stop:?} after {} answers", seen.len());
    seen
}

/// Whether the report verifies with the table.
fn verify(payload: &[u8], table: &[u8]) -> Result<(), ChainError> {
    let chain = Chain::all_of(&CheckedTable::new(table.to_vec()).unwrap())?.remove(0);
    Verifier { root: Root::Any, allow_simulated: true, at: None }.verify(&chain)?;
    chain.check_report(&parse_report(payload)?)
}

#[test]
fn every_report_verifies_with_its_certificates_while_firmware_and_file_are_updated() {
    let folder = Folder::new("storm");
    let (psp, path) = (psp(21), folder.table());
    replace(&path, &table_of(&psp), LONG, None, &SystemClock::default()).unwrap();
    let stop = AtomicBool::new(false);
    let updates = AtomicU32::new(0);
    let options = Options { wait_limit: LONG, ..Options::default() };
    let certificates = Certificates::From(Arc::new(FileProvider::new(&path).with_options(options)));
    let got = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && updates.load(Ordering::Relaxed) < 40 {
                update_both(&psp, &path);
                updates.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let got = ask(&psp, certificates, 60);
        stop.store(true, Ordering::Relaxed);
        got
    });
    let mut tcbs = std::collections::BTreeSet::new();
    for (index, got) in got.iter().enumerate() {
        let Got::Attested { payload, table } = got else { panic!("request {index}: {got:?}") };
        assert_eq!(verify(payload, table), Ok(()), "request {index}");
        tcbs.insert(parse_report(payload).unwrap().wire.reported_tcb);
    }
    assert!(updates.load(Ordering::Relaxed) > 1 && tcbs.len() > 1, "{updates:?} updates, {tcbs:?}");
}

/// Changes firmware and file as soon as it has handed out a table, whose lock it gives up or not.
#[derive(Debug)]
struct UpdateAfterLease {
    inner: FileProvider,
    psp: Psp,
    keeps_lock: bool,
}

#[derive(Debug)]
struct Both(#[expect(dead_code, reason = "it is held and not looked at")] Lease);

impl Guard for Both {}

impl Provider for UpdateAfterLease {
    fn lease(&self) -> Result<Lease, Unavailable> {
        let lease = self.inner.lease()?;
        let table = Arc::new(lease.table().clone());
        let clock = SystemClock::default();
        if self.keeps_lock {
            let refused = FileLock::acquire(self.inner.path(), Mode::Exclusive, Duration::ZERO, &clock);
            assert!(matches!(refused, Err(FileError::Busy { .. })), "an updater gets in: {refused:?}");
            return Ok(Lease::guarded(table, Both(lease)));
        }
        drop(lease);
        update_both(&self.psp, self.inner.path());
        Ok(Lease::of(table))
    }
}

#[test]
fn a_lock_that_is_given_up_with_the_table_lets_an_update_in_and_the_report_does_not_verify() {
    for keeps_lock in [true, false] {
        let folder = Folder::new(&format!("canary-{keeps_lock}"));
        let (psp, path) = (psp(22), folder.table());
        replace(&path, &table_of(&psp), LONG, None, &SystemClock::default()).unwrap();
        let provider = UpdateAfterLease { inner: FileProvider::new(&path), psp: psp.clone(), keeps_lock };
        let got = ask(&psp, Certificates::From(Arc::new(provider)), 1).remove(0);
        let Got::Attested { payload, table } = got else { panic!("{got:?}") };
        assert_eq!(verify(&payload, &table).is_ok(), keeps_lock);
    }
}

#[test]
fn the_lock_is_free_when_the_guest_has_its_report() {
    let folder = Folder::new("free");
    let (psp, path) = (psp(23), folder.table());
    replace(&path, &table_of(&psp), LONG, None, &SystemClock::default()).unwrap();
    ask(&psp, Certificates::From(Arc::new(FileProvider::new(&path))), 3);
    FileLock::acquire(&path, Mode::Exclusive, Duration::ZERO, &SystemClock::default()).unwrap();
}

#[test]
fn a_guest_that_meets_an_update_is_told_to_come_back_and_loses_nothing() {
    let folder = Folder::new("busy");
    let (psp, path) = (psp(24), folder.table());
    replace(&path, &table_of(&psp), LONG, None, &SystemClock::default()).unwrap();
    let lock =
        Mutex::new(Some(FileLock::acquire(&path, Mode::Exclusive, LONG, &SystemClock::default()).unwrap()));
    // The updater is done when the first request has failed.
    let options = Options { wait_limit: Duration::from_millis(20), ..Options::default() };
    let provider = FileProvider::new(&path)
        .with_options(options)
        .with_report(move |_| drop(lock.lock().unwrap().take()));
    let got = ask(&psp, Certificates::From(Arc::new(provider)), 2);
    let [Got::Busy, Got::Attested { payload, table }] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!(verify(payload, table), Ok(()), "the message of the first request was taken by the second");
}

#[test]
fn no_state_of_the_file_costs_the_guest_its_attestation() {
    let folder = Folder::new("states");
    let psp = psp(25);
    let whole = table_of(&psp);
    let path = folder.table();
    let mut wrong_bytes = whole.as_bytes().to_vec();
    *wrong_bytes.last_mut().unwrap() ^= 1;
    let states: [(&str, Option<&[u8]>); 4] = [
        ("missing", None),
        ("truncated", Some(&whole.as_bytes()[..60])),
        ("garbage", Some(&[0x5a; 5000])),
        ("forged", Some(&wrong_bytes)),
    ];
    for (state, bytes) in states {
        let _ = std::fs::remove_file(&path);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let check = |table: &CheckedTable| {
            let verifier = Verifier { root: Root::Any, allow_simulated: true, at: None };
            let chains = Chain::all_of(table).map_err(|error| error.to_string())?;
            chains
                .iter()
                .try_for_each(|chain| verifier.verify(chain).map(|_| ()).map_err(|error| error.to_string()))
        };
        let provider = FileProvider::new(&path).with_check(check);
        let got = ask(&psp, Certificates::From(Arc::new(provider)), 1).remove(0);
        let Got::Attested { payload, table } = got else { panic!("{state}: {got:?}") };
        assert_eq!(table[..24], [0; 24], "{state}: a table without certificates");
        parse_report(&payload).unwrap();
    }
    let provider = FileProvider::new("/dev/zero");
    assert!(matches!(ask(&psp, Certificates::From(Arc::new(provider)), 1)[0], Got::Attested { .. }));
}

#[test]
fn an_update_that_died_between_firmware_and_file_is_noticed() {
    let folder = Folder::new("died");
    let (psp, path) = (psp(26), folder.table());
    replace(&path, &table_of(&psp), LONG, None, &SystemClock::default()).unwrap();
    update(&psp);
    let plain = Certificates::From(Arc::new(FileProvider::new(&path)));
    let Got::Attested { payload, table } = ask(&psp, plain, 1).remove(0) else { panic!() };
    assert!(matches!(verify(&payload, &table), Err(ChainError::Tcb { .. })));
    let platform = psp.clone();
    let asking = FileProvider::new(&path).with_reported_tcb(move || reported(&platform));
    let Got::Attested { table, .. } = ask(&psp, Certificates::From(Arc::new(asking)), 1).remove(0) else {
        panic!()
    };
    assert_eq!(table[..24], [0; 24], "better none than certificates of another key");
}
