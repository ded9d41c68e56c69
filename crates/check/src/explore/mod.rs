//! Seeded schedules of small worlds: SNP guests, our VMM half, faults, and checkers that look after each step.
//!
//! A seed decides everything of a world: how many vCPUs, what each guest does, which of them runs next, and what goes
//! wrong. Each guest keeps a ledger of what it was told; the checkers hold it against the kernel half. A
//! [`Canary`] is a VMM that is wrong on purpose, to see that the checkers notice.

mod checks;
mod devices;
mod guest;
mod ledger;
mod shelf;
mod sweep;
mod turn;

pub use devices::Canary;
pub use sweep::{Summary, sweep};

use crate::known;
use devices::Devices;
use exeunt::certs::Certificates;
use exeunt::memory::{GuestMemory, MemoryOptions, Reclaim};
use exeunt::{Policy, Stop};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel, PAGE_SIZE};
use exeunt_model::{FaultPlan, Kvm, Point, Rng, Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;
use ledger::Ledger;
use serde::Serialize;
use shelf::Shelf;
use std::fmt;
use std::sync::Arc;
use turn::Runner;

/// Pages that each guest has to itself, its GHCB the first of them.
const PAGES_PER_GUEST: u64 = 16;
/// Steps after which a world that has not ended counts as hung.
const MAX_STEPS: u64 = 1 << 20;
/// In a world with faults, one point in this many goes wrong.
const FAULT_ODDS: u64 = 24;

/// After one step in this many, and at the end, what the VMM half knows is held against what is.
const CHECK_ODDS: u64 = 16;

/// What the worlds have in common.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The kernel that the model imitates. It must have SNP guests.
    pub dialect: Dialect,
    /// vCPUs of a world, at most.
    pub vcpus: u64,
    /// Acts of each guest.
    pub acts: u64,
    /// Half of the worlds meet faults.
    pub faults: bool,
    /// The VMM is wrong in this way.
    pub canary: Option<Canary>,
}

impl Default for Config {
    fn default() -> Self {
        Self { dialect: Dialect::Linux7_2, vcpus: 4, acts: 40, faults: true, canary: None }
    }
}

/// How a world ended that broke no rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// vCPUs.
    pub vcpus: u64,
    /// Turns of vCPUs: an entry and its exit, or one effect of a conversion under way.
    pub steps: u64,
    /// Faults that happened.
    pub faults: usize,
    /// vCPUs that a fault ended before their guests were done.
    pub ended_by_faults: u64,
    /// Reports that came with certificates.
    pub reports: u64,
    /// Updates of the firmware and its certificates.
    pub updates: u64,
    /// A digest of every run page after every step: equal for equal seeds.
    pub trace: u64,
}

/// A rule that a world broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The world.
    pub seed: u64,
    /// The step after which it was seen.
    pub step: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)
    }
}

/// Runs one world.
///
/// # Errors
///
/// The first rule that was broken.
pub fn explore(seed: u64, config: &Config) -> Result<Outcome, Violation> {
    let (kernel_half, memory) = match KernelHalf::new(seed, config) {
        Ok(made) => made,
        Err(what) => return Err(Violation { seed, step: 0, what }),
    };
    let mut world = World::new(kernel_half, &memory, config);
    let result = world.run();
    let step = world.outcome.steps;
    result.map_err(|what| Violation { seed, step, what })?;
    Ok(world.outcome)
}

/// A VM with guests that have not run yet.
struct KernelHalf {
    vm: Vm,
    rng: Rng,
    guests: Vec<(Ledger, Vcpu)>,
    races: bool,
}

struct World<'m> {
    vm: Vm,
    policy: Policy,
    memory: &'m GuestMemory,
    rng: Rng,
    devices: Devices,
    shelf: Shelf,
    ledgers: Vec<Ledger>,
    running: Vec<Runner<'m>>,
    /// Conversions go on in pieces, others in between.
    interleaves: bool,
    /// The guests race with themselves, so what they were told may be wrong, and that is their own doing.
    races: bool,
    outcome: Outcome,
}

impl KernelHalf {
    fn new(seed: u64, config: &Config) -> Result<(Self, Arc<GuestMemory>), String> {
        let mut rng = Rng::new(seed);
        let vcpus = rng.below(config.vcpus.max(1)).saturating_add(1);
        let failed = |what: &'static str| move |errno: Errno| format!("{what} failed with {errno}");
        let kernel = Kernel { dialect: config.dialect, arch: Arch::X86 };
        let vm = Kvm::new(kernel).create_vm(VmType::Snp).map_err(failed("KVM_CREATE_VM"))?;
        let bytes = vcpus.saturating_add(1).saturating_mul(PAGES_PER_GUEST).saturating_mul(PAGE_SIZE);
        let file = vm.create_guest_memfd(bytes).map_err(failed("KVM_CREATE_GUEST_MEMFD"))?;
        let slot = Slot::shared(0, Gpa(0), bytes).ok_or("no slot")?.with_guest_memfd(file, 0);
        vm.add_slot(slot).map_err(failed("KVM_SET_USER_MEMORY_REGION2"))?;
        vm.sev_init2(0).map_err(failed("KVM_SEV_INIT2"))?;
        vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE).map_err(failed("KVM_ENABLE_CAP"))?;
        vm.set_memory_attributes(Gpa(0), bytes, MEMORY_ATTRIBUTE_PRIVATE)
            .map_err(failed("KVM_SET_MEMORY_ATTRIBUTES"))?;
        // Signatures take their time, so that few worlds ask for reports.
        let attests = rng.below(8) == 0 && vm.snp_enable_req_certs().is_ok();
        let mut guests = Vec::new();
        for id in 0..vcpus {
            let ledger = Ledger::new(id);
            let acts = config.acts;
            let vcpu = vm
                .create_vcpu(rng.next_u64(), |cpu| guest::run(cpu, ledger.clone(), acts, attests))
                .map_err(failed("KVM_CREATE_VCPU"))?;
            guests.push((ledger, vcpu));
        }
        vm.launch_with_secrets(guest::SECRETS).map_err(failed("the launch"))?;
        let has_faults = config.faults && rng.below(2) == 0;
        let races = has_faults && rng.below(4) == 0;
        if has_faults {
            let plan = FaultPlan::seeded(rng.next_u64(), FAULT_ODDS);
            vm.set_fault_plan(if races { plan } else { plan.without(Point::PscRead) });
        }
        let reclaim = match rng.below(3) {
            0 => Reclaim::Lazily { budget_pages: rng.below(PAGES_PER_GUEST) },
            _ => Reclaim::AtOnce,
        };
        let memory = known::guest_memory(&vm, MemoryOptions { reclaim, prefault: rng.below(2) == 0 })?;
        Ok((Self { vm, rng, guests, races }, Arc::new(memory)))
    }
}

impl<'m> World<'m> {
    fn new(kernel_half: KernelHalf, memory: &'m Arc<GuestMemory>, config: &Config) -> Self {
        let KernelHalf { vm, mut rng, guests, races } = kernel_half;
        let shelf = Shelf::new(vm.sev_host(), rng.next_u64(), config.canary);
        let mut policy = Policy::new(Arc::clone(memory));
        policy.certificates = Certificates::From(Arc::new(shelf.clone()));
        let devices = Devices::new(vm.effects(), config.canary, rng.next_u64(), shelf.clone());
        let interleaves = rng.below(4) != 0;
        let outcome = Outcome { vcpus: guests.len() as u64, ..Outcome::default() };
        let (ledgers, vcpus): (Vec<_>, Vec<_>) = guests.into_iter().unzip();
        let running = vcpus.into_iter().map(|vcpu| Runner::new(vcpu, shelf.clone())).collect();
        Self { vm, policy, memory, rng, devices, shelf, ledgers, running, interleaves, races, outcome }
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.running.is_empty() {
            if self.outcome.steps >= MAX_STEPS {
                return Err(format!("no end after {MAX_STEPS} steps"));
            }
            self.step()?;
            self.check()?;
        }
        self.outcome.faults = self.vm.faults_met().len();
        self.outcome.reports = self.ledgers.iter().map(Ledger::reports).sum();
        self.outcome.updates = self.shelf.updates();
        if !self.races && self.outcome.ended_by_faults == 0 {
            checks::written_and_received(&self.ledgers, &self.devices)?;
        }
        Ok(())
    }

    /// One vCPU, chosen by chance, is entered once; now and then it is drained instead, as before a snapshot.
    fn step(&mut self) -> Result<(), String> {
        let index = usize::try_from(self.rng.below(self.running.len() as u64)).unwrap_or(0);
        // A drain waits for conversions that overlap, and here nobody else would end them.
        let is_drained =
            self.rng.below(16) == 0 && self.running.iter().all(|runner| runner.converting().is_none());
        let Some(runner) = self.running.get_mut(index) else { return Ok(()) };
        let (devices, policy) = (&mut self.devices, &self.policy);
        let result = if is_drained {
            runner.drain(devices, policy)
        } else if self.interleaves {
            runner.turn(devices, policy, self.memory, &mut self.rng)
        } else {
            runner.step(devices, policy)
        };
        self.outcome.steps = self.outcome.steps.saturating_add(1);
        if runner.take_entered() {
            let vcpu = runner.vcpu();
            self.outcome.trace = checks::digest(self.outcome.trace, vcpu.id(), vcpu.page());
        }
        checks::completions(runner.vcpu(), is_drained && result.is_ok())?;
        match result {
            Ok(()) => Ok(()),
            Err(Stop::Halted) => {
                self.running.swap_remove(index);
                Ok(())
            }
            // The VM cannot go on without the page, or without an answer of the firmware: the VMM has to stop.
            Err(Stop::Enter(_) | Stop::MemoryFault { .. })
                if checks::excuse_a_stop(&self.vm.faults_met()) =>
            {
                self.outcome.ended_by_faults = self.outcome.ended_by_faults.saturating_add(1);
                self.running.swap_remove(index);
                Ok(())
            }
            // A guest that races with itself is told what is not so, and touches what it was told.
            Err(Stop::Shutdown | Stop::MemoryFault { .. } | Stop::NoProgress { .. }) if self.races => {
                self.running.swap_remove(index);
                Ok(())
            }
            Err(stop) => Err(format!("the VMM stops: {stop}")),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.devices.violation()?;
        self.vm
            .check_invariants()
            .map_err(|what| format!("the kernel half disagrees with itself: {what}"))?;
        if self.rng.below(CHECK_ODDS) == 0 || self.running.is_empty() {
            let under_way: Vec<_> = self.running.iter().filter_map(Runner::converting).collect();
            known::agree(self.memory, &self.vm, &under_way)?;
        }
        if self.races {
            return Ok(());
        }
        self.ledgers.iter().try_for_each(|ledger| {
            ledger.violation()?;
            checks::told_and_true(ledger, &self.vm)
        })
    }
}

#[cfg(test)]
mod tests;
