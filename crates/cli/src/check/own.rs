//! Our own VMM half, or one that is wrong on purpose, in this process.

use super::progress::Progress;
use super::{Args, choose};
use crate::Failure;
use exeunt_check::judge;
use exeunt_check::judgement::{About, Kind, Replay, Report, SceneTime};
use exeunt_check::rules::Rule;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What our half is called.
const OUR_HALF: &str = "exeunt's VMM half";

/// Judges it in each scene that is asked for.
pub(super) fn judge(
    args: &Args,
    rules: &[&'static Rule],
    stop: &AtomicBool,
) -> Result<(Report, Option<Failure>), Failure> {
    let scenes = choose::scenes(args, rules)?;
    let vmm = args.vmm.as_deref();
    if let Some(name) = vmm.filter(|name| judge::wrong_vmms().all(|vmm| vmm.name != *name)) {
        return Err(judge::JudgeError::UnknownVmm { name: crate::one_line(name) }.to_string());
    }
    let mut progress = Progress::new(args);
    let started = Instant::now();
    let (mut judged, mut times, mut cut_short) = (Vec::new(), Vec::new(), None);
    for (place, scene) in scenes.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            cut_short = Some(format!("interrupted after {place} of {} scenes", scenes.len()));
            break;
        }
        progress.show(scene.name, place.saturating_add(1), scenes.len());
        let started = Instant::now();
        let is_rule = |rule: &Rule| rules.iter().any(|chosen| chosen.id == rule.id);
        let of_scene = judge::judge(vmm, is_rule, |it| it.name == scene.name, args.seed);
        judged.extend(of_scene.map_err(|error| error.to_string())?);
        times.push(SceneTime { scene: scene.name.into(), elapsed: started.elapsed() });
    }
    progress.clear();
    let report = Report { times, cut_short, elapsed: started.elapsed(), ..Report::new(about(args), &judged) };
    Ok((report, None))
}

fn about(args: &Args) -> About {
    let mut options = vec!["--seed".into(), args.seed.to_string().into()];
    if let Some(vmm) = &args.vmm {
        options.extend(["--vmm".into(), vmm.into()]);
    }
    About {
        kind: if args.vmm.is_some() { Kind::Wrong } else { Kind::Own },
        name: args.vmm.clone().unwrap_or_else(|| OUR_HALF.into()),
        command: Vec::new(),
        profile: None,
        via: None,
        stage: None,
        dialect: args.dialect.map(|dialect| dialect.to_string()),
        seed: args.seed,
        shard: args.shard.map(|shard| shard.to_string()),
        replay: Replay { options, command: Vec::new() },
    }
}
