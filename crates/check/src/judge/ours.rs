//! Our VMM half under judgement: the one file that knows the service.

use super::bench::Bench;
use super::machine::{CertFile, Machine, table};
use super::port::{JudgedHost, JudgedVcpu};
use super::transcript::{End, Status};
use super::twist::{EnableCerts, FileHabit};
use crate::known::guest_memory;
use exeunt::certs::{Certificates, CheckedTable, Guard, Lease, Provider, Unavailable};
use exeunt::memory::MemoryOptions;
use exeunt::policy::{EventPolicy, FaultPolicy};
use exeunt::run::step_observed;
use exeunt::snapshot::SavedEvents;
use exeunt::tdx::{
    CallInfo, GuestWriter, NoQuote, Notifier, NotifyTarget, QuoteLimits, QuoteProvider, QuoteSink, Quotes,
    TdxPolicy,
};
use exeunt::{Policy, Stop, Watch, drain};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::sev_attr;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::Rng;
use exeunt_proto::exit::EventType;
use exeunt_proto::host::{self, Action, Host};
use exeunt_scenes::Task;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A VM that can run.
struct Ready {
    vcpus: Vec<JudgedVcpu>,
    host: JudgedHost,
    policy: Policy,
}

/// Does what the orders of the scenario say.
///
/// # Errors
///
/// The scenario cannot be set up; a test sets up each.
pub(super) fn serve(bench: &Bench<'_>) -> Result<End, String> {
    let machine = bench.machine(0)?;
    Ok(follow_orders(bench, &machine)?.unwrap_or_else(|end| end))
}

/// The end of the VMM, also where it came early.
fn follow_orders(bench: &Bench<'_>, machine: &Machine) -> Result<Result<End, End>, String> {
    let mut ready = match set_up(bench, machine)? {
        Ok(ready) => ready,
        Err(end) => return Ok(Err(end)),
    };
    let task = bench.situation.orders.task;
    let saved_before = if task == Task::GoBack { Some(save(&mut ready)) } else { None };
    if let Some(vcpu) = ready.vcpus.first_mut() {
        machine.prepare_vcpu(vcpu);
    }
    let saved = match task {
        Task::Run | Task::SaveAfter(_) => return Ok(Ok(run(bench, ready))),
        Task::SaveTwice => {
            return Ok(save(&mut ready).and_then(|_| save(&mut ready)).map(|_| run(bench, ready)));
        }
        Task::GoBack => saved_before.unwrap_or_else(|| save(&mut ready)),
        Task::Migrate => save(&mut ready),
    };
    let saved = match saved {
        Ok(saved) => saved,
        Err(end) => return Ok(Err(end)),
    };
    if task == Task::Migrate {
        let target = bench.machine(1)?;
        ready = match set_up(bench, &target)? {
            Ok(ready) => ready,
            Err(end) => return Ok(Err(end)),
        };
    }
    Ok(Ok(restore(bench, ready, &saved)))
}

fn failure(text: String) -> End {
    End { status: Status::Failure, text }
}

/// Each capability is asked for before it is enabled, and only what is wanted of it.
fn set_up(bench: &Bench<'_>, machine: &Machine) -> Result<Result<Ready, End>, String> {
    machine.check_extension(Cap::SYSTEM_EVENT_DATA);
    for (cap, wanted) in [(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE), (Cap::X86_TRIPLE_FAULT_EVENT, 1)] {
        let offered = machine.check_extension(cap);
        if offered & wanted == wanted {
            if let Err(errno) = machine.enable_cap(cap, offered, wanted) {
                return Ok(Err(failure(format!("KVM_ENABLE_CAP of {cap} failed with {errno}"))));
            }
        }
    }
    let enable_certs = bench.tape.lock().twist.enable_certs;
    let wants_certs = bench.situation.orders.certificates && machine.vm_type() == VmType::Snp;
    let may_ask = wants_certs
        && (enable_certs == EnableCerts::Unasked
            || machine.sev_attribute(sev_attr::SEV_SNP_REQ_CERTS) == Ok(1));
    if may_ask && enable_certs != EnableCerts::Late {
        machine.enable_req_certs().map_err(|errno| format!("KVM_SEV_SNP_ENABLE_REQ_CERTS: {errno}"))?;
    }
    let vcpus = machine.create_vcpus()?;
    if may_ask && enable_certs == EnableCerts::Late {
        // What comes of it is recorded.
        let _ = machine.enable_req_certs();
    }
    Ok(Ok(Ready { vcpus, host: machine.host(), policy: policy(bench, machine)? }))
}

fn policy(bench: &Bench<'_>, machine: &Machine) -> Result<Policy, String> {
    let memory = Arc::new(guest_memory(&machine.vm, MemoryOptions::default())?);
    let mut policy = Policy::new(Arc::clone(&memory));
    let orders = bench.situation.orders;
    if orders.convert_faults {
        policy.memory_faults = FaultPolicy::Convert;
    }
    if orders.ignore_events {
        [policy.shutdown, policy.reset, policy.crash] = [EventPolicy::Ignore; 3];
    }
    if orders.quotes {
        let writer = Arc::new(Writer(Mutex::new(machine.host())));
        let (provider, notifier) = (Arc::new(NoService), Arc::new(NoInterrupts));
        let quotes = Quotes::new(provider, memory, writer, Some(notifier), QuoteLimits::default());
        let (capabilities, _) = machine.vm.tdx_capabilities();
        policy.tdx = TdxPolicy { quotes: Some(quotes), calls: CallInfo::from(&capabilities) };
    }
    if orders.certificates {
        let file = Arc::new(machine.cert_file());
        policy.certificates = Certificates::From(Arc::new(FileProvider { file, kept: OnceLock::new() }));
    }
    Ok(policy)
}

fn save(ready: &mut Ready) -> Result<SavedEvents, End> {
    let Ready { vcpus, host, policy } = ready;
    let vcpu = vcpus.first_mut().ok_or_else(|| failure("there is no vCPU".into()))?;
    drain(vcpu, host, policy).map_err(|stop| End::from(&stop))?;
    SavedEvents::save(vcpu).map_err(|error| failure(error.to_string()))
}

/// Runs what can be restored. What cannot be is not run.
fn restore(bench: &Bench<'_>, mut ready: Ready, saved: &SavedEvents) -> End {
    let restored = ready.vcpus.first_mut().map(|vcpu| saved.restore(vcpu));
    match restored {
        Some(Err(error)) if !bench.tape.lock().twist.runs_unrestored => failure(error.to_string()),
        _ => run(bench, ready),
    }
}

fn run(bench: &Bench<'_>, ready: Ready) -> End {
    let Ready { vcpus, mut host, policy } = ready;
    let mut running: Vec<_> = vcpus.into_iter().map(|vcpu| (vcpu, Watch::default())).collect();
    let mut rng = Rng::new(bench.seed);
    let mut exits = 0u32;
    loop {
        let next = usize::try_from(rng.below(running.len() as u64)).unwrap_or(0);
        let Some((vcpu, watch)) = running.get_mut(next) else { return End::from(&Stop::Halted) };
        host.before_entry();
        let stepped = step_observed(vcpu, &mut host, &policy, watch, &mut ());
        let answer = host::Vcpu::page(vcpu).clone();
        exits = exits.saturating_add(1);
        let stop = match stepped {
            Ok(()) if bench.situation.orders.task == Task::SaveAfter(exits) => {
                let drained = drain(vcpu, &mut host, &policy);
                drained.err().or_else(|| SavedEvents::save(vcpu).err().map(|_| Stop::Halted))
            }
            stepped => stepped.err(),
        };
        let end = match stop {
            None if running.iter().all(|(vcpu, _)| vcpu.is_asleep()) => End::from(&Stop::Halted),
            None => match bench.tape.gives_up(&answer) {
                Some(end) => return end,
                None => continue,
            },
            Some(Stop::Halted) if running.len() > 1 => {
                running.swap_remove(next);
                continue;
            }
            Some(Stop::Shutdown) if running.len() > 1 && bench.tape.lock().twist.shuts_down_one => {
                running.swap_remove(next);
                continue;
            }
            Some(stop) => End::from(&stop),
        };
        if let Some(end) = bench.tape.end(end) {
            return end;
        }
    }
}

impl From<&Stop> for End {
    fn from(stop: &Stop) -> Self {
        let status = match stop {
            Stop::Halted => Status::Success,
            Stop::Event(event) if event.event == EventType::Shutdown => Status::Success,
            Stop::Event(event) if event.event == EventType::Reset => Status::Reset,
            _ => Status::Failure,
        };
        Self { status, text: stop.to_string() }
    }
}

/// How often the lock of the file is tried for one request.
const TRIES: u32 = 8;

/// Certificates out of a file that somebody else may change, under a lock.
#[derive(Debug)]
struct FileProvider {
    file: Arc<CertFile>,
    /// What a VMM keeps that reads the file once.
    kept: OnceLock<Arc<CheckedTable>>,
}

impl Provider for FileProvider {
    fn lease(&self) -> Result<Lease, Unavailable> {
        let habit = self.file.habit();
        if let (FileHabit::ReadOnce, Some(kept)) = (habit, self.kept.get()) {
            return Ok(Lease::of(Arc::clone(kept)));
        }
        if habit != FileHabit::NoLock {
            let mut tries = 1;
            while !self.file.try_lock() {
                if !self.file.may_wait() || (tries >= TRIES && habit != FileHabit::Forever) {
                    return Err(Unavailable::Busy);
                }
                tries = tries.saturating_add(1);
            }
        }
        let bytes = table(self.file.read());
        let table = Arc::new(CheckedTable::new(bytes).map_err(|_| Unavailable::Broken)?);
        match habit {
            FileHabit::NoLock => return Ok(Lease::of(table)),
            FileHabit::EarlyUnlock => {
                self.file.unlock();
                return Ok(Lease::of(table));
            }
            FileHabit::ReadOnce => drop(self.kept.set(Arc::clone(&table))),
            FileHabit::Right | FileHabit::Forever => {}
        }
        Ok(Lease::guarded(table, FileLock(Arc::clone(&self.file))))
    }
}

/// The lock is given back when this is dropped.
#[derive(Debug)]
struct FileLock(Arc<CertFile>);

impl Guard for FileLock {}

impl Drop for FileLock {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// A quoting service that cannot be reached, and says so at once.
struct NoService;

impl QuoteProvider for NoService {
    fn submit(&self, _: &[u8], sink: QuoteSink) {
        sink.complete(Err(NoQuote::Unavailable));
    }
}

/// Interrupts that nobody waits for.
struct NoInterrupts;

impl Notifier for NoInterrupts {
    fn notify(&self, _: NotifyTarget) {}
}

/// Writes to a TD's buffer, which is recorded like every other effect.
struct Writer(Mutex<JudgedHost>);

impl GuestWriter for Writer {
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        let mut host = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        host.apply(&Action::WriteGuest { gpa, bytes })
    }
}
