//! Two halves on the same scripts.

use crate::half::{Answer, Half};
use crate::script::{Features, Script, generate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Differences that are told one by one. The others are counted.
const TOLD: usize = 8;

/// Which scripts.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// What chance draws from.
    pub seed: u64,
    /// The number of the first script.
    pub first: u64,
    /// How many.
    pub scripts: u64,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Which kernel was there, and what it offers.
    pub kernel: String,
    /// The seed.
    pub seed: u64,
    /// The number of the first script.
    pub first: u64,
    /// Scripts that were played.
    pub scripts: u64,
    /// Steps that were compared.
    pub steps: u64,
    /// Of these, entries.
    pub entries: u64,
    /// Results of entries, by exit reason or error, how often each.
    pub exits: BTreeMap<String, u64>,
    /// A digest of everything that the kernel answered.
    pub digest: String,
    /// Scripts in which the two differ.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// Where two halves part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The script's number.
    pub script: u64,
    /// The step, from 1 on; 0 is `KVM_CREATE_VM`.
    pub step: usize,
    /// The step in words.
    pub what: String,
    /// The part that differs.
    pub part: String,
    /// What the model says.
    pub expected: String,
    /// What the kernel says.
    pub seen: String,
    /// The shortest script found that shows it.
    pub script_text: String,
}

/// Plays scripts on both halves until all are done. `progress` is told the number of scripts that are.
pub fn hold(
    model: &dyn Half,
    kernel: &dyn Half,
    features: Features,
    range: Range,
    progress: &mut dyn FnMut(u64),
) -> Summary {
    let Range { seed, first, scripts } = range;
    let mut summary = Summary { seed, first, scripts, ..Summary::default() };
    let mut digest = Digest::default();
    for number in first..first.saturating_add(scripts) {
        let script = generate(seed, number, features);
        let seen = kernel.play(&script, features);
        count(&mut summary, &seen);
        for answer in &seen {
            digest.add(answer);
        }
        let expected = model.play(&script, features);
        if expected != seen {
            summary.different += 1;
            if summary.differences.len() < TOLD {
                let script = shortest(model, kernel, features, script);
                let [expected, seen] = [model, kernel].map(|half| half.play(&script, features));
                summary.differences.extend(difference(number, &script, &expected, &seen));
            }
        }
        progress(number.saturating_sub(first).saturating_add(1));
    }
    summary.digest = digest.to_string();
    summary
}

fn count(summary: &mut Summary, seen: &[Answer]) {
    summary.steps += seen.len() as u64;
    for answer in seen {
        let Some(reason) = answer.part("exit_reason") else { continue };
        summary.entries += 1;
        let reason = reason.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let name = match answer.result {
            Ok(_) => exeunt_abi::kvm::run::ExitReason(reason).to_string(),
            Err(errno) => errno.to_string(),
        };
        *summary.exits.entry(name).or_default() += 1;
    }
}

/// Leaves steps and acts out as long as there is a difference.
fn shortest(model: &dyn Half, kernel: &dyn Half, features: Features, mut script: Script) -> Script {
    let differs = |script: &Script| model.play(script, features) != kernel.play(script, features);
    for index in (0..script.steps.len()).rev() {
        let mut shorter = script.clone();
        shorter.steps.remove(index);
        if differs(&shorter) {
            script = shorter;
        }
    }
    for index in (0..script.acts.len()).rev() {
        let mut shorter = script.clone();
        shorter.acts.remove(index);
        if differs(&shorter) {
            script = shorter;
        }
    }
    script
}

/// The first difference between two lists of answers.
#[must_use]
pub fn difference(number: u64, script: &Script, expected: &[Answer], seen: &[Answer]) -> Option<Difference> {
    let step = (0..expected.len().max(seen.len())).find(|index| expected.get(*index) != seen.get(*index))?;
    let what = match step.checked_sub(1).and_then(|index| script.steps.get(index)) {
        Some(step) => format!("{step:?}"),
        None => format!("KVM_CREATE_VM {:#x}", script.vm_type),
    };
    let (part, expected, seen) = match (expected.get(step), seen.get(step)) {
        (Some(expected), Some(seen)) => part(expected, seen),
        (expected, seen) => {
            let text =
                |answer: Option<&Answer>| answer.map_or("no answer".into(), |a| format!("{:?}", a.result));
            ("answers".into(), text(expected), text(seen))
        }
    };
    let script_text = format!("{script:x?}");
    Some(Difference { script: number, step, what, part, expected, seen, script_text })
}

fn part(expected: &Answer, seen: &Answer) -> (String, String, String) {
    let text = |result: &Result<u64, _>| match result {
        Ok(value) => format!("{value:#x}"),
        Err(errno) => format!("{errno}"),
    };
    let reason = |answer: &Answer| {
        answer.part("exit_reason").map_or(String::new(), |bytes| format!(", exit_reason {}", hex(bytes)))
    };
    if expected.result != seen.result {
        let text = |answer: &Answer| text(&answer.result) + &reason(answer);
        return ("result".into(), text(expected), text(seen));
    }
    let differs = expected.seen.iter().zip(&seen.seen).find(|(left, right)| left != right);
    match differs {
        Some(((name, left), (_, right))) => {
            let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
            (format!("{name}, from byte {at:#x}"), hex(left), hex(right))
        }
        None => ("parts".into(), expected.seen.len().to_string(), seen.seen.len().to_string()),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// FNV-1a of 64 bits, so that a machine that played the scripts elsewhere can be told from one that did not.
///
/// Source: Fowler, Noll, Vo and Eastlake, "The FNV Non-Cryptographic Hash Algorithm", RFC 9923.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, answer: &Answer) {
        let result = match answer.result {
            Ok(value) => value.to_le_bytes(),
            Err(errno) => (-i64::from(errno.0)).to_le_bytes(),
        };
        let seen = answer.seen.iter().flat_map(|(_, bytes)| bytes);
        for byte in result.iter().chain(seen) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
