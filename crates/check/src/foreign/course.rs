//! The course of a check: scene by scene, as far as it makes sense to go on.

use super::play::{left_out, play};
use super::scenes::{Scene, chosen};
use super::{Choice, ForeignError, Planned, Progress, Stage, Subject, Via};
use crate::judge::Judged;
use crate::rules;
use exeunt_abi::{Arch, Kernel};
use exeunt_linux::Kvm;
use std::time::Instant;

/// What [`judge`] would run.
///
/// # Errors
///
/// Nothing could be run.
pub fn plan(subject: &Subject, choice: &Choice) -> Result<Vec<Planned>, ForeignError> {
    let scenes = scenes(subject, choice)?;
    let planned = |scene: &Scene| Planned {
        scene: scene.situation.name,
        dialect: scene.situation.kernel.dialect,
        stage: scene.stage,
        rules: scene.rules.iter().map(|rule| rule.id.as_str()).collect(),
        left_out: scene.left_out.clone(),
    };
    Ok(scenes.iter().map(planned).collect())
}

/// Puts a VMM into each scene of the choice and judges it: verdicts in the order of the rules.
///
/// # Errors
///
/// It could not be run. What was judged before was told to `progress`.
pub fn judge(
    subject: &Subject,
    choice: &Choice,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Judged>, ForeignError> {
    let scenes = scenes(subject, choice)?;
    let (played, left): (Vec<_>, Vec<_>) = scenes.iter().partition(|scene| scene.is_played());
    let of = played.len();
    let mut subject = subject.clone();
    let mut has_vm = false;
    let mut all = Vec::new();
    for (nth, scene) in (1..).zip(played) {
        let name = scene.situation.name;
        progress(Progress::Started { scene: name, nth, of });
        let start = Instant::now();
        let mut outcome = play(&subject, choice, scene)?;
        if !has_vm && !outcome.has_vm && outcome.may_be_unseen && subject.via.is_none() {
            // It may make its system calls by itself, which the shim does not see.
            subject.via = Some(Via::Notify);
            outcome = play(&subject, choice, scene)?;
        }
        has_vm |= outcome.has_vm;
        if !has_vm {
            // It will not make one in the next scene either, and may take all its time for that.
            return Err(ForeignError::NoVm { ended: outcome.ended, output: outcome.output });
        }
        progress(Progress::Ended { scene: name, nth, of, elapsed: start.elapsed() });
        for judged in &outcome.judged {
            progress(Progress::Judged(judged));
        }
        all.extend(outcome.judged);
    }
    for scene in left {
        let judged = left_out(scene, scene.left_out.as_deref().unwrap_or_default());
        for judged in &judged {
            progress(Progress::Judged(judged));
        }
        all.extend(judged);
    }
    let place = |judged: &Judged| rules::all().position(|rule| rule.id == judged.rule);
    all.sort_by_key(place);
    Ok(all)
}

/// The scenes of the choice, of which at least one is played, in this shard or in another one.
fn scenes(subject: &Subject, choice: &Choice) -> Result<Vec<Scene>, ForeignError> {
    let stages = subject.profile.as_ref().map(|profile| profile.stages.as_slice()).unwrap_or_default();
    let stage = choice.stage.or_else(|| suits_host(stages)).unwrap_or(Stage::Scripted);
    if let (Some(profile), false) = (&subject.profile, stages.contains(&stage)) {
        let has = stages.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(ForeignError::NotOfProfile { profile: profile.name.clone(), stage, has });
    }
    let host = if stage == Stage::Scripted { None } else { Some(host()?) };
    // A shard may have no scene that is played, as long as another one has.
    let all = chosen(subject, choice, stage, host);
    match (all.iter().any(Scene::is_played), all.first()) {
        (true, _) => {
            let takes = |place| choice.shard.is_none_or(|shard| shard.takes(place));
            let ours = all.into_iter().enumerate().filter(|(place, _)| takes(*place));
            Ok(ours.map(|(_, scene)| scene).collect())
        }
        (false, Some(scene)) => {
            let why = scene.left_out.clone().unwrap_or_default();
            Err(ForeignError::NothingToPlay { stage, why })
        }
        (false, None) if choice.scene.is_some() => {
            let name = choice.scene.clone().unwrap_or_default();
            Err(ForeignError::UnknownScene { stage, name })
        }
        (false, None) => {
            Err(ForeignError::NothingToPlay { stage, why: "no rule of the choice has a scene there".into() })
        }
    }
}

/// The best stage of a profile that this host can do; if there is none, the best, so that it is said what is missing.
fn suits_host(stages: &[Stage]) -> Option<Stage> {
    let can = |stage: &&Stage| **stage == Stage::Scripted || Kvm::open().is_ok();
    stages.iter().find(can).or(stages.first()).copied()
}

/// The kernel that is really there.
fn host() -> Result<Kernel, ForeignError> {
    let kvm = Kvm::open().map_err(|error| ForeignError::NoKvm { why: error.to_string() })?;
    Ok(Kernel { dialect: kvm.dialect(), arch: Arch::X86 })
}
