//! Which rules and which scenes.

use super::{Args, Format, foreign};
use crate::rules::is_meant;
use crate::{Failure, print};
use exeunt_check::judge::{self, Scene};
use exeunt_check::judgement::inert;
use exeunt_check::rules::{self, Rule};
use serde::Serialize;
use std::fmt::Write as _;
use std::process::ExitCode;

/// The rules that are asked for: all of them if none is.
pub(super) fn rules(asked: &[String]) -> Result<Vec<&'static Rule>, Failure> {
    for id in asked {
        if !rules::all().any(|rule| is_meant(rule, id)) {
            return Err(format!("no rule is named '{}'; `exeunt rules` lists all", crate::one_line(id)));
        }
    }
    let is_asked = |rule: &&Rule| asked.is_empty() || asked.iter().any(|id| is_meant(rule, id));
    Ok(rules::all().filter(is_asked).collect())
}

/// The scenes that these rules bite in, and that are asked for.
pub(super) fn scenes(args: &Args, chosen: &[&'static Rule]) -> Result<Vec<Scene>, Failure> {
    if let Some(name) = &args.scene {
        if judge::scenes().all(|scene| scene.name != name) {
            return Err(format!("no scene is named '{}'; --list lists all", crate::one_line(name)));
        }
    }
    let is_asked = |scene: &Scene| {
        args.scene.as_ref().is_none_or(|name| scene.name == name)
            && args.dialect.is_none_or(|dialect| scene.dialect == dialect)
            && scene.rules().any(|rule| chosen.iter().any(|chosen| chosen.id == rule.id))
    };
    let scenes: Vec<_> = judge::scenes().filter(is_asked).collect();
    if scenes.is_empty() {
        return Err("no scene is left: no chosen rule has one that is asked for".into());
    }
    let taken = |place| args.shard.is_none_or(|shard| shard.takes(place));
    Ok(scenes.into_iter().enumerate().filter(|(place, _)| taken(*place)).map(|(_, scene)| scene).collect())
}

/// One scene in a list.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) scene: &'static str,
    pub(super) dialect: String,
    pub(super) stage: Option<String>,
    pub(super) rules: Vec<&'static str>,
    /// Why it would not be played.
    pub(super) left_out: Option<String>,
}

pub(super) fn list(args: &Args, chosen: &[&'static Rule]) -> Result<ExitCode, Failure> {
    let rows = if args.is_foreign() { foreign::plan(args, chosen)? } else { own(args, chosen)? };
    print(&match args.format {
        Format::Json => crate::rules::json(&rows)?,
        Format::Text => rows.iter().fold(String::new(), |mut text, row| {
            let stage = row.stage.as_ref().map_or_else(String::new, |stage| format!("{stage:<9} "));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<32} {:<20} {stage}{}", row.scene, row.dialect, row.rules.join(" "));
            if let Some(why) = &row.left_out {
                let _ = writeln!(text, "  not played: {}", inert(why));
            }
            text
        }),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn own(args: &Args, chosen: &[&'static Rule]) -> Result<Vec<Row>, Failure> {
    let row = |scene: Scene| Row {
        scene: scene.name,
        dialect: scene.dialect.to_string(),
        stage: None,
        rules: scene
            .rules()
            .filter(|rule| chosen.iter().any(|chosen| chosen.id == rule.id))
            .map(|rule| rule.id.as_str())
            .collect(),
        left_out: None,
    };
    Ok(scenes(args, chosen)?.into_iter().map(row).collect())
}
