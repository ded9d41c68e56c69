//! Cases on the kernel half in software.

use super::Ran;
use super::drive::{ScenarioVcpu, drive};
use super::migrate::migrate;
use super::quotes::{self, StepProvider};
use super::td;
use crate::known;
use crate::scenario::Case;
use crate::timeline::Log;
use exeunt::Policy;
use exeunt::certs::{Certificates, CheckedTable};
use exeunt::memory::MemoryOptions;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, CertsForm, Dialect, Errno, Gpa, Kernel};
use exeunt_model::guest::Note;
use exeunt_model::psp::Endorser;
use exeunt_model::{Effects, Firmware, Host, Kvm, Slot, Vcpu, Vm};
use exeunt_proto::certs::{self, Certificate};
use exeunt_proto::host;
use exeunt_scenes::programs;
use std::sync::Arc;

impl ScenarioVcpu for Vcpu {
    fn id(&self) -> u64 {
        Self::id(self)
    }

    fn take_notes(&mut self) -> Vec<Note> {
        Self::take_notes(self)
    }

    fn is_asleep(&self) -> bool {
        host::Vcpu::kernel(self).arch == Arch::X86 && Self::is_blocked(self)
    }

    fn raise_triple_fault(&mut self) -> Result<(), String> {
        Self::raise_triple_fault(self);
        Ok(())
    }
}

/// Runs a case as a kernel of this dialect would.
///
/// # Errors
///
/// The kernel lacks what the case needs.
pub(super) fn run(case: &Case, dialect: Dialect, seed: u64, log: &Log) -> Result<Ran, String> {
    let kernel = Kernel { dialect, arch: case.vm.arch };
    if let Some(migration) = case.migration {
        let (policy, _) = policy(case, &make_vm(case, kernel, log)?)?;
        return migrate(case, migration, &policy, log, |capability| {
            make_source(case, kernel, capability, log)
        });
    }
    let vm = make_vm(case, kernel, log)?;
    enable(&vm, &case.capabilities, kernel)?;
    if case.vm.vm_type == VmType::Snp && dialect.certs_form() != CertsForm::None {
        vm.snp_enable_req_certs().map_err(|errno| failed("KVM_SEV_SNP_ENABLE_REQ_CERTS", errno))?;
    }
    let (policy, quotes) = policy(case, &vm)?;
    let mut vcpus = (0..case.vm.vcpus).map(|_| make_vcpu(case, &vm, seed)).collect::<Result<Vec<_>, _>>()?;
    if case.vm.vm_type == VmType::Tdx {
        td::finalise(&vm, &mut vcpus)?;
    }
    let stepped = || quotes.as_ref().is_some_and(|quotes| quotes.step(log));
    Ok(drive(case, &policy, vcpus, vm.effects(), seed, log, stepped))
}

fn make_source(case: &Case, kernel: Kernel, capability: bool, log: &Log) -> Result<(Vcpu, Effects), String> {
    let vm = make_vm(case, kernel, log)?;
    if capability {
        enable(&vm, &[Cap::X86_TRIPLE_FAULT_EVENT], kernel)?;
    }
    Ok((make_vcpu(case, &vm, 0)?, vm.effects()))
}

fn make_vcpu(case: &Case, vm: &Vm, seed: u64) -> Result<Vcpu, String> {
    programs::start(&case.guest, vm, seed)
        .ok_or_else(|| format!("no guest is named '{}'", case.guest))?
        .map_err(|errno| failed("KVM_CREATE_VCPU", errno))
}

/// A VM with its memory. A guest with a reverse map starts with all of it private, as it is after a launch.
fn make_vm(case: &Case, kernel: Kernel, log: &Log) -> Result<Vm, String> {
    let vm_type = case.vm.vm_type;
    let host = if vm_type == VmType::Tdx { Host::INTEL } else { Host::AMD };
    let vm = Kvm::on(host, kernel).create_vm(vm_type).map_err(|errno| {
        format!("KVM_CREATE_VM failed with {errno}: {} has no VM of type {}", kernel.dialect, vm_type.name())
    })?;
    let bytes = case.vm.memory_bytes;
    let slot = Slot::shared(0, Gpa(0), bytes).ok_or("the memory is not made of whole pages")?;
    let slot = if vm_type.has_private_memory() {
        let file = vm.create_guest_memfd(bytes).map_err(|errno| failed("KVM_CREATE_GUEST_MEMFD", errno))?;
        slot.with_guest_memfd(file, 0)
    } else {
        slot
    };
    vm.add_slot(slot).map_err(|errno| failed("KVM_SET_USER_MEMORY_REGION2", errno))?;
    if vm_type == VmType::Tdx {
        td::initialise(&vm)?;
    }
    if matches!(vm_type, VmType::Snp | VmType::Tdx) {
        vm.set_memory_attributes(Gpa(0), bytes, MEMORY_ATTRIBUTE_PRIVATE)
            .map_err(|errno| failed("KVM_SET_MEMORY_ATTRIBUTES", errno))?;
    }
    if vm_type.has_ghcb() {
        vm.sev_init2(0).map_err(|errno| failed("KVM_SEV_INIT2", errno))?;
        match programs::secrets_page(&case.guest) {
            Some(secrets) => vm.launch_with_secrets(secrets),
            None => vm.launch(),
        }
        .map_err(|errno| failed("the launch", errno))?;
    }
    // A guest without keys cannot ask: for it the firmware is a status.
    if programs::secrets_page(&case.guest).is_none() || case.firmware_status != 0 {
        vm.set_firmware(Firmware::Completes { status: case.firmware_status });
    }
    log.vmm(format!("makes a VM of type {} with {bytes:#x} bytes on {}", vm_type.name(), kernel.dialect));
    Ok(vm)
}

fn enable(vm: &Vm, caps: &[Cap], kernel: Kernel) -> Result<(), String> {
    for cap in caps {
        let argument = if *cap == Cap::EXIT_HYPERCALL { 1 << MAP_GPA_RANGE } else { 1 };
        vm.enable_cap(*cap, argument)
            .map_err(|errno| format!("{} cannot enable {cap}: {errno}", kernel.dialect))?;
    }
    Ok(())
}

/// The policy of a case, and who makes its quotes.
fn policy(case: &Case, vm: &Vm) -> Result<(Policy, Option<Arc<StepProvider>>), String> {
    let memory = Arc::new(known::guest_memory(vm, MemoryOptions::default())?);
    let mut policy = Policy::new(Arc::clone(&memory));
    policy.memory_faults = case.memory_faults;
    policy.reset = case.reset;
    policy.certificates =
        if case.host_certificates { host_certificates(vm)? } else { case.certificates.clone() };
    let quotes = case.quotes.map(|config| {
        let provider;
        (policy.tdx, provider) = quotes::policy(config, vm, memory);
        provider
    });
    Ok((policy, quotes))
}

/// The table of the host's processor: VCEK, ASK, ARK.
fn host_certificates(vm: &Vm) -> Result<Certificates, String> {
    let made = vm.sev_host().psp().certificates(Endorser::Vcek);
    let [ark, ask, vcek] = made.map_err(|error| format!("the processor has no certificates: {error:?}"))?;
    let table = CheckedTable::build(&[
        Certificate { guid: certs::VCEK, bytes: &vcek },
        Certificate { guid: certs::ASK, bytes: &ask },
        Certificate { guid: certs::ARK, bytes: &ark },
    ]);
    Ok(Certificates::Table(table.map_err(|error| error.to_string())?))
}

pub(super) fn failed(what: &str, errno: Errno) -> String {
    format!("{what} failed with {errno}")
}

/// What `KVM_RUN` returned, and the union.
#[cfg(test)]
type Written = (exeunt_proto::exit::Entered, [u8; exeunt_abi::kvm::run::UNION_BYTES]);

/// Runs a guest on a page full of `fill` and answers its exits until one has this number.
#[cfg(test)]
pub(crate) fn answer_until(
    guest: &str,
    vm_type: VmType,
    kernel: Kernel,
    fill: [u8; exeunt_abi::kvm::run::UNION_BYTES],
    reason: u32,
) -> Result<Written, String> {
    use exeunt_proto::host::Vcpu as _;
    let text = format!(
        "title = ''\n[vm]\ntype = '{}'\nmemory = 0x1000000\n[[case]]\ntitle = ''\nguest = '{guest}'",
        vm_type.name()
    );
    let scenario = crate::scenario::parse("test", &text).map_err(|error| error.to_string())?;
    let case = scenario.cases.first().ok_or("no case")?;
    let vm = make_vm(case, kernel, &Log::default())?;
    if kernel.dialect.has_exit_hypercall() && kernel.arch == Arch::X86 {
        enable(&vm, &[Cap::EXIT_HYPERCALL], kernel)?;
    }
    let mut vcpu = make_vcpu(case, &vm, 0)?;
    for _ in 0..100 {
        vcpu.page_mut().exit = fill;
        let entered = vcpu.enter();
        if vcpu.page().exit_reason == reason {
            return Ok((entered, vcpu.page().exit));
        }
        let (policy, _) = policy(case, &vm)?;
        let exit = exeunt_proto::exit::decode(entered, vcpu.page(), kernel).map_err(|e| e.to_string())?;
        let plan = policy.plan(&exit).map_err(|stop| stop.to_string())?;
        let answer = plan.carry_out(&mut vm.effects(), vcpu.port_data());
        let _ = answer.encode(kernel, vcpu.page_mut());
    }
    Err(format!("no exit {reason}"))
}
