//! Driving vCPUs until one ends the run, whichever kernel half they are of.

use super::{End, Ran};
use crate::readers::read_system_event;
use crate::scenario::Case;
use crate::timeline::{Event, Log, Recorder};
use exeunt::layer::inject::{FaultyHost, InterruptedVcpu};
use exeunt::run::step_observed;
use exeunt::{Policy, Stop, Watch};
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Errno, Gpa, Kernel};
use exeunt_model::Rng;
use exeunt_model::guest::Note;
use exeunt_proto::conversion::Conversion;
use exeunt_proto::exit::Entered;
use exeunt_proto::host::{Action, Events, Host, Vcpu};

/// Exits after which a scenario is cut off, so that no guest fills the memory with its timeline.
const MAX_EXITS: usize = 10_000;

/// A vCPU of a scenario: what the port offers, and what only a scenario wants of it.
pub(super) trait ScenarioVcpu: Vcpu + Events {
    /// Which vCPU.
    fn id(&self) -> u64;

    /// What the guest did and saw since the last call. Guests in machine code say nothing.
    fn take_notes(&mut self) -> Vec<Note>;

    /// Whether the vCPU sleeps in the kernel until something comes for it. Of machine code nobody knows.
    fn is_asleep(&self) -> bool {
        false
    }

    /// Makes KVM synthesize a triple fault that it has not serviced yet.
    fn raise_triple_fault(&mut self) -> Result<(), String>;
}

/// Writes down what the guest did before its exit is written down.
pub(super) struct Listener<'a, V> {
    pub(super) inner: V,
    pub(super) log: &'a Log,
}

impl<V: ScenarioVcpu> Listener<'_, V> {
    fn note(&mut self) {
        let vcpu = self.inner.id();
        for note in self.inner.take_notes() {
            self.log.add(match note {
                Note::Did(text) => Event::Guest { vcpu, text },
                Note::Saw(text) => Event::Saw { vcpu, text },
            });
        }
    }
}

impl<V: ScenarioVcpu> Vcpu for Listener<'_, V> {
    fn enter(&mut self) -> Entered {
        let entered = self.inner.enter();
        self.note();
        entered
    }

    fn enter_immediately(&mut self) -> Entered {
        let entered = self.inner.enter_immediately();
        self.note();
        entered
    }

    fn kernel(&self) -> Kernel {
        self.inner.kernel()
    }

    fn page(&self) -> &RunPage {
        self.inner.page()
    }

    fn page_mut(&mut self) -> &mut RunPage {
        self.inner.page_mut()
    }

    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES] {
        self.inner.port_data()
    }
}

/// Steps the vCPUs in an order that the seed decides, until all halted, in userspace or in the kernel, or one ends the run.
/// `stepped` is called after each exit, and says whether something is on its way that may wake a vCPU.
pub(super) fn drive<V: ScenarioVcpu>(
    case: &Case,
    policy: &Policy,
    vcpus: Vec<V>,
    host: impl Host,
    seed: u64,
    log: &Log,
    mut stepped: impl FnMut() -> bool,
) -> Ran {
    let mut host = FaultyHost::new(host, case.faults.clone());
    let on_system_event = case.readers.then_some(read_system_event as fn(&RunPage, &Log));
    let mut recorder = Recorder { log, exits: Vec::new(), on_system_event };
    let mut running: Vec<_> = vcpus
        .into_iter()
        .map(|mut vcpu| {
            // The first call says that someone listens.
            vcpu.take_notes();
            let listener = Listener { inner: vcpu, log };
            (InterruptedVcpu::new(listener, case.interrupts.clone()), Watch::default())
        })
        .collect();
    let mut rng = Rng::new(seed);
    let end = loop {
        let next = usize::try_from(rng.below(running.len() as u64)).unwrap_or(0);
        let Some((vcpu, watch)) = running.get_mut(next) else { break End::from(&Stop::Halted) };
        let mut host = OnVcpu { host: &mut host, vcpu: vcpu.inner_mut().inner.id() };
        let result = step_observed(vcpu, &mut host, policy, watch, &mut recorder);
        let is_awaited = stepped();
        match result {
            // Nothing is left that could wake one of them.
            Ok(())
                if !is_awaited && running.iter_mut().all(|(vcpu, _)| vcpu.inner_mut().inner.is_asleep()) =>
            {
                break End::from(&Stop::Halted);
            }
            Ok(()) if recorder.exits.len() < MAX_EXITS => {}
            Ok(()) => {
                break End { keyword: "no-progress", text: format!("cut off after {MAX_EXITS} exits") };
            }
            Err(Stop::Halted) => {
                running.swap_remove(next);
            }
            Err(stop) => break End::from(&stop),
        }
    };
    Ran { end, exits: recorder.exits }
}

/// The host while it answers an exit of one vCPU.
struct OnVcpu<'a, H> {
    host: &'a mut H,
    vcpu: u64,
}

impl<H: Host> Host for OnVcpu<'_, H> {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.host.apply(action)
    }

    fn before_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        self.host.before_conversion(conversion)
    }

    fn after_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        self.host.after_conversion(conversion)
    }

    fn undo_conversion(&mut self, conversion: Conversion) {
        self.host.undo_conversion(conversion);
    }

    fn vcpu_id(&self) -> u64 {
        self.vcpu
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.host.read_guest(gpa, bytes)
    }

    fn port_out(&mut self, port: u16, size: u8, data: &[u8]) {
        self.host.port_out(port, size, data);
    }

    fn port_in(&mut self, port: u16, size: u8, data: &mut [u8]) {
        self.host.port_in(port, size, data);
    }

    fn mmio_write(&mut self, gpa: Gpa, data: &[u8]) {
        self.host.mmio_write(gpa, data);
    }

    fn mmio_read(&mut self, gpa: Gpa, data: &mut [u8]) {
        self.host.mmio_read(gpa, data);
    }
}
