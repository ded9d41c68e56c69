//! What the part inside of a VMM's process, or its supervisor, is told to do.

use exeunt_abi::Dialect;
use std::fmt;
use thiserror::Error;

/// The variable of the environment that holds a plan.
pub const PLAN_VARIABLE: &str = "EXEUNT_PLAN";
/// The variable of the environment that names the file that records go into.
pub const RING_VARIABLE: &str = "EXEUNT_RING";

/// What is behind the VMM's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The real `/dev/kvm`; calls are recorded.
    Observe,
    /// The real `/dev/kvm` runs the guest, and exits are put in between its own.
    Overlay,
    /// The model is `/dev/kvm` and `/dev/sev`, and the vCPUs run guest programs.
    Scripted,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Overlay, Self::Scripted];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Overlay => "overlay",
            Self::Scripted => "scripted",
        }
    }

    /// The stage of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is behind the calls.
    pub stage: Stage,
    /// The scene that is played, where the stage has scenes.
    pub scene: Option<String>,
    /// The kernel that is imitated, if not that of the scene.
    pub dialect: Option<Dialect>,
    /// What decides by chance.
    pub seed: u64,
    /// Exits that are neither port I/O nor MMIO, after which a VMM counts as hung and is not let in any more.
    pub max_exits: u32,
}

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A line that is not `key=value` with a key that is known and a value that it can have.
    #[error("'{line}' is not a line of a plan")]
    Line {
        /// The line.
        line: String,
    },
    /// No line says what the stage is.
    #[error("the plan has no stage")]
    NoStage,
}

/// Exits of the longest scene, ten times over.
const MAX_EXITS: u32 = 400;

impl Plan {
    /// A plan for a stage, with nothing special.
    #[must_use]
    pub const fn new(stage: Stage) -> Self {
        Self { stage, scene: None, dialect: None, seed: 0, max_exits: MAX_EXITS }
    }

    /// A scene of the stage.
    #[must_use]
    pub fn with_scene(self, scene: &str) -> Self {
        Self { scene: Some(scene.into()), ..self }
    }

    /// Reads what [`Plan`]'s `Display` writes.
    ///
    /// # Errors
    ///
    /// The first line that makes no sense; no stage.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let mut stage = None;
        let mut plan = Self::new(Stage::Observe);
        for line in text.lines() {
            let wrong = || PlanError::Line { line: line.into() };
            let (key, value) = line.split_once('=').ok_or_else(wrong)?;
            match key {
                "stage" => stage = Some(Stage::from_name(value).ok_or_else(wrong)?),
                "scene" => plan.scene = Some(value.into()),
                "dialect" => plan.dialect = Some(Dialect::from_name(value).ok_or_else(wrong)?),
                "seed" => plan.seed = value.parse().map_err(|_| wrong())?,
                "max-exits" => plan.max_exits = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(Self { stage: stage.ok_or(PlanError::NoStage)?, ..plan })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage={}", self.stage)?;
        if let Some(scene) = &self.scene {
            write!(f, "\nscene={scene}")?;
        }
        if let Some(dialect) = self.dialect {
            write!(f, "\ndialect={}", dialect.name())?;
        }
        write!(f, "\nseed={}\nmax-exits={}", self.seed, self.max_exits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back_from_its_text() {
        for stage in Stage::ALL {
            let plain = Plan::new(stage);
            let full = Plan {
                dialect: Some(Dialect::Linux6_12),
                seed: u64::MAX,
                ..plain.clone().with_scene("a-scene")
            };
            for plan in [plain, full] {
                assert_eq!(Plan::parse(&plan.to_string()), Ok(plan));
            }
        }
    }

    #[test]
    fn each_line_that_makes_no_sense_is_named() {
        for line in
            ["stage", "stage=", "stage=other", "dialect=linux-1.0", "seed=-1", "max-exits=x", "color=red"]
        {
            let got = Plan::parse(&format!("stage=observe\n{line}"));
            assert_eq!(got, Err(PlanError::Line { line: line.into() }), "{line}");
        }
        assert_eq!(Plan::parse("seed=1"), Err(PlanError::NoStage));
    }
}
