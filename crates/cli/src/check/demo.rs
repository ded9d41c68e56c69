//! The first minute: our half passes, and some that are wrong on purpose are caught.

use crate::{Failure, print};
use exeunt_check::judge::{self, Judged, WrongVmm};
use exeunt_check::judgement::{About, Kind, Paint, Replay, Report, Word, worst_text};
use std::process::ExitCode;

/// One for each kind of exit.
const SHOWN: [&str; 5] = [
    "negative-errno",
    "discards-nothing",
    "termination-without-a-reason",
    "writes-where-no-memory-is",
    "loses-the-flag",
];

pub(super) fn main(seed: u64, paint: Paint) -> Result<ExitCode, Failure> {
    let ours = judged(None, seed)?;
    let is_right = ours.rules.iter().all(|rule| rule.verdict == Word::Pass);
    let word = if is_right { paint.word(Word::Pass, "pass") } else { paint.word(Word::Fail, "FAIL") };
    print(&format!("{word}  our own VMM half: {} rules\n", ours.rules.len()))?;
    let mut caught = 0usize;
    for name in SHOWN {
        let vmm = judge::wrong_vmms().find(|vmm| vmm.name == name);
        let vmm = vmm.ok_or_else(|| format!("no VMM is named '{name}'"))?;
        caught = caught.saturating_add(usize::from(is_caught(&vmm, seed, paint)?));
    }
    let all = judge::wrong_vmms().count();
    print(&format!(
        "\n{caught} of {} wrong VMMs caught. `exeunt rules --vmms` lists all {all}, `exeunt check -- VMM` judges yours.\n",
        SHOWN.len()
    ))?;
    Ok(ExitCode::from(u8::from(!is_right || caught < SHOWN.len())))
}

/// By each rule that it breaks, and by no other.
fn is_caught(vmm: &WrongVmm, seed: u64, paint: Paint) -> Result<bool, Failure> {
    let report = judged(Some(vmm.name), seed)?;
    let broken: Vec<_> = report.rules.iter().filter(|rule| rule.verdict >= Word::Warn).collect();
    let is_caught = broken.iter().map(|rule| rule.rule.id.as_str()).eq(vmm.breaks.iter().copied());
    let word = if is_caught { paint.word(Word::Pass, "caught") } else { paint.word(Word::Fail, "MISSED") };
    let findings: Vec<_> = broken.iter().map(|rule| worst_text(rule, paint)).collect();
    let findings = findings.join("").trim_end().to_string();
    print(&format!("\n{word}  {}, which {}\n{findings}\n", vmm.name, vmm.what))?;
    Ok(is_caught)
}

fn judged(vmm: Option<&str>, seed: u64) -> Result<Report, Failure> {
    let judged: Vec<Judged> =
        judge::judge(vmm, |_| true, |_| true, seed).map_err(|error| error.to_string())?;
    let mut options = vec!["--seed".into(), seed.to_string().into()];
    options.extend(vmm.iter().flat_map(|vmm| ["--vmm".into(), vmm.into()]));
    let about = About {
        kind: Kind::Wrong,
        name: vmm.unwrap_or_default().into(),
        command: Vec::new(),
        profile: None,
        via: None,
        stage: None,
        dialect: None,
        seed,
        shard: None,
        replay: Replay { options, command: Vec::new() },
    };
    Ok(Report::new(about, &judged))
}
