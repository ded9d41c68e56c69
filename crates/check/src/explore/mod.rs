//! Seeded schedules of small worlds: SNP guests, our VMM half, faults, and checkers that look after each step.
//!
//! A seed decides everything of a world: how many vCPUs, what each guest does, which of them runs next, and what goes
//! wrong. Each guest keeps a ledger of what it was told; the checkers hold it against the kernel half. A
//! [`Canary`] is a VMM that is wrong on purpose, to see that the checkers notice.

mod checks;
mod devices;
mod guest;
mod ledger;
mod sweep;

pub use devices::Canary;
pub use sweep::{Summary, sweep};

use crate::known;
use devices::Devices;
use exeunt::memory::{MemoryOptions, Reclaim};
use exeunt::run::{drain, step_observed};
use exeunt::{Policy, Stop, Watch};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gpa, Kernel, PAGE_SIZE};
use exeunt_model::{FaultPlan, Kvm, Point, Rng, Slot, Vcpu, Vm};
use exeunt_proto::host::Vcpu as _;
use ledger::Ledger;
use serde::Serialize;
use std::fmt;

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
    /// Times that `KVM_RUN` was called.
    pub steps: u64,
    /// Faults that happened.
    pub faults: usize,
    /// vCPUs that a fault ended before their guests were done.
    pub ended_by_faults: u64,
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
    let mut world = match World::new(seed, config) {
        Ok(world) => world,
        Err(what) => return Err(Violation { seed, step: 0, what }),
    };
    let result = world.run();
    let step = world.outcome.steps;
    result.map_err(|what| Violation { seed, step, what })?;
    Ok(world.outcome)
}

struct World {
    vm: Vm,
    policy: Policy,
    rng: Rng,
    devices: Devices,
    ledgers: Vec<Ledger>,
    running: Vec<(Vcpu, Watch)>,
    /// The guests race with themselves, so what they were told may be wrong, and that is their own doing.
    races: bool,
    outcome: Outcome,
}

impl World {
    fn new(seed: u64, config: &Config) -> Result<Self, String> {
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
        let mut ledgers = Vec::new();
        let mut running = Vec::new();
        for id in 0..vcpus {
            let ledger = Ledger::new(id);
            let acts = config.acts;
            let vcpu = vm
                .create_vcpu(rng.next_u64(), |cpu| guest::run(cpu, ledger.clone(), acts))
                .map_err(failed("KVM_CREATE_VCPU"))?;
            ledgers.push(ledger);
            running.push((vcpu, Watch::default()));
        }
        vm.launch_with_secrets(guest::SECRETS).map_err(failed("the launch"))?;
        let has_faults = config.faults && rng.below(2) == 0;
        let races = has_faults && rng.below(4) == 0;
        if has_faults {
            let plan = FaultPlan::seeded(rng.next_u64(), FAULT_ODDS);
            vm.set_fault_plan(if races { plan } else { plan.without(Point::PscRead) });
        }
        let outcome = Outcome { vcpus, ..Outcome::default() };
        let devices = Devices::new(vm.effects(), config.canary, rng.next_u64());
        // A budget of 0 is as at once, and goes another way.
        let reclaim = match rng.below(3) {
            0 => Reclaim::Lazily { budget_pages: rng.below(PAGES_PER_GUEST) },
            _ => Reclaim::AtOnce,
        };
        let policy = Policy::new(known::guest_memory(&vm, MemoryOptions { reclaim, prefault: false })?);
        Ok(Self { vm, policy, rng, devices, ledgers, running, races, outcome })
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
        if !self.races && self.outcome.ended_by_faults == 0 {
            checks::written_and_received(&self.ledgers, &self.devices)?;
        }
        Ok(())
    }

    /// One vCPU, chosen by chance, is entered once; now and then it is drained instead, as before a snapshot.
    fn step(&mut self) -> Result<(), String> {
        let index = usize::try_from(self.rng.below(self.running.len() as u64)).unwrap_or(0);
        let is_drained = self.rng.below(16) == 0;
        let Some((vcpu, watch)) = self.running.get_mut(index) else { return Ok(()) };
        let result = if is_drained {
            drain(vcpu, &mut self.devices, &self.policy)
        } else {
            step_observed(vcpu, &mut self.devices, &self.policy, watch, &mut ())
        };
        self.outcome.steps = self.outcome.steps.saturating_add(1);
        self.outcome.trace = checks::digest(self.outcome.trace, vcpu.id(), vcpu.page());
        checks::completions(vcpu, is_drained && result.is_ok())?;
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
            known::agree(self.policy.memory(), &self.vm)?;
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
