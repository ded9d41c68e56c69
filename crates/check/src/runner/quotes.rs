//! Quotes in a scenario: a provider that answers at a known step, so that every run is the same.

use crate::scenario::{QuoteAnswer, QuoteConfig};
use crate::timeline::Log;
use exeunt::memory::GuestMemory;
use exeunt::tdx::{
    CallInfo, GuestWriter, NoQuote, Notifier, NotifyTarget, QuoteLimits, QuoteProvider, QuoteSink, Quotes,
    TdxPolicy,
};
use exeunt_abi::{Errno, Gpa};
use exeunt_model::Vm;
use exeunt_quote::simulated_quote;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a message-signalled interrupt goes to the local APIC with id 0.
const MSI_ADDRESS: u64 = 0xfee0_0000;
/// Where such an address has the APIC id.
const MSI_DESTINATION_SHIFT: u32 = 12;

/// The provider of a case. It answers when [`StepProvider::step`] is called often enough after the request.
#[derive(Debug)]
pub(super) struct StepProvider {
    config: QuoteConfig,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    steps: u32,
    /// The step at which each request is answered, in order.
    requests: VecDeque<(u32, Vec<u8>, QuoteSink)>,
}

impl StepProvider {
    /// An exit was serviced. Returns whether requests still wait for their answer.
    pub(super) fn step(&self, log: &Log) -> bool {
        let due = {
            let waiting = &mut *self.waiting();
            waiting.steps = waiting.steps.saturating_add(1);
            let count = waiting.requests.iter().take_while(|(due, ..)| *due <= waiting.steps).count();
            waiting.requests.drain(..count).collect::<Vec<_>>()
        };
        for (_, report, sink) in due {
            log.vmm(format!("answers a request for a quote: {:?}", self.config.answer));
            self.answer(&report, sink);
        }
        !self.waiting().requests.is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, report: &[u8], sink: QuoteSink) {
        match self.config.answer {
            QuoteAnswer::Simulated => sink.complete(Ok(&simulated_quote(report))),
            QuoteAnswer::Unavailable => sink.complete(Err(NoQuote::Unavailable)),
            QuoteAnswer::Failed => sink.complete(Err(NoQuote::Failed)),
            QuoteAnswer::Forgotten => drop(sink),
            QuoteAnswer::TooLarge => {
                let room_bytes = usize::try_from(sink.room_bytes()).unwrap_or(0);
                sink.complete(Ok(&vec![0x5a; room_bytes.saturating_add(1)]));
            }
        }
    }
}

impl QuoteProvider for StepProvider {
    fn submit(&self, report: &[u8], sink: QuoteSink) {
        if self.config.after == 0 {
            return self.answer(report, sink);
        }
        let waiting = &mut *self.waiting();
        // The exit of the request itself is the first step.
        let due = waiting.steps.saturating_add(1).saturating_add(self.config.after);
        waiting.requests.push_back((due, report.to_vec(), sink));
    }
}

/// What a VMM does when a quote is there.
struct Late(Vm);

impl GuestWriter for Late {
    fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_shared(gpa, bytes)
    }
}

impl Notifier for Late {
    fn notify(&self, target: NotifyTarget) {
        // An interrupt that nobody takes is lost.
        let _ =
            self.0.signal_msi(MSI_ADDRESS | target.vcpu << MSI_DESTINATION_SHIFT, u32::from(target.vector));
    }
}

/// The policy for the calls of a TD, and the provider to be stepped.
pub(super) fn policy(
    config: QuoteConfig,
    vm: &Vm,
    memory: Arc<GuestMemory>,
) -> (TdxPolicy, Arc<StepProvider>) {
    let provider = Arc::new(StepProvider { config, waiting: Mutex::default() });
    let late = Arc::new(Late(vm.clone()));
    let notifier = config.interrupt.then(|| late.clone() as Arc<dyn Notifier>);
    let limits = QuoteLimits { slots: config.slots, ..QuoteLimits::default() };
    let quotes = Quotes::new(provider.clone(), memory, late, notifier, limits);
    let (capabilities, _) = vm.tdx_capabilities();
    (TdxPolicy { quotes: Some(quotes), calls: CallInfo::from(&capabilities) }, provider)
}
