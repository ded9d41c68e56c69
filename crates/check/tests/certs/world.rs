//! An SNP guest on a host whose firmware can be updated, that asks for reports with certificates.

use exeunt_abi::Gpa;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::sev::id;
use exeunt_abi::kvm::sev::snp::{LaunchFinish, LaunchStart, LaunchUpdate, page_type, policy};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::guest::message::{Channel, Pages};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::launch::SevHost;
use exeunt_model::psp::Psp;
use exeunt_model::{Kvm, Slot, Vm};
use zerocopy::FromZeros;

/// Private memory starts here; below it is shared.
const PRIVATE: Gpa = Gpa(0x80_0000);
const END: u64 = 0x82_0000;
const SECRETS: Gpa = Gpa(0x80_d000);
const GHCB: Gpa = Gpa(0x2000);
/// Where in the process the contents of pages lie.
const SOURCE: u64 = 0x7f00_0000_0000;

pub(crate) const PAGES: Pages = Pages { request: Gpa(0x30_0000), response: Gpa(0x30_1000) };
/// The first page of the buffer for certificates.
pub(crate) const BUFFER: Gpa = Gpa(0x30_2000);

/// An SNP VM that is ready for its vCPUs.
pub(crate) fn vm_on(psp: Psp, with_certs: bool) -> Vm {
    let vm = Kvm::default().create_vm(VmType::Snp).unwrap();
    let file = vm.create_guest_memfd(END).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), END).unwrap().with_guest_memfd(file, 0)).unwrap();
    vm.set_memory_attributes(PRIVATE, END - PRIVATE.0, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    vm.set_sev_host(SevHost::new(psp)).unwrap();
    vm.sev_init2(2).unwrap();
    if with_certs {
        vm.snp_enable_req_certs().unwrap();
    }
    vm
}

/// Launches the VM with a secrets page and nothing else.
pub(crate) fn launch(vm: &Vm) {
    let mut start = LaunchStart::new_zeroed();
    start.policy = policy::RSVD | policy::SMT;
    vm.sev_command(id::SNP_LAUNCH_START, &mut start).unwrap();
    vm.user_memory().write(SOURCE, &[0; 4096]).unwrap();
    let mut update = LaunchUpdate::new_zeroed();
    (update.gfn_start, update.uaddr, update.len) = (SECRETS.gfn().0, SOURCE, 4096);
    update.page_type = page_type::SECRETS;
    while update.len != 0 {
        vm.sev_command(id::SNP_LAUNCH_UPDATE, &mut update).unwrap();
    }
    vm.sev_command(id::SNP_LAUNCH_FINISH, &mut LaunchFinish::new_zeroed()).unwrap();
}

/// A guest with a GHCB and a channel to the firmware.
pub(crate) async fn attested(cpu: &Cpu) -> Result<(Ghcb, Channel), GuestFault> {
    let ghcb = Ghcb::set_up(cpu, GHCB).await?;
    let channel = Channel::from_secrets(cpu, SECRETS, 0).await?;
    Ok((ghcb, channel))
}
