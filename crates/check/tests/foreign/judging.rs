//! A program of `crates/subject` before the judge.

use crate::programs::Program;
use exeunt_check::foreign::{self, Choice, Profile, Stage, Subject, Via};
use exeunt_check::judge::{Judged, Verdict};
use exeunt_check::rules;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

/// Who is judged.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) program: Program,
    pub(crate) via: Option<Via>,
    pub(crate) wrong: Option<String>,
}

impl Trial {
    /// A right VMM, by the way in that suits it.
    pub(crate) const fn of(program: Program) -> Self {
        Self { program, via: None, wrong: None }
    }

    /// Judges it by all rules, in all scenes.
    ///
    /// # Errors
    ///
    /// It cannot be built, or cannot be run.
    pub(crate) fn judge(&self) -> Result<Vec<Judged>, String> {
        let profile = Profile::load("subject").map_err(|error| error.to_string())?;
        let mut command: Vec<OsString> = vec![self.program.path()?.into()];
        if let Some(wrong) = &self.wrong {
            command.extend(["--wrong".into(), wrong.into()]);
        }
        let subject = Subject { command, profile: Some(profile), via: self.via };
        foreign::judge(&subject, &choice(), &mut |_| {}).map_err(|error| format!("{self:?}: {error}"))
    }
}

fn choice() -> Choice {
    Choice {
        rules: rules::all().map(|rule| rule.id.as_str()).collect(),
        dialect: None,
        stage: Some(Stage::Scripted),
        scene: None,
        seed: 1,
        timeout: Duration::from_secs(10),
        shard: None,
        stop: Arc::default(),
    }
}

/// The rules that were broken, and those that were kept.
pub(crate) fn broken(judged: &[Judged]) -> BTreeSet<&'static str> {
    judged.iter().filter(|judged| judged.finding().is_some()).map(|judged| judged.rule).collect()
}

/// The rules that were kept in at least one scene, and broken in none.
pub(crate) fn kept(judged: &[Judged]) -> BTreeSet<&'static str> {
    let passed = judged.iter().filter(|judged| matches!(judged.verdict, Verdict::Passed));
    let passed: BTreeSet<_> = passed.map(|judged| judged.rule).collect();
    &passed - &broken(judged)
}
