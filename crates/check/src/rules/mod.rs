//! The rules of the exit boundary, as data: `rules/rules.toml`, which `docs/rules.md` is made of.

mod document;

pub use document::document;

use exeunt_abi::Dialect;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::sync::OnceLock;

const TEXT: &str = include_str!("../../rules/rules.toml");

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Its name for good: `HC-2`.
    pub id: String,
    /// What breaking it means.
    pub severity: Severity,
    /// What a VMM does.
    pub text: String,
    /// Where this is written: a document, or a file of the kernel and a function.
    pub source: String,
    /// The first release that it holds for.
    pub since: Release,
    /// Proposals that it does not hold for.
    #[serde(default, deserialize_with = "dialects", serialize_with = "names")]
    pub not_for: Vec<Dialect>,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The scenarios that drive a VMM to where it bites.
    pub scenarios: Vec<String>,
}

impl Rule {
    /// Whether a VMM on a kernel of this dialect is held to the rule.
    #[must_use]
    pub fn holds_for(&self, dialect: Dialect) -> bool {
        dialect.since(self.since.major, self.since.minor) && !self.not_for.contains(&dialect)
    }
}

/// What breaking a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// The kernel's documentation or code refuses, or breaks the guest.
    Must,
    /// The documentation encourages otherwise.
    Should,
    /// Nothing notices until it is too late.
    Hazard,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Hazard => "HAZARD",
        })
    }
}

/// A release of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The 6 of 6.12.
    pub major: u16,
    /// The 12.
    pub minor: u16,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Release {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Release {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }));
        parts.ok_or_else(|| de::Error::custom(format!("'{text}' is no release")))
    }
}

fn dialects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Dialect>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let dialect = |name: &String| {
        Dialect::from_name(name).ok_or_else(|| de::Error::custom(format!("no dialect is named '{name}'")))
    };
    names.iter().map(dialect).collect()
}

fn names<S: serde::Serializer>(dialects: &[Dialect], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(dialects.iter().map(|dialect| dialect.name()))
}

/// Rules about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The thing.
    pub title: String,
    /// The rules, in the order of their numbers.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    section: Vec<Section>,
}

fn parse(text: &str) -> Result<Vec<Section>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.section)
}

/// All rules, section by section.
#[must_use]
pub fn sections() -> &'static [Section] {
    static SECTIONS: OnceLock<Vec<Section>> = OnceLock::new();
    // The file is a part of the program, and a test loads it.
    SECTIONS.get_or_init(|| parse(TEXT).unwrap_or_default())
}

/// All rules.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    sections().iter().flat_map(|section| &section.rules)
}

/// The rule with this id, in capitals or not.
#[must_use]
pub fn find(id: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests;
