//! A VM with its memory, its guest and its vCPUs.

use crate::arguments::{Arguments, Piece};
use crate::host::Console;
use crate::launch::Launch;
use exeunt::Policy;
use exeunt::certs::Certificates;
use exeunt::memory::{GuestMemory, MemorySlot, PageInfo};
use exeunt::policy::{EventPolicy, FaultPolicy};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::device_attr::sev_attr;
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_certs::file::FileProvider;
use exeunt_linux::{FlatGuest, Kvm, KvmError, Mode, Vcpu, Vm, guests};
use exeunt_proto::conversion::{PageRange, PageState};
use std::sync::Arc;

/// What runs.
pub(crate) struct Machine {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) host: Console,
    pub(crate) policy: Policy,
    /// The kernel asks the firmware through it for as long as the guest runs.
    pub(crate) launch: Option<Launch>,
}

impl Machine {
    /// Makes everything, up to the first entry.
    ///
    /// # Errors
    ///
    /// The host lacks something, in words.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, String> {
        let text = |error: KvmError| error.to_string();
        let guest = guest(arguments)?;
        let kvm = Kvm::open().map_err(text)?;
        let vm_type = arguments.vm_type;
        let is_offered = kvm.check_extension(Cap::VM_TYPES) & 1 << vm_type.number() != 0;
        // Before the types were there, an SEV-ES guest was made of a VM of the default type.
        let is_old = vm_type == VmType::SevEs && !is_offered;
        let mut vm = kvm.create_vm(if is_old { VmType::Default } else { vm_type }).map_err(text)?;
        enable_capabilities(&mut vm).map_err(text)?;
        if arguments.irqchip {
            vm.create_irqchip().map_err(text)?;
        }
        let launch = Launch::begin(&vm, vm_type, is_old).map_err(text)?;
        if let Some(launch) = launch.as_ref().filter(|_| gives_certificates(arguments, &kvm)) {
            launch.enable_req_certs().map_err(text)?;
        }
        let memory = add_memory(&mut vm, arguments).map_err(text)?;
        vm.write_guest(guest.load, guest.image)
            .map_err(|errno| format!("the guest does not fit into the memory: {errno}"))?;
        let mut vcpus = Vec::new();
        for id in 0..arguments.vcpus {
            let mut vcpu = vm.create_vcpu(id.into()).map_err(text)?;
            vcpu.start(&guest).map_err(text)?;
            vcpus.push(vcpu);
        }
        let mut effects = vm.effects();
        if let Some(launch) = &launch {
            let pages = (guest.image.len() as u64).div_ceil(PAGE_SIZE);
            let image = PageRange::new(guest.load.gfn(), pages).ok_or("the guest is empty")?;
            launch.load(&arguments.memory, image, &mut effects)?;
            launch.finish().map_err(text)?;
        }
        let policy = policy(arguments, &memory)?;
        Ok(Self { vcpus, host: Console { effects }, policy, launch })
    }
}

/// Each capability is asked for before it is enabled, and only what is wanted of it.
fn enable_capabilities(vm: &mut Vm) -> Result<(), KvmError> {
    for (cap, wanted) in [(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE), (Cap::X86_TRIPLE_FAULT_EVENT, 1)] {
        if vm.check_extension(cap) & wanted == wanted {
            vm.enable_cap(cap, wanted.into())?;
        }
    }
    Ok(())
}

/// Whether certificates are wanted, and the kernel can ask for them.
fn gives_certificates(arguments: &Arguments, kvm: &Kvm) -> bool {
    arguments.certificates.is_some()
        && arguments.vm_type == VmType::Snp
        && kvm.sev_attribute(sev_attr::SEV_SNP_REQ_CERTS) == Ok(1)
}

/// Adds the pieces. They have private halves where the type of the VM has private memory.
fn add_memory(vm: &mut Vm, arguments: &Arguments) -> Result<Vec<Piece>, KvmError> {
    let mut added = Vec::new();
    for piece in &arguments.memory {
        let has_private = piece.has_private && arguments.vm_type.has_private_memory();
        let (gpa, bytes) = (piece.range.gpa(), piece.range.bytes());
        if has_private {
            vm.add_private_memory(gpa, bytes)?;
        } else {
            vm.add_memory(gpa, bytes)?;
        }
        added.push(Piece { has_private, ..*piece });
    }
    Ok(added)
}

fn policy(arguments: &Arguments, memory: &[Piece]) -> Result<Policy, String> {
    let slots = memory.iter().map(|piece| MemorySlot { range: piece.range, has_private: piece.has_private });
    let known = GuestMemory::new(slots).map_err(|error| error.to_string())?;
    if arguments.vm_type == VmType::Snp {
        for piece in memory {
            // The launch has written to both halves of some pages.
            let info =
                PageInfo { has_shared: true, has_private: true, ..PageInfo::fresh(PageState::Private) };
            known.assume(piece.range, info);
        }
    }
    let mut policy = Policy::new(known);
    if arguments.convert_faults {
        policy.memory_faults = FaultPolicy::Convert;
    }
    if arguments.ignore_events {
        [policy.shutdown, policy.reset, policy.crash] = [EventPolicy::Ignore; 3];
    }
    if let Some(path) = &arguments.certificates {
        let provider =
            FileProvider::new(path).with_report(|error| eprintln!("exeunt-subject: certificates: {error}"));
        policy.certificates = Certificates::From(Arc::new(provider));
    }
    Ok(policy)
}

fn guest(arguments: &Arguments) -> Result<FlatGuest, String> {
    if arguments.guest != "ports" {
        return guests::by_name(&arguments.guest).ok_or_else(|| {
            let names: Vec<_> = guests::all().iter().map(|guest| guest.name).collect();
            format!("there is no guest '{}': there are ports, {}", arguments.guest, names.join(", "))
        });
    }
    let [a, b, c, d] = arguments.exits.max(1).to_le_bytes();
    // mov ecx, EXITS; again: out 0x80, al; dec ecx; jnz again; hlt
    let image = vec![0x66, 0xb9, a, b, c, d, 0xe6, 0x80, 0x66, 0x49, 0x75, 0xfa, 0xf4];
    let load = Gpa(0x1000);
    Ok(FlatGuest {
        name: "ports",
        about: "Writes to port 0x80 so many times, halts.",
        mode: Mode::Real,
        load,
        entry: load,
        // It lives as long as the process, which makes one or two of them.
        image: image.leak(),
        source: "",
    })
}
