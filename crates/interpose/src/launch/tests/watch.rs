use super::*;
use crate::record::Run;
use exeunt_abi::kvm::run::RunPage;
use zerocopy::FromZeros;

const SETTLE: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(10);

/// A run that begins now, seen after so many milliseconds.
struct Seen {
    watch: Watch,
    start: Instant,
    entries: u64,
}

impl Seen {
    fn new() -> Self {
        let start = Instant::now();
        Self { watch: Watch::new(start, TIMEOUT, SETTLE), start, entries: 0 }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn see(&mut self, ms: u64, what: What) {
        let now = self.at(ms);
        self.watch.see(&Record { pid: 7, what }, now);
    }

    fn sample(&self, ms: u64) -> Sample {
        let now = self.at(ms);
        Sample { now, entries: self.entries, hung: false, first: None, vmm: None, gone: false }
    }

    fn decide(&mut self, ms: u64, inside: bool) -> Option<Ended> {
        let sample = self.sample(ms);
        self.watch.decide(sample, || inside)
    }
}

fn run() -> What {
    let page = RunPage::new_zeroed();
    What::Run(Box::new(Run {
        vm: 0,
        vcpu: 0,
        immediate: false,
        injected: false,
        before: page.clone(),
        result: Ok(()),
        after: page,
    }))
}

fn opened() -> What {
    What::Opened { file: File::System, result: Ok(5) }
}

#[test]
fn a_vmm_that_enters_no_vcpu_for_the_settle_time_is_paused_and_not_before() {
    let mut seen = Seen::new();
    seen.see(100, run());
    assert_eq!(seen.decide(399, false), None);
    assert_eq!(seen.decide(400, true), None, "it is inside");
    assert_eq!(seen.decide(400, false), Some(Ended::Paused));
}

#[test]
fn entries_that_make_no_record_keep_it_from_being_paused() {
    let mut seen = Seen::new();
    seen.see(0, run());
    for ms in (0..5000).step_by(200) {
        seen.entries += 1;
        assert_eq!(seen.decide(ms, false), None, "{ms}");
    }
}

#[test]
fn a_vmm_that_never_ran_a_vcpu_is_not_paused_and_times_out() {
    let mut seen = Seen::new();
    seen.see(0, opened());
    assert_eq!(seen.decide(9_999, false), None);
    assert_eq!(seen.decide(10_000, false), Some(Ended::TimedOut));
}

#[test]
fn a_guest_that_never_leaves_times_out() {
    let mut seen = Seen::new();
    seen.see(0, run());
    assert_eq!(seen.decide(9_999, true), None);
    assert_eq!(seen.decide(10_000, true), Some(Ended::TimedOut));
}

#[test]
fn after_the_scene_the_vmm_has_the_settle_time_to_end_or_to_enter_again() {
    let mut seen = Seen::new();
    seen.see(0, run());
    seen.see(10, What::SceneOver);
    assert_eq!(seen.decide(309, true), None);
    seen.see(309, run());
    assert_eq!(seen.decide(608, true), None);
    assert_eq!(seen.decide(609, true), Some(Ended::GuestDone));
}

#[test]
fn a_guest_that_waits_for_ever_after_the_scene_does_not_keep_the_run() {
    let mut seen = Seen::new();
    seen.see(0, What::SceneOver);
    seen.entries += 1;
    assert_eq!(seen.decide(299, true), None);
    seen.entries += 1;
    assert_eq!(seen.decide(300, true), Some(Ended::GuestDone));
}

#[test]
fn an_end_counts_more_than_all_that_was_seen_before() {
    for (status, ended) in [(Status::Exited(3), Ended::Exited(3)), (Status::Killed(9), Ended::Killed(9))] {
        let mut seen = Seen::new();
        seen.see(0, What::SceneOver);
        let sample = Sample { first: Some(status), gone: true, ..seen.sample(20_000) };
        assert_eq!(seen.watch.decide(sample, || false), Some(ended));
    }
}

#[test]
fn the_limit_of_entries_ends_the_run_at_once_by_record_and_by_flag() {
    let mut seen = Seen::new();
    seen.see(0, What::Hung);
    assert_eq!(seen.decide(0, true), Some(Ended::Hung));
    let mut seen = Seen::new();
    let sample = Sample { hung: true, ..seen.sample(0) };
    assert_eq!(seen.watch.decide(sample, || true), Some(Ended::Hung));
}

#[test]
fn a_daemon_is_the_vmm_when_the_program_that_started_it_has_ended() {
    let mut seen = Seen::new();
    seen.see(0, opened());
    seen.see(0, run());
    let left = |seen: &Seen, ms, vmm| Sample { first: Some(Status::Exited(0)), vmm, ..seen.sample(ms) };
    let sample = left(&seen, 200, None);
    assert_eq!(seen.watch.decide(sample, || true), None);
    let sample = left(&seen, 5_000, None);
    assert_eq!(seen.watch.decide(sample, || true), None, "it runs its guest");
    let sample = Sample { gone: true, ..left(&seen, 5_100, Some(Status::Killed(6))) };
    assert_eq!(seen.watch.decide(sample, || true), Some(Ended::Killed(6)));
}

#[test]
fn what_a_program_without_kvm_leaves_behind_is_waited_for_a_while() {
    let mut seen = Seen::new();
    let left = |seen: &Seen, ms| Sample { first: Some(Status::Exited(4)), ..seen.sample(ms) };
    for (ms, ended) in [(1000, None), (3999, None), (4000, Some(Ended::Exited(4)))] {
        let sample = left(&seen, ms);
        assert_eq!(seen.watch.decide(sample, || false), ended, "{ms}");
    }
}
