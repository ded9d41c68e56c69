//! One scene, played with a VMM, and judged.

use super::scenes::Scene;
use super::{Choice, ForeignError, Stage, Subject, Via};
use crate::judge::{Case, Ending, Judged, Played, Verdict};
use crate::profile::{Command, Profile};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_interpose::launch::{Ended, Launch, Ran};
use exeunt_interpose::plan::Plan;
use exeunt_interpose::record::What;
use std::ffi::OsString;

/// What came of a scene.
pub(super) struct Outcome {
    pub(super) judged: Vec<Judged>,
    /// The VMM made a VM.
    pub(super) has_vm: bool,
    /// It ended by itself, and came to a kernel half through the shim only.
    pub(super) may_be_unseen: bool,
    /// How it ended, for people.
    pub(super) ended: String,
    /// What it said.
    pub(super) output: String,
}

/// A scene that is not played leaves its rules not exercised.
pub(super) fn left_out(scene: &Scene, why: &str) -> Vec<Judged> {
    let judged = |rule: &&'static crate::rules::Rule| Judged {
        rule: &rule.id,
        scenario: scene.situation.name,
        verdict: Verdict::not_exercised(why),
        bytes: None,
    };
    scene.rules.iter().map(judged).collect()
}

/// Plays a scene.
///
/// # Errors
///
/// The VMM cannot be started; the check was stopped; nobody knows how the VMM ended.
pub(super) fn play(subject: &Subject, choice: &Choice, scene: &Scene) -> Result<Outcome, ForeignError> {
    let mut plan = Plan::new(scene.stage);
    if scene.stage != Stage::Observe {
        plan = plan.with_scene(scene.situation.name);
    }
    plan.seed = choice.seed;
    plan.dialect = Some(scene.situation.kernel.dialect);
    let certificates = scene.situation.orders.certificates;
    let table = if certificates { Some(super::certificates::file()?) } else { None };
    let orders = super::orders::arguments(subject, scene, table.as_ref());
    let mut launch = Launch::new(Vec::new(), plan, crate::shim::bytes());
    // Files that the command names live as long as this does.
    let filled = match &subject.profile {
        Some(profile) => Some(fill(subject, profile, &orders)?),
        None => None,
    };
    match &filled {
        Some(filled) => {
            launch.command = [&[filled.program.clone().into()], filled.args.as_slice()].concat();
            launch.env.clone_from(&filled.env);
        }
        None => launch.command.clone_from(&subject.command),
    }
    if let Some(profile) = &subject.profile {
        launch.settle = profile.settle;
    }
    launch.via = subject.via;
    launch.timeout = choice.timeout;
    let ran = launch.run(&choice.stop, &mut |_| {});
    drop((filled, table));
    let ran = ran.map_err(|error| ForeignError::Launch { why: error.to_string() })?;
    judge(scene, &ran)
}

/// The profile's command for the program, with what the scene wants, and the user's arguments.
fn fill(subject: &Subject, profile: &Profile, orders: &[OsString]) -> Result<Command, ForeignError> {
    let (program, user) = match subject.command.split_first() {
        Some((program, args)) => (Some(program.as_os_str()), args),
        None => (None, [].as_slice()),
    };
    Ok(profile.command(program, &[orders, user].concat())?)
}

fn judge(scene: &Scene, ran: &Ran) -> Result<Outcome, ForeignError> {
    let ending = match ran.end {
        Ended::Exited(status) => Ending::Exited(status),
        Ended::Killed(_) => Ending::Crashed,
        Ended::Paused => Ending::Paused,
        Ended::GuestDone => Ending::GuestDone,
        Ended::TimedOut | Ended::Hung => Ending::Hung,
        Ended::Cancelled => return Err(ForeignError::Stopped),
        Ended::Lost => return Err(ForeignError::Lost { why: ran.trouble.join("; ") }),
    };
    let output = ran.output.text.as_str();
    let pages = scene.situation.orders.certificates.then(super::certificates::pages);
    let played = Played {
        situation: &scene.situation,
        is_on_kernel: scene.stage != Stage::Scripted,
        records: &ran.records,
        ending,
        output,
        certificate_pages: pages,
    };
    let case = Case::new(&played);
    let trouble = ran.records.iter().find_map(|record| match &record.what {
        What::Trouble { why } => Some(why.as_str()),
        _ => None,
    });
    // What else went wrong around the run says nothing about the VMM, unless records are missing.
    let missing =
        || (!ran.is_complete).then(|| ran.trouble.first().map_or("records are missing", String::as_str));
    let trouble = trouble.or_else(missing);
    let needs = scene.situation.vm_type;
    let judged = match (case.vm_type(), trouble) {
        (_, Some(why)) => left_out(scene, why),
        (Some(has), None) if scene.stage == Stage::Scripted && !scene.situation.plays_in(has) => {
            left_out(scene, &wrong_type(has, needs))
        }
        _ => case.judge(&scene.rules),
    };
    Ok(Outcome {
        judged,
        has_vm: case.vm_type().is_some(),
        may_be_unseen: ran.via == Via::Shim && matches!(ran.end, Ended::Exited(_)),
        ended: words(ran.end),
        output: [ran.startup.text.as_str(), output].concat(),
    })
}

fn wrong_type(has: VmType, needs: VmType) -> String {
    format!("the VMM made a VM of type {}, and the scene needs {}", has.name(), needs.name())
}

/// How a VMM ended, for people.
fn words(end: Ended) -> String {
    match end {
        Ended::Exited(status) => format!("it exited with status {status}"),
        Ended::Killed(signal) => format!("signal {signal} ended it"),
        Ended::Paused | Ended::GuestDone => "it is there and does nothing".into(),
        Ended::TimedOut => "it was still running when its time was up".into(),
        Ended::Hung => "it entered vCPUs without end".into(),
        Ended::Cancelled => "it was stopped".into(),
        Ended::Lost => "nobody knows how it ended".into(),
    }
}
