//! Which scenes a VMM is put into, and which of them cannot be played with it.

use super::orders;
use super::{Choice, Profile, Stage, Subject};
use crate::rules::{self, Rule};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Kernel};
use exeunt_scenes::overlay::{self, Overlay};
use exeunt_scenes::{Situation, situations};

/// A scene and the rules that are judged there.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// What the VMM is put into, with the orders that it can be given.
    pub(super) situation: Situation,
    /// What is behind the VMM's calls.
    pub(super) stage: Stage,
    /// The rules, in their order.
    pub(super) rules: Vec<&'static Rule>,
    /// Why it is not played, if it is not.
    pub(super) left_out: Option<String>,
}

impl Scene {
    /// It is played.
    pub(super) const fn is_played(&self) -> bool {
        self.left_out.is_none()
    }
}

/// The name of the one scene of a VMM that is only observed.
pub(super) const ORDINARY_RUN: &str = "ordinary-run";

/// The rule about what comes before a snapshot: nobody sees in an ordinary run what the state is read for.
const DRAINED: &str = "HC-14";

/// All scenes of a stage with rules of the choice, in their order, whatever the shard.
pub(super) fn chosen(subject: &Subject, choice: &Choice, stage: Stage, host: Option<Kernel>) -> Vec<Scene> {
    let is_chosen = |rule: &&'static Rule| choice.rules.contains(&rule.id.as_str());
    let mut scenes: Vec<Scene> = match stage {
        Stage::Observe => {
            let situation = on_host(Situation::new(ORDINARY_RUN, VmType::Default, halt), host);
            let (unseen, rules) = rules::all().filter(is_chosen).partition(|rule| rule.id == DRAINED);
            let why = "a VMM reads the events of a vCPU for other reasons than a snapshot, too".into();
            let beside = Scene { situation: situation.clone(), stage, rules: unseen, left_out: Some(why) };
            vec![Scene { situation, stage, rules, left_out: None }, beside]
        }
        Stage::Overlay => overlay::all().map(|scene| overlaid(subject, choice, &scene, host)).collect(),
        Stage::Scripted => {
            situations::all().into_iter().map(|situation| scripted(subject, choice, situation)).collect()
        }
    };
    scenes.retain(|scene| {
        !scene.rules.is_empty() && choice.scene.as_ref().is_none_or(|name| name == scene.situation.name)
    });
    scenes
}

fn halt(cpu: exeunt_model::guest::Cpu) -> exeunt_model::device::Program {
    Box::pin(async move {
        cpu.hlt().await;
        Ok(())
    })
}

fn on_host(mut situation: Situation, host: Option<Kernel>) -> Situation {
    situation.kernel = host.unwrap_or_default();
    situation
}

/// An exit can come on the host's own kernel; whether it can in this VM is seen when there is one.
fn overlaid(subject: &Subject, choice: &Choice, scene: &Overlay, host: Option<Kernel>) -> Scene {
    let situation = scene.situation(host.unwrap_or_default());
    let is_chosen = |rule: &&'static Rule| {
        choice.rules.contains(&rule.id.as_str()) && scene.rules.contains(&rule.id.as_str())
    };
    let left_out = why_not(subject, choice, &situation);
    Scene { situation, stage: Stage::Overlay, rules: rules::all().filter(is_chosen).collect(), left_out }
}

fn scripted(subject: &Subject, choice: &Choice, mut situation: Situation) -> Scene {
    let name = situation.name;
    let rules = rules::all().filter(|rule| {
        choice.rules.contains(&rule.id.as_str()) && rule.scenarios.iter().any(|scenario| scenario == name)
    });
    let rules = rules.collect();
    let left_out = why_not(subject, choice, &situation);
    if let (Some(dialect), None) = (choice.dialect, &left_out) {
        situation.kernel.dialect = dialect;
    }
    give_orders(subject, &mut situation);
    Scene { situation, stage: Stage::Scripted, rules, left_out }
}

/// Why a scenario is not played with this VMM.
fn why_not(subject: &Subject, choice: &Choice, situation: &Situation) -> Option<String> {
    if situation.kernel.arch != Arch::X86 {
        return Some("the scene is one of another architecture than x86".into());
    }
    if !situation.plays_outside() {
        return Some("the scene needs a judge inside of the VMM".into());
    }
    let Ok(task) = orders::of_task(situation.orders.task) else {
        return Some("the scene needs a judge inside of the VMM".into());
    };
    let profile = subject.profile.as_ref();
    let wants = situation.orders;
    let wanted = [
        ("certificates", wants.certificates),
        ("ignore-events", wants.ignore_events),
        (task.unwrap_or_default(), task.is_some()),
    ];
    for (order, is_wanted) in wanted {
        match profile {
            _ if !is_wanted => {}
            None => {
                return Some(format!("the scene needs `{order}`, and no profile says how the VMM is told"));
            }
            Some(profile) if !profile.takes(order) => {
                return Some(format!("the profile has no argument for `{order}`, which the scene needs"));
            }
            Some(_) => {}
        }
    }
    if let Some(profile) = profile {
        if vm_type(profile, situation).is_none() {
            let has: Vec<_> = profile.vm_types.iter().map(|vm_type| vm_type.name()).collect();
            let (has, needs) = (has.join(" or "), situation.vm_type.name());
            return Some(format!("the VMM makes a VM of type {has}, and the scene needs {needs}"));
        }
        if situation.vcpus > 1 && !profile.takes("vcpus") {
            return Some(
                "the scene needs a VM of two vCPUs, and the profile has no argument for that".into(),
            );
        }
    }
    // A scene that is about an older kernel, or a proposal, happens on that.
    let newest = Dialect::Linux7_2;
    match choice.dialect {
        Some(dialect) if situation.kernel.dialect != newest && situation.kernel.dialect != dialect => {
            Some(format!("the scene happens on {}", situation.kernel.dialect))
        }
        _ => None,
    }
}

/// The type of VM that the scene is played in: its own, if the VMM can make one.
pub(super) fn vm_type(profile: &Profile, situation: &Situation) -> Option<VmType> {
    let own = profile.vm_types.iter().find(|vm_type| **vm_type == situation.vm_type);
    own.or_else(|| profile.vm_types.iter().find(|vm_type| situation.plays_in(**vm_type))).copied()
}

/// What a VMM does about faults is its own policy, which the profile declares, unless it can be told.
fn give_orders(subject: &Subject, situation: &mut Situation) {
    let Some(profile) = &subject.profile else { return };
    let can_be_told = profile.takes("convert-faults");
    situation.orders.convert_faults =
        profile.convert_faults || situation.orders.convert_faults && can_be_told;
}
