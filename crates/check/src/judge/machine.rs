//! A VM that is ready to be judged: what a VMM half finds when its set-up of memory and its launch are done.

use super::port::{JudgedHost, JudgedVcpu};

use super::tape::Tape;
use super::transcript::{Crossing, FileCall};
use super::twist::FileHabit;
use crate::runner::{finalise_td, initialise_td};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa, Kernel};
use exeunt_model::{Firmware, Host, Kvm, Protection, Slot, SparseMemory, Vcpu, Vm};
use exeunt_proto::certs;
use exeunt_scenes::{Part, Situation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A VM, and the process around it.
pub(super) struct Machine {
    pub(super) vm: Vm,
    /// The process's memory; a slot's shared half is [`SHARED_BASE`] above its guest address.
    pub(super) user: Arc<SparseMemory>,
    situation: Situation,
    kernel: Kernel,
    tape: Tape,
    index: u8,
    stale: u8,
    seed: u64,
}

/// Where the shared half of address 0 lies in the process.
pub(super) const SHARED_BASE: u64 = 0x1000_0000;

impl Machine {
    /// Makes the VM and launches what needs to be launched.
    ///
    /// # Errors
    ///
    /// The kernel lacks what the scenario needs; a test makes each.
    pub(super) fn new(
        situation: &Situation,
        index: u8,
        tape: &Tape,
        stale: u8,
        seed: u64,
    ) -> Result<Self, String> {
        let failed = |what: &'static str| move |errno: Errno| format!("{what} failed with {errno}");
        let vm_type = situation.vm_type;
        let kernel = if index == 0 { situation.kernel } else { situation.target.unwrap_or(situation.kernel) };
        let host = if vm_type == VmType::Tdx { Host::INTEL } else { Host::AMD };
        let user = Arc::new(SparseMemory::new());
        let kvm = Kvm::on(host, kernel);
        let vm =
            kvm.create_vm_in(vm_type, Arc::<SparseMemory>::clone(&user)).map_err(failed("KVM_CREATE_VM"))?;
        for (number, part) in (0..).zip(situation.memory.iter()) {
            add(&vm, number, *part).map_err(failed("KVM_SET_USER_MEMORY_REGION2"))?;
        }
        if vm_type == VmType::Tdx {
            initialise_td(&vm)?;
        } else if situation.apic_in_kernel {
            vm.create_irqchip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
        }
        if matches!(vm_type, VmType::Snp | VmType::Tdx) {
            for part in situation.memory.iter().filter(|part| part.has_private) {
                vm.set_memory_attributes(Gpa(part.gpa), part.bytes, MEMORY_ATTRIBUTE_PRIVATE)
                    .map_err(failed("KVM_SET_MEMORY_ATTRIBUTES"))?;
            }
        }
        if vm_type.has_ghcb() {
            vm.sev_init2(0).and_then(|()| vm.launch()).map_err(failed("the launch"))?;
            vm.set_firmware(Firmware::Completes { status: 0 });
        }
        let situation = situation.clone();
        Ok(Self { vm, user, situation, kernel, tape: tape.clone(), index, stale, seed })
    }

    /// The type that it was made with.
    pub(super) fn vm_type(&self) -> VmType {
        self.situation.vm_type
    }

    /// `KVM_CHECK_EXTENSION`.
    pub(super) fn check_extension(&self, cap: Cap) -> u64 {
        let belief = self.tape.lock().twist.believes.as_mut().and_then(|hook| hook(cap));
        if let Some(value) = belief {
            return value;
        }
        let mut value = self.vm.check_extension(cap);
        if cap == Cap::EXIT_HYPERCALL {
            value |= self.situation.later_hypercalls;
        }
        self.tape.add(self.index, Crossing::CheckExtension { cap, value });
        value
    }

    /// `KVM_ENABLE_CAP`. A newer kernel takes what it offers.
    pub(super) fn enable_cap(&self, cap: Cap, offered: u64, argument: u64) -> Result<(), Errno> {
        let argument = match &mut self.tape.lock().twist.enable {
            Some(hook) => hook(cap, offered, argument),
            None => Some(argument),
        };
        let Some(argument) = argument else { return Ok(()) };
        let known =
            if cap == Cap::EXIT_HYPERCALL { argument & !self.situation.later_hypercalls } else { argument };
        let result = self.vm.enable_cap(cap, known);
        self.tape.add(self.index, Crossing::EnableCap { cap, argument, result });
        result
    }

    /// `KVM_GET_DEVICE_ATTR` on `/dev/kvm`, in the group of SEV.
    pub(super) fn sev_attribute(&self, attribute: u64) -> Result<u64, Errno> {
        let result = self.vm.sev_host().device_attr(self.kernel, attribute);
        self.tape.add(self.index, Crossing::SevAttribute { attribute, result });
        result
    }

    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
    pub(super) fn enable_req_certs(&self) -> Result<(), Errno> {
        let result = self.vm.snp_enable_req_certs();
        self.tape.add(self.index, Crossing::EnableReqCerts { result });
        result
    }

    /// All vCPUs, and for a TD the end of its launch.
    ///
    /// # Errors
    ///
    /// What `KVM_CREATE_VCPU` or the launch of a TD failed with.
    pub(super) fn create_vcpus(&self) -> Result<Vec<JudgedVcpu>, String> {
        let mut vcpus: Vec<Vcpu> = Vec::new();
        for _ in 0..self.situation.vcpus {
            let vcpu = self.vm.create_vcpu(self.seed, self.situation.guest);
            let result = vcpu.as_ref().map(|_| ()).map_err(|errno| *errno);
            self.tape.add(self.index, Crossing::CreateVcpu { result });
            vcpus.push(vcpu.map_err(|errno| format!("KVM_CREATE_VCPU failed with {errno}"))?);
        }
        if self.situation.vm_type == VmType::Tdx {
            finalise_td(&self.vm, &mut vcpus)?;
        }
        if let (0, Some(prepare)) = (self.index, self.situation.prepare) {
            prepare(&self.vm);
        }
        if let (0, Some(gpa)) = (self.index, self.situation.unmapped) {
            self.user.protect(SHARED_BASE.saturating_add(gpa.0), Protection::None);
        }
        let judged = |vcpu| JudgedVcpu::new(vcpu, self.tape.clone(), self.index, &self.situation, self.stale);
        Ok(vcpus.into_iter().map(judged).collect())
    }

    /// What a VMM does to memory.
    pub(super) fn host(&self) -> JudgedHost {
        JudgedHost::new(self.vm.effects(), self.tape.clone(), self.index)
    }

    /// The file that holds the certificates.
    pub(super) fn cert_file(&self) -> CertFile {
        let busy_locks = AtomicU32::new(self.situation.busy_locks);
        CertFile { tape: self.tape.clone(), machine: self.index, busy_locks, editions: AtomicU32::new(0) }
    }

    /// What befalls the first vCPU before the VMM looks at it.
    pub(super) fn prepare_vcpu(&self, vcpu: &mut JudgedVcpu) {
        if let Some(prepare) = self.situation.prepare_vcpu {
            prepare(vcpu.model());
        }
    }
}

fn add(vm: &Vm, number: u32, part: Part) -> Result<(), Errno> {
    let slot = Slot::shared(number, Gpa(part.gpa), part.bytes).ok_or(Errno::EINVAL)?;
    if !part.has_private || !vm.offers_private_memory() {
        return vm.add_slot(slot);
    }
    let file = vm.create_guest_memfd(part.bytes)?;
    vm.add_slot(slot.with_guest_memfd(file, 0))
}

trait OffersPrivateMemory {
    fn offers_private_memory(&self) -> bool;
}

impl OffersPrivateMemory for Vm {
    fn offers_private_memory(&self) -> bool {
        self.check_extension(Cap::MEMORY_ATTRIBUTES) != 0
    }
}

/// The file that holds the certificates, which somebody else changes now and then under the same lock.
pub(super) struct CertFile {
    tape: Tape,
    machine: u8,
    busy_locks: AtomicU32,
    editions: AtomicU32,
}

impl CertFile {
    /// `flock` without waiting. `false` if somebody else has it.
    pub(super) fn try_lock(&self) -> bool {
        let busy =
            self.busy_locks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        self.add(if busy.is_ok() { FileCall::Refused } else { FileCall::Locked });
        busy.is_err()
    }

    /// Reads it. Whenever nobody has the lock, an update may have come; the judge lets one come after each reading.
    pub(super) fn read(&self) -> u32 {
        let edition = self.editions.fetch_add(1, Ordering::Relaxed);
        self.add(FileCall::Read(edition));
        edition
    }

    /// Gives the lock back.
    pub(super) fn unlock(&self) {
        self.add(FileCall::Unlocked);
    }

    pub(super) fn habit(&self) -> FileHabit {
        self.tape.lock().twist.file
    }

    /// One more try is one more entry that the judge counts.
    pub(super) fn may_wait(&self) -> bool {
        self.tape.lock().may_run()
    }

    fn add(&self, call: FileCall) {
        self.tape.add(self.machine, Crossing::CertFile(call));
    }
}

impl std::fmt::Debug for CertFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertFile").finish_non_exhaustive()
    }
}

/// Bytes of each certificate: three of them and the directory need three pages.
const CERTIFICATE_BYTES: u32 = 3_500;

/// The file's content, by edition: a directory of three certificates, which say what they are.
pub(super) fn table(edition: u32) -> Vec<u8> {
    let guids = [certs::VCEK, certs::ASK, certs::ARK];
    let mut directory = Vec::new();
    let mut content = Vec::new();
    for (guid, offset) in guids.into_iter().zip((DIRECTORY_BYTES..).step_by(CERTIFICATE_BYTES as usize)) {
        directory.extend_from_slice(&guid.0);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(&CERTIFICATE_BYTES.to_le_bytes());
        let mut text = format!("SIMULATED {guid}, edition {edition}. ").into_bytes();
        text.resize(CERTIFICATE_BYTES as usize, b'.');
        content.append(&mut text);
    }
    directory.resize(DIRECTORY_BYTES as usize, 0);
    directory.append(&mut content);
    directory
}

/// Three entries, and the one of zeroes that ends them.
const DIRECTORY_BYTES: u32 = 4 * 24;
