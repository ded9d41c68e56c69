//! SNP guests that are launched page by page, and what an independent implementation says of them.

use crate::world::{Seen, kernel, run_to_halt};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::sev::id;
use exeunt_abi::kvm::sev::snp::{LaunchFinish, LaunchStart, LaunchUpdate, policy};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::psp::page::CpuidPage;
use exeunt_abi::{Dialect, Gpa};
use exeunt_model::guest::message::{Channel, Pages};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::launch::SevHost;
use exeunt_model::psp::{CommandError, Psp, PspConfig};
use exeunt_model::{Kvm, Slot, Vcpu, Vm};
use zerocopy::{FromZeros, IntoBytes};

/// Private memory starts here, up to [`PRIVATE_END`]; below it is shared.
pub(crate) const PRIVATE: Gpa = Gpa(0x80_0000);
pub(crate) const PRIVATE_END: u64 = 0x82_0000;
pub(crate) const SECRETS: Gpa = Gpa(0x80_d000);
pub(crate) const CPUID: Gpa = Gpa(0x80_e000);
pub(crate) const PAGES: Pages = Pages { request: Gpa(0x30_0000), response: Gpa(0x30_1000) };
pub(crate) const POLICY: u64 = policy::RSVD | policy::SMT;
/// Where in the process the contents of pages lie.
pub(crate) const SOURCE: u64 = 0x7f00_0000_0000;

/// An SNP VM with shared and private memory, initialised, on a host of this seed.
pub(crate) fn vm_on(psp: Psp) -> Vm {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Snp).unwrap();
    let file = vm.create_guest_memfd(PRIVATE_END).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), PRIVATE_END).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.set_memory_attributes(PRIVATE, PRIVATE_END - PRIVATE.0, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm.set_sev_host(SevHost::new(psp)).unwrap();
    vm.sev_init2(2).unwrap();
    vm
}

pub(crate) fn psp(seed: u64) -> Psp {
    Psp::new(PspConfig { seed, ..PspConfig::default() })
}

pub(crate) fn start(vm: &Vm, policy: u64) -> Result<(), CommandError> {
    let mut params = LaunchStart::new_zeroed();
    params.policy = policy;
    vm.sev_command(id::SNP_LAUNCH_START, &mut params)
}

pub(crate) fn update_params(page_type: u8, gpa: Gpa, len: u64) -> LaunchUpdate {
    let mut params = LaunchUpdate::new_zeroed();
    params.gfn_start = gpa.gfn().0;
    params.uaddr = SOURCE;
    params.len = len;
    params.page_type = page_type;
    params
}

/// Adds pages with this content, until KVM has taken all of them.
pub(crate) fn update(vm: &Vm, page_type: u8, gpa: Gpa, content: &[u8]) -> Result<(), CommandError> {
    vm.user_memory().write(SOURCE, content).unwrap();
    let mut params = update_params(page_type, gpa, content.len() as u64);
    while params.len != 0 {
        vm.sev_command(id::SNP_LAUNCH_UPDATE, &mut params)?;
    }
    Ok(())
}

pub(crate) fn finish(vm: &Vm) -> Result<(), CommandError> {
    vm.sev_command(id::SNP_LAUNCH_FINISH, &mut LaunchFinish::new_zeroed())
}

/// An empty table of CPUID results.
pub(crate) fn cpuid_page() -> Vec<u8> {
    CpuidPage::new_zeroed().as_bytes().to_vec()
}

/// A guest with a GHCB and a channel to the firmware.
pub(crate) async fn attested(cpu: &Cpu) -> Result<(Ghcb, Channel), GuestFault> {
    let ghcb = crate::world::registered(cpu).await?;
    let channel = Channel::from_secrets(cpu, SECRETS, 0).await?;
    Ok((ghcb, channel))
}

/// Runs a program in an SNP guest that has a secrets page and nothing else, and returns what it pushed.
pub(crate) fn run_attested<T, F>(vm: &Vm, program: impl FnOnce(Cpu, Seen<T>) -> F) -> (Vcpu, Vec<T>)
where
    F: Future<Output = Result<(), GuestFault>> + Send + 'static,
{
    let seen = Seen::new();
    let log = Seen(std::sync::Arc::clone(&seen.0));
    let mut vcpu = vm.create_vcpu(0, |cpu| program(cpu, log)).unwrap();
    start(vm, POLICY).unwrap();
    update(vm, exeunt_abi::kvm::sev::snp::page_type::SECRETS, SECRETS, &[0; 4096]).unwrap();
    finish(vm).unwrap();
    run_to_halt(&mut vcpu);
    (vcpu, seen.take())
}
