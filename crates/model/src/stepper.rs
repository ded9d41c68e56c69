//! Several vCPUs on one thread: a scheduler whose seed decides who runs, and for how long.

use crate::rng::Rng;
use crate::vcpu::Vcpu;
use exeunt_proto::exit::Entered;

/// Acts of the longest turn, unless another number is chosen.
const LONGEST_TURN: u32 = 16;

/// Runs vCPUs of one VM or of several in turns. The same seed over the same vCPUs leads to the same turns, and so to
/// the same bytes in every run page.
///
/// A turn is one `KVM_RUN`. It ends with an exit, or with `EINTR` and `KVM_EXIT_INTR` when the vCPU has used up its acts,
/// as if the signal of a scheduler's timer had come: the VMM half enters again.
#[derive(Debug)]
pub struct Stepper {
    rng: Rng,
    vcpus: Vec<Vcpu>,
    longest_turn: u32,
}

/// One turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whose it was: the place in [`Stepper::vcpus`].
    pub vcpu: usize,
    /// Acts that the guest was allowed.
    pub acts: u32,
    /// How `KVM_RUN` ended.
    pub entered: Entered,
}

impl Stepper {
    /// A scheduler of these vCPUs.
    #[must_use]
    pub const fn new(seed: u64, vcpus: Vec<Vcpu>) -> Self {
        Self { rng: Rng::new(seed), vcpus, longest_turn: LONGEST_TURN }
    }

    /// The same with turns of at most `acts` acts; 0 counts as 1.
    #[must_use]
    pub const fn with_longest_turn(mut self, acts: u32) -> Self {
        self.longest_turn = if acts == 0 { 1 } else { acts };
        self
    }

    /// Runs one of the vCPUs that are not blocked. `None` if all of them are: nothing moves until the VMM does.
    pub fn turn(&mut self) -> Option<Turn> {
        let ready: Vec<usize> =
            self.vcpus.iter().enumerate().filter(|(_, vcpu)| !vcpu.is_blocked()).map(|(at, _)| at).collect();
        let chosen = self.rng.below(u64::try_from(ready.len()).ok()?);
        let vcpu = *ready.get(usize::try_from(chosen).ok()?)?;
        let acts = self.rng.below(u64::from(self.longest_turn)).saturating_add(1);
        let acts = u32::try_from(acts).unwrap_or(self.longest_turn);
        let entered = self.vcpus.get_mut(vcpu)?.enter_for(acts);
        Some(Turn { vcpu, acts, entered })
    }

    /// The vCPUs, in the order in which they were given.
    #[must_use]
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// A vCPU, for the VMM's answer.
    pub fn vcpu_mut(&mut self, at: usize) -> Option<&mut Vcpu> {
        self.vcpus.get_mut(at)
    }

    /// Gives the vCPUs back.
    #[must_use]
    pub fn into_vcpus(self) -> Vec<Vcpu> {
        self.vcpus
    }
}

impl Vcpu {
    /// `KVM_RUN` that a signal ends after `acts` acts of the guest, unless an exit comes first.
    ///
    /// # Errors
    ///
    /// As for `KVM_RUN`.
    pub fn enter_for(&mut self, acts: u32) -> Entered {
        // One look at the signals comes before the first act.
        self.turn = acts.saturating_add(1);
        let entered = self.kvm_run();
        self.turn = crate::vcpu::TIME_SLICE;
        entered
    }
}
