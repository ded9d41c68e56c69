//! A VMM that is not ours, in processes of its own.

use super::choose::Row;
use super::progress::Progress;
use super::{Args, Format, Stage, Via};
use crate::{Failure, print};
use exeunt_check::foreign::{self, Choice, Profile, Progress as Event, Subject};
use exeunt_check::judge::{Judged, Verdict};
use exeunt_check::judgement::{About, Kind, Replay, Report, SceneTime, inert};
use exeunt_check::profile;
use exeunt_check::rules::Rule;
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Seconds for one scene, unless others are asked for.
const TIMEOUT: u32 = 10;

/// Judges it in each scene that is asked for. With the report comes why it is not whole, if that is an error.
pub(super) fn judge(
    args: &Args,
    rules: &[&'static Rule],
    stop: &Arc<AtomicBool>,
) -> Result<(Report, Option<Failure>), Failure> {
    let (subject, choice) = (subject(args)?, choice(args, rules, stop));
    let planned = foreign::plan(&subject, &choice).map_err(shown)?;
    if let (Some(scene), true) = (&args.scene, planned.is_empty() && args.shard.is_none()) {
        return Err(format!(
            "no scene of these rules is named '{}'; --list lists all",
            crate::one_line(scene)
        ));
    }
    let to_play = planned.iter().filter(|planned| planned.left_out.is_none()).count();
    let mut progress = Progress::new(args);
    let started = Instant::now();
    let (mut judged, mut times) = (Vec::new(), Vec::new());
    let result = foreign::judge(&subject, &choice, &mut |event| match event {
        Event::Started { scene, nth, of } => progress.show(scene, nth, of),
        Event::Judged(one) => judged.push(one.clone()),
        Event::Ended { scene, elapsed, .. } => times.push(SceneTime { scene: scene.into(), elapsed }),
    });
    progress.clear();
    let is_stopped = stop.load(Ordering::Relaxed);
    // That somebody stopped it is known already.
    let failure = result.err().map(shown).filter(|_| !is_stopped);
    let is_exercised = |judged: &Judged| !matches!(judged.verdict, Verdict::NotExercised { .. });
    if let Some(failure) = failure.clone().filter(|_| !judged.iter().any(is_exercised)) {
        return Err(failure);
    }
    let interrupted = || format!("interrupted after {} of {} scenes", times.len(), to_play);
    let cut_short = failure.clone().or_else(|| is_stopped.then(interrupted));
    let about = about(args, &subject, planned.first().map(|planned| planned.stage.to_string()));
    Ok((Report { times, cut_short, elapsed: started.elapsed(), ..Report::new(about, &judged) }, failure))
}

fn shown(error: impl std::fmt::Display) -> Failure {
    inert(&error.to_string())
}

/// What would be played.
pub(super) fn plan(args: &Args, rules: &[&'static Rule]) -> Result<Vec<Row>, Failure> {
    let choice = choice(args, rules, &Arc::default());
    let planned = foreign::plan(&subject(args)?, &choice).map_err(shown)?;
    let row = |planned: foreign::Planned| Row {
        scene: planned.scene,
        dialect: planned.dialect.to_string(),
        stage: Some(planned.stage.to_string()),
        rules: planned.rules,
        left_out: planned.left_out,
    };
    Ok(planned.into_iter().map(row).collect())
}

fn subject(args: &Args) -> Result<Subject, Failure> {
    let profile = match (args.profile.as_deref(), args.command.as_slice()) {
        (Some(name), _) => Some(Profile::load(name).map_err(shown)?),
        // Arguments are a whole machine, which a profile would only disturb.
        (None, [program]) => profile::for_program(Path::new(program), stage(args)),
        (None, _) => None,
    };
    let via = args.via.map(|via| match via {
        Via::Shim => foreign::Via::Shim,
        Via::Notify => foreign::Via::Notify,
    });
    Ok(Subject { command: args.command.clone(), profile, via })
}

fn stage(args: &Args) -> Option<foreign::Stage> {
    args.stage.map(|stage| match stage {
        Stage::Observe => foreign::Stage::Observe,
        Stage::Overlay => foreign::Stage::Overlay,
        Stage::Scripted => foreign::Stage::Scripted,
    })
}

fn choice(args: &Args, rules: &[&'static Rule], stop: &Arc<AtomicBool>) -> Choice {
    Choice {
        rules: rules.iter().map(|rule| rule.id.as_str()).collect(),
        dialect: args.dialect,
        stage: stage(args),
        scene: args.scene.clone(),
        seed: args.seed,
        timeout: Duration::from_secs(args.timeout.unwrap_or(TIMEOUT).into()),
        shard: args.shard,
        stop: Arc::clone(stop),
    }
}

fn about(args: &Args, subject: &Subject, stage: Option<String>) -> About {
    let program = args.command.first().map(|program| program.to_string_lossy().into_owned());
    let file = program.as_deref().and_then(|program| Path::new(program).file_name());
    let name = file.map(|name| name.to_string_lossy().into_owned()).or(program);
    let profile = subject.profile.as_ref().map(|profile| profile.name.clone());
    let via = args.via.and_then(|via| clap::ValueEnum::to_possible_value(&via));
    let options = options(args, stage.as_deref(), args.profile.as_ref().or(profile.as_ref()));
    About {
        kind: Kind::Foreign,
        name: name.or_else(|| profile.clone()).unwrap_or_default(),
        command: args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        profile,
        via: via.map(|via| via.get_name().into()),
        stage,
        dialect: args.dialect.map(|dialect| dialect.to_string()),
        seed: args.seed,
        shard: args.shard.map(|shard| shard.to_string()),
        replay: Replay { options, command: args.command.clone() },
    }
}

/// What a line has to say to show a verdict again, besides the rule and the scene.
fn options(args: &Args, stage: Option<&str>, profile: Option<&String>) -> Vec<OsString> {
    let mut options = vec![OsString::from("--seed"), args.seed.to_string().into()];
    let via = args.via.and_then(|via| clap::ValueEnum::to_possible_value(&via));
    let given = [
        ("--stage", stage.map(str::to_string)),
        ("--dialect", args.dialect.map(|dialect| dialect.to_string())),
        ("--via", via.map(|via| via.get_name().to_string())),
        ("--profile", profile.cloned()),
        ("--timeout", args.timeout.map(|seconds| seconds.to_string())),
    ];
    for (name, value) in given {
        options.extend(value.into_iter().flat_map(|value| [name.into(), value.into()]));
    }
    options
}

#[derive(Serialize)]
struct ProfileRow {
    name: String,
    title: String,
    tested: Option<String>,
}

/// The profiles that come with this program.
pub(super) fn profiles(format: Format) -> Result<ExitCode, Failure> {
    let row =
        |profile: Profile| ProfileRow { name: profile.name, title: profile.title, tested: profile.tested };
    let rows: Vec<_> = Profile::shipped().into_iter().map(row).collect();
    print(&match format {
        Format::Json => crate::rules::json(&rows)?,
        Format::Text => rows.iter().fold(String::new(), |mut text, row| {
            let tested =
                row.tested.as_ref().map_or_else(|| "untested".into(), |with| format!("tested: {with}"));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<20} {tested:<28} {}", row.name, row.title);
            text
        }),
    })?;
    Ok(ExitCode::SUCCESS)
}
