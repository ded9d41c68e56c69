//! The port with a recorder in it: what a VMM half gets instead of a kernel half.

use super::tape::{Inner, Tape};
use super::transcript::{Crossing, Effect, Run};
use super::twist::{Drain, Seen};
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::run::{PORT_DATA_BYTES, RunPage};
use exeunt_abi::{Arch, Errno, Gpa, Kernel};
use exeunt_model::{Effects, Vcpu};
use exeunt_proto::exit::{Entered, decode};
use exeunt_proto::host::{self, Action, Host};
use exeunt_scenes::{Rewrite, Situation};

/// A vCPU whose every crossing is recorded.
pub(super) struct JudgedVcpu {
    inner: Vcpu,
    tape: Tape,
    machine: u8,
    /// The kernel that the VMM was told of.
    told: Kernel,
    /// What a kernel that is newer than those imitated writes instead.
    later: Option<Rewrite>,
    /// What another thread makes of the live page after the VMM has looked at it.
    raced: Option<fn(&mut RunPage)>,
    /// The VMM is a 32-bit process.
    is_32_bit: bool,
    /// The VMM's copy.
    page: RunPage,
    seen: Option<Seen>,
    runs: u32,
}

impl JudgedVcpu {
    pub(super) fn new(mut inner: Vcpu, tape: Tape, machine: u8, situation: &Situation, stale: u8) -> Self {
        use host::Vcpu as _;
        // What an exit long ago may have left.
        inner.page_mut().exit.fill(stale);
        let page = inner.page().clone();
        let told = situation.told.unwrap_or(situation.kernel);
        let Situation { later, raced, orders, .. } = *situation;
        let is_32_bit = orders.is_32_bit;
        Self { inner, tape, machine, told, later, raced, is_32_bit, page, seen: None, runs: 0 }
    }

    pub(super) fn model(&mut self) -> &mut Vcpu {
        &mut self.inner
    }

    /// It waits in the kernel for something that nobody sends.
    pub(super) fn is_asleep(&self) -> bool {
        self.told.arch == Arch::X86 && self.inner.is_blocked()
    }

    fn run(&mut self, wants_drain: bool) -> Entered {
        use host::Vcpu as _;
        let tape = self.tape.clone();
        let mut tape = tape.lock();
        if !tape.may_run() {
            return Err(Errno::EIO);
        }
        let mut immediate = wants_drain;
        if let (true, Some(hook)) = (wants_drain, &mut tape.twist.drain) {
            match self.seen.as_ref().map_or(Drain::Enter, hook) {
                Drain::Enter => {}
                Drain::Skip => return Err(Errno::EINTR),
                Drain::Run => immediate = false,
            }
        }
        if let (Some(seen), Some(hook)) = (&self.seen, &mut tape.twist.answer) {
            hook(seen, &mut self.page);
        }
        self.inner.page_mut().exit = self.page.exit;
        let before = self.inner.page().clone();
        let mut entered = if immediate { self.inner.enter_immediately() } else { self.inner.enter() };
        let mut after = self.inner.page().clone();
        if let Some(rewrite) = self.later {
            rewrite(self.runs, &mut entered, &mut after);
        }
        self.runs = self.runs.saturating_add(1);
        self.remember(
            &mut tape,
            Run {
                vcpu: self.inner.id(),
                immediate,
                is_inside: false,
                is_injected: false,
                before,
                entered,
                after,
            },
        );
        self.page = self.seen.as_ref().map_or_else(RunPage::zeroed, |seen| seen.page.clone());
        let mut live = self.page.clone();
        if let Some(race) = self.raced {
            race(&mut live);
        }
        if let Some(hook) = &mut tape.twist.read {
            hook(&mut entered, &mut self.page, &live);
        }
        if let (true, Some(hook)) = (self.is_32_bit, &mut tape.twist.read_as_32_bit) {
            hook(&mut self.page);
        }
        entered
    }

    fn remember(&mut self, tape: &mut Inner, run: Run) {
        let exit = decode(run.entered, &run.after, self.told).ok();
        let seen = Seen { vcpu: run.vcpu, entered: run.entered, page: run.after.clone(), exit };
        tape.seen = seen.clone();
        self.seen = Some(seen);
        let crossing = Crossing::Run(Box::new(run));
        tape.records.push(super::transcript::Record { machine: self.machine, crossing });
    }
}

impl host::Vcpu for JudgedVcpu {
    fn enter(&mut self) -> Entered {
        self.run(false)
    }

    fn enter_immediately(&mut self) -> Entered {
        self.run(true)
    }

    fn kernel(&self) -> Kernel {
        self.told
    }

    fn page(&self) -> &RunPage {
        &self.page
    }

    fn page_mut(&mut self) -> &mut RunPage {
        &mut self.page
    }

    fn port_data(&mut self) -> &mut [u8; PORT_DATA_BYTES] {
        self.inner.port_data()
    }
}

impl host::Events for JudgedVcpu {
    fn events(&mut self) -> Result<VcpuEvents, Errno> {
        let result = self.inner.events();
        let vcpu = self.inner.id();
        self.tape.add(self.machine, Crossing::GetEvents { vcpu, result });
        let events = result?;
        let again = self.tape.lock().twist.after_save.as_mut().and_then(|hook| hook(events));
        if let Some(again) = again {
            let result = self.inner.set_events(&again);
            self.tape.add(self.machine, Crossing::SetEvents { vcpu, events: again, result });
        }
        let saved = &mut self.tape.lock().twist.saved;
        Ok(saved.as_mut().map_or(events, |hook| hook(events)))
    }

    fn set_events(&mut self, events: &VcpuEvents) -> Result<(), Errno> {
        let hooked = self.tape.lock().twist.set.as_mut().map(|hook| hook(*events));
        let mut last = Ok(());
        for events in hooked.unwrap_or_else(|| vec![*events]) {
            last = self.inner.set_events(&events);
            let crossing = Crossing::SetEvents { vcpu: self.inner.id(), events, result: last };
            self.tape.add(self.machine, crossing);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn event_flags(&self) -> u32 {
        self.inner.event_flags()
    }
}

/// Memory whose every change is recorded.
pub(super) struct JudgedHost {
    inner: Effects,
    tape: Tape,
    machine: u8,
}

impl JudgedHost {
    pub(super) const fn new(inner: Effects, tape: Tape, machine: u8) -> Self {
        Self { inner, tape, machine }
    }

    fn apply_and_record(&mut self, effects: Vec<Effect>) -> Result<(), Errno> {
        let mut first = Ok(());
        for effect in effects {
            let result = self.inner.apply(&effect.action());
            self.tape.add(self.machine, Crossing::Effect { effect, result });
            first = first.and(result);
        }
        first
    }

    /// What a VMM does that is not asked for anything.
    pub(super) fn before_entry(&mut self) {
        let effects = {
            let Inner { twist, seen, .. } = &mut *self.tape.lock();
            twist.before_entry.as_mut().map(|hook| hook(seen)).unwrap_or_default()
        };
        // Nobody waits for the result, and it is recorded.
        let _ = self.apply_and_record(effects);
    }
}

impl Host for JudgedHost {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        let Some(effect) = Effect::of(action) else { return self.inner.apply(action) };
        let effects = {
            let Inner { twist, seen, .. } = &mut *self.tape.lock();
            match &mut twist.effect {
                Some(hook) => hook(seen, effect),
                None => vec![effect],
            }
        };
        self.apply_and_record(effects)
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.inner.read_guest(gpa, bytes)
    }
}
