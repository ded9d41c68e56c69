//! The guests of the shipped scenarios, by name. Where a machine-code guest of `exeunt-linux` has the same name, both
//! do the same, so a scenario runs on either kernel half.

mod attestation;
pub(crate) mod certificates;
pub(crate) mod conversion;
pub(crate) mod faults;
pub(crate) mod plain;
mod quotes;
pub(crate) mod tdx;
pub(crate) mod termination;

use exeunt_abi::{Errno, Gpa};
use exeunt_model::{Vcpu, Vm};

macro_rules! programs {
    ($($name:literal => $program:path;)*) => {
        /// The names of all guests.
        pub const fn names() -> &'static [&'static str] {
            &[$($name),*]
        }

        /// Makes a vCPU of the model that runs a guest; `None` if there is no guest of this name.
        pub fn start(name: &str, vm: &Vm, seed: u64) -> Option<Result<Vcpu, Errno>> {
            match name {
                $($name => Some(vm.create_vcpu(seed, $program)),)*
                _ => None,
            }
        }
    };
}

programs! {
    "port-io" => plain::port_io;
    "hlt" => plain::hlt;
    "shutdown" => plain::shutdown;
    "spin" => plain::spin;
    "map-gpa-range" => plain::map_gpa_range;
    "hyperv-reset" => plain::hyperv_reset;
    "psci-off" => plain::psci_off;
    "psci-reset" => plain::psci_reset;
    "psci-reset2" => plain::psci_reset2;
    "psci-off2" => plain::psci_off2;
    "terminate-by-msr" => termination::by_msr;
    "terminate-by-page" => termination::by_page;
    "snp-request-without-snp" => termination::snp_request_without_snp;
    "convert-by-msr" => conversion::by_msr;
    "convert-by-page" => conversion::by_page;
    "convert-known-by-page" => conversion::known_by_page;
    "convert-or-terminate" => conversion::or_terminate;
    "certificates" => certificates::grow_the_buffer;
    "certificates-once" => certificates::once;
    "tdx-convert" => tdx::convert;
    "tdx-calls" => tdx::calls;
    "tdx-touch-unaccepted" => tdx::touch_unaccepted;
    "tdx-report" => tdx::report;
    "td-quote" => quotes::one;
    "td-quote-halted" => quotes::halted;
    "td-quote-refused" => quotes::refused;
    "td-quote-private" => quotes::private;
    "td-quote-many" => quotes::many;
    "td-quote-taken-back" => quotes::taken_back;
    "attestation" => attestation::run;
    "touch-private" => faults::touch_private;
    "touch-shared" => faults::touch_shared;
}

/// The page of a guest that the firmware fills with keys at the launch, if it has one.
#[must_use]
pub fn secrets_page(name: &str) -> Option<Gpa> {
    (name == "attestation").then_some(attestation::SECRETS)
}

/// Whether there is a guest of this name.
#[must_use]
pub fn exists(name: &str) -> bool {
    names().contains(&name)
}
