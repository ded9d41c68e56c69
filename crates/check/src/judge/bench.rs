//! Where a VMM half is put into a scenario, and its transcript is taken.

use super::machine::Machine;
use super::ours;
use super::pages::Pages;
use super::tape::Tape;
use super::transcript::{End, Transcript};
use super::twist::Twist;
use exeunt_scenes::Situation;

/// One run.
pub(super) struct Bench<'a> {
    pub(super) situation: &'a Situation,
    pub(super) tape: Tape,
    /// What is in the run page where no kernel wrote.
    stale: u8,
    pub(super) seed: u64,
}

impl Bench<'_> {
    /// The VM, or the second one.
    pub(super) fn machine(&self, index: u8) -> Result<Machine, String> {
        Machine::new(self.situation, index, &self.tape, self.stale, self.seed)
    }
}

/// What is in the run page where no kernel wrote; a number of words, an address and an answer that all make no sense.
const STALE: u8 = 0x5a;
/// The same for a second run: nothing that a VMM does may depend on it.
const OTHER_STALE: u8 = 0xa5;

/// A scenario that was run.
pub(super) struct Trial {
    pub(super) situation: Situation,
    /// What the pages are before the first crossing.
    pub(super) launched: Pages,
    /// The VMM is not ours: nobody sees its inside, and it says what it says in words of its own.
    pub(super) is_outside: bool,
    /// The guest and the kernel are real, though exits may be put in between.
    pub(super) is_on_kernel: bool,
    /// vCPUs run at the same time: when one comes back, others may be inside.
    pub(super) is_concurrent: bool,
    /// Pages of the certificate table that the VMM was given, where it was not given in the judge's own file.
    pub(super) certificate_pages: Option<u64>,
    pub(super) transcript: Transcript,
    /// Of the second run, with other bytes where no kernel wrote.
    pub(super) other: Option<Transcript>,
}

/// A VMM half: it makes its machines, sets them up, does what the orders of the scenario say, and ends.
pub(super) type Half = fn(&Bench<'_>) -> Result<End, String>;

/// Runs a scenario with our half, twisted.
///
/// # Errors
///
/// The scenario cannot be set up.
pub(super) fn run(situation: &Situation, twist: impl Fn() -> Twist, seed: u64) -> Result<Trial, String> {
    run_half(ours::serve, situation, twist, seed)
}

/// As [`run`], with any half.
///
/// # Errors
///
/// As [`run`].
pub(super) fn run_half(
    half: Half,
    situation: &Situation,
    twist: impl Fn() -> Twist,
    seed: u64,
) -> Result<Trial, String> {
    let once = |stale| {
        let bench = Bench { situation, tape: Tape::new(twist()), stale, seed };
        let end = half(&bench).map_err(|error| format!("{}: {error}", situation.name))?;
        Ok::<_, String>(Transcript { records: bench.tape.into_records(), end })
    };
    let transcript = once(STALE)?;
    let other = if situation.is_run_twice { Some(once(OTHER_STALE)?) } else { None };
    Ok(Trial {
        situation: situation.clone(),
        launched: Pages::launched(situation),
        is_outside: false,
        is_on_kernel: false,
        is_concurrent: false,
        certificate_pages: None,
        transcript,
        other,
    })
}
