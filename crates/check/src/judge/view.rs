//! A transcript as checkers look at it: exit by exit, with what was done about each.

use super::bench::Trial;
use super::pages::Pages;
use super::transcript::{Crossing, Effect, FileCall, Run, Status};
use exeunt_abi::{Errno, Gpa, Kernel};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::exit::{DecodeError, Exit, Hypercall, decode};
use serde::Serialize;
use std::rc::Rc;

/// What a rule was broken by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The number of the `KVM_RUN`, from 1; 0 for what came before the first.
    pub exit: usize,
    /// What the rule asks for.
    pub expected: String,
    /// What crossed the boundary instead.
    pub seen: String,
}

/// Letters of the end of what a VMM said that a finding quotes.
const SAID: usize = 300;

/// Whether a rule bit at all, or what broke it.
pub(super) type Judgement = Result<bool, Finding>;

/// An exit, and what was done about it.
pub(super) struct ExitView<'a> {
    /// From 1.
    pub(super) number: usize,
    pub(super) machine: u8,
    pub(super) run: &'a Run,
    pub(super) meaning: Result<Exit, DecodeError>,
    /// Up to the next entry of any vCPU.
    pub(super) effects: Vec<(&'a Effect, Result<(), Errno>)>,
    /// What was done at the certificate file meanwhile.
    pub(super) file: Vec<FileCall>,
    /// What the pages were when the exit came.
    pub(super) pages: Rc<Pages>,
    /// The next entry of the same vCPU, which hands the answer over.
    pub(super) answer: Option<&'a Run>,
}

/// A transcript, exit by exit.
pub(super) struct View<'a> {
    pub(super) trial: &'a Trial,
    pub(super) exits: Vec<ExitView<'a>>,
}

impl<'a> View<'a> {
    pub(super) fn new(trial: &'a Trial) -> Self {
        let mut exits: Vec<ExitView<'a>> = Vec::new();
        let mut now = Rc::new(trial.launched.clone());
        for record in &trial.transcript.records {
            match &record.crossing {
                Crossing::Run(run) => {
                    let machine = record.machine;
                    let same =
                        |exit: &&mut ExitView<'_>| exit.machine == machine && exit.run.vcpu == run.vcpu;
                    if let Some(before) = exits.iter_mut().rev().find(same) {
                        before.answer = Some(run);
                    }
                    let meaning = decode(run.entered, &run.after, kernel_of(trial, machine));
                    let number = exits.len().saturating_add(1);
                    let pages = Rc::clone(&now);
                    let (effects, file, answer) = Default::default();
                    exits.push(ExitView { number, machine, run, meaning, effects, file, pages, answer });
                }
                Crossing::Effect { effect, result } => {
                    Rc::make_mut(&mut now).note(effect, result.is_ok());
                    if let Some(exit) = exits.last_mut() {
                        exit.effects.push((effect, *result));
                    }
                }
                Crossing::CertFile(call) => {
                    if let Some(exit) = exits.last_mut() {
                        exit.file.push(*call);
                    }
                }
                _ => {}
            }
        }
        Self { trial, exits }
    }

    pub(super) fn kernel(&self) -> Kernel {
        self.trial.situation.kernel
    }

    pub(super) fn status(&self) -> Status {
        self.trial.transcript.end.status
    }

    pub(super) fn text(&self) -> &str {
        &self.trial.transcript.end.text
    }

    /// What it said, for people: of much the first part, which most often has the reason, and the last.
    pub(super) fn said(&self) -> String {
        let text = self.text().trim();
        let start = text.char_indices().nth(SAID / 2).map_or(text.len(), |(at, _)| at);
        let end = text.char_indices().rev().nth(SAID / 2).map_or(0, |(at, _)| at);
        match (text.get(..start), text.get(end..)) {
            (Some(first), Some(last)) if start < end => format!("{first}\n...\n{last}"),
            _ => text.into(),
        }
    }

    pub(super) fn crossings(&self) -> impl Iterator<Item = (u8, &'a Crossing)> {
        self.trial.transcript.records.iter().map(|record| (record.machine, &record.crossing))
    }

    /// Judges each exit that is chosen. None chosen means that the rule did not bite.
    pub(super) fn each<T>(
        &self,
        choose: impl Fn(&ExitView<'a>) -> Option<T>,
        judge: impl Fn(&ExitView<'a>, T) -> Result<(), Finding>,
    ) -> Judgement {
        let mut bit = false;
        for exit in &self.exits {
            if let Some(chosen) = choose(exit) {
                judge(exit, chosen)?;
                bit = true;
            }
        }
        Ok(bit)
    }

    /// The parts of a range that have a private half.
    pub(super) fn parts(&self, range: PageRange) -> Vec<PageRange> {
        let parts = self.trial.situation.memory.iter().filter(|part| part.has_private);
        parts
            .filter_map(|part| PageRange::new(Gpa(part.gpa).gfn(), part.bytes / 4096)?.intersect(range))
            .collect()
    }

    /// Whether memory is behind all of a range.
    pub(super) fn has_memory(&self, range: PageRange) -> bool {
        let pages: u64 = self
            .trial
            .situation
            .memory
            .iter()
            .filter_map(|part| PageRange::new(Gpa(part.gpa).gfn(), part.bytes / 4096)?.intersect(range))
            .map(PageRange::pages)
            .sum();
        pages == range.pages()
    }

    /// The exit ends the VM: nothing is done about it, no vCPU is entered again, and the VMM says that something is wrong.
    pub(super) fn ends_here(&self, exit: &ExitView<'_>) -> Result<(), Finding> {
        if let Some((effect, _)) = exit.effects.first() {
            return Err(exit.finding("nothing is done about it", format!("{effect:x?}")));
        }
        if self.entries_after(exit).next().is_some() {
            return Err(exit.finding("no vCPU is entered again", "KVM_RUN"));
        }
        if !self.status().has_given_up() {
            let seen = format!("{:?}: {}", self.status(), self.said());
            return Err(exit.finding("the VMM ends, and says that something is wrong", seen));
        }
        Ok(())
    }

    /// Entries that may run a guest and come after an exit. Where vCPUs run at the same time, the first return of
    /// another one belongs to an entry that may have been before, and one that a signal takes out of the guest is being
    /// stopped.
    pub(super) fn entries_after(&self, exit: &ExitView<'_>) -> impl Iterator<Item = &ExitView<'a>> {
        let (own, mut inside) = ((exit.machine, exit.run.vcpu), Vec::new());
        let is_concurrent = self.trial.is_concurrent;
        self.exits.iter().skip(exit.number).filter(move |later| {
            let vcpu = (later.machine, later.run.vcpu);
            let was_inside = is_concurrent && vcpu != own && !inside.contains(&vcpu);
            inside.push(vcpu);
            let is_stopped = is_concurrent
                && vcpu != own
                && later.run.entered == Err(Errno::EINTR)
                && !later.run.is_inside;
            !was_inside && !is_stopped && !later.run.immediate
        })
    }

    /// As [`View::ends_here`], and the text holds a number.
    pub(super) fn ends_with_number(&self, exit: &ExitView<'_>, number: u64) -> Result<(), Finding> {
        self.ends_here(exit)?;
        if names_number(self.text(), number) {
            return Ok(());
        }
        Err(exit.finding(format!("the text names {number:#x}"), self.said()))
    }
}

fn kernel_of(trial: &Trial, machine: u8) -> Kernel {
    let kernel = trial.situation.kernel;
    if machine == 0 { kernel } else { trial.situation.target.unwrap_or(kernel) }
}

impl ExitView<'_> {
    pub(super) fn finding(&self, expected: impl Into<String>, seen: impl Into<String>) -> Finding {
        Finding { exit: self.number, expected: expected.into(), seen: seen.into() }
    }

    /// A forwarded hypercall.
    pub(super) fn hypercall(&self) -> Option<Hypercall> {
        match self.meaning {
            Ok(Exit::Hypercall(call)) => Some(call),
            _ => None,
        }
    }

    /// `hypercall.ret` of the answer.
    pub(super) fn ret(&self) -> Option<u64> {
        let call: exeunt_abi::kvm::run::Hypercall = self.answer?.before.payload();
        Some(call.ret)
    }

    /// The changes of attributes.
    pub(super) fn changes(&self) -> impl Iterator<Item = (PageRange, PageState)> {
        self.effects.iter().filter_map(|(effect, _)| match effect {
            Effect::Attributes { range, to } => Some((*range, *to)),
            _ => None,
        })
    }

    /// What the pages are after all that was done.
    pub(super) fn pages_after(&self) -> Pages {
        let mut pages = (*self.pages).clone();
        self.effects.iter().for_each(|(effect, result)| pages.note(effect, result.is_ok()));
        pages
    }
}

/// Whether a text holds a number, decimal or hexadecimal, as a word of its own.
pub(super) fn names_number(text: &str, number: u64) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
        let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
        word.parse() == Ok(number) || u64::from_str_radix(hex, 16) == Ok(number)
    })
}

/// Whether a text holds bytes: as two hexadecimal digits each, with or without a mark before them and whatever stands in
/// between, as decimal numbers one after another, or as the one number that they are on x86.
pub(super) fn names_bytes(text: &str, bytes: [u8; 8]) -> bool {
    if names_number(text, u64::from_le_bytes(bytes)) {
        return true;
    }
    let hex = text.to_ascii_lowercase().replace("0x", " ");
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let expected: Vec<u8> = bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let numbers: Vec<Option<u8>> = words.map(|word| word.parse().ok()).collect();
    digits.windows(expected.len()).any(|window| window == expected)
        || numbers.windows(bytes.len()).any(|window| window.iter().copied().eq(bytes.map(Some)))
}

/// The number as a kernel reads an `int`: negative errors look so.
pub(super) fn signed(ret: u64) -> i64 {
    i64::from_ne_bytes(ret.to_ne_bytes())
}
