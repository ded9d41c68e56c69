//! `/dev/kvm` as a half.

use super::watchdog::Watchdog;
use super::{Answer, Half, Machine, perform_all};
use crate::code::{assemble, tables};
use crate::script::{
    ARENA_BYTES, Act, CODE, Features, HOLE_BYTES, LOG, LOW_BYTES, Region, Script, Step, TABLES,
};
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::memory::{CreateGuestMemfd, MemoryAttributes, UserspaceMemoryRegion2};
use exeunt_abi::{Errno, Gpa};
use exeunt_linux::{Kvm, KvmError, Unchecked, Vcpu};

/// A processor of AMD's with MSRs, PAE, `SYSCALL`, long mode and 40 address bits: what the guests need. From 6.12 on KVM
/// refuses an `EFER` in `KVM_SET_SREGS` that the guest's CPUID does not have.
///
/// Source: AMD64 APM, volume 3, appendix E.
const CPUID: [[u32; 5]; 5] = [
    [0, 1, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
    [1, 0, 0, 0, 1 << 3 | 1 << 5 | 1 << 6],
    [0x8000_0000, 0x8000_0008, 0, 0, 0],
    [0x8000_0001, 0, 0, 0, 1 << 11 | 1 << 29],
    [0x8000_0008, 40, 0, 0, 0],
];
/// `HYPERV_CPUID_INTERFACE` and the leaf before it, with "Microsoft Hv" and "Hv#1" in them.
///
/// Source: Hypervisor Top-Level Functional Specification v6.0b, section 2.4.
const HYPERV: [[u32; 5]; 2] =
    [[0x4000_0000, 0x4000_0005, 0x7263_694d, 0x666f_736f, 0x7648_2074], [0x4000_0001, 0x3123_7648, 0, 0, 0]];

/// The kernel that this runs on.
#[derive(Debug)]
pub struct OnKvm {
    kvm: Kvm,
    watchdog: Watchdog,
}

impl OnKvm {
    /// A half over an open device.
    #[must_use]
    pub fn new(kvm: Kvm) -> Self {
        Self { kvm, watchdog: Watchdog::new() }
    }

    /// A VM of a type with one vCPU that is about to do the acts of a guest.
    ///
    /// # Errors
    ///
    /// The error of the call that failed.
    pub fn machine(
        kvm: &Kvm,
        vm_type: u64,
        acts: &[Act],
        features: Features,
    ) -> Result<(Vcpu, Unchecked), Errno> {
        let vm = Unchecked::create(kvm, vm_type, features.dialect, ARENA_BYTES, HOLE_BYTES)?;
        vm.set_region(&wire(Region { size: LOW_BYTES, ..Region::default() }), false)?;
        vm.write(offset(CODE), &assemble(acts))?;
        vm.write(offset(TABLES), &tables())?;
        let mut vcpu = vm.create_vcpu(0).map_err(|error| errno(&error))?;
        let hyperv: &[[u32; 5]] = if features.hyperv { &HYPERV } else { &[] };
        vcpu.set_cpuid(&[&CPUID, hyperv].concat()).map_err(|error| errno(&error))?;
        vcpu.start_long(CODE, TABLES).map_err(|error| errno(&error))?;
        Ok((vcpu, vm))
    }
}

impl Half for OnKvm {
    fn play(&self, script: &Script, features: Features) -> Vec<Answer> {
        let mut playing = match Self::machine(&self.kvm, script.vm_type, &script.acts, features) {
            Ok((vcpu, vm)) => Playing { vcpu, vm },
            Err(errno) => return vec![Answer::of(Err(errno))],
        };
        let _guard = self.watchdog.watch(playing.vcpu.kicker());
        perform_all(&mut playing, script)
    }
}

/// Where in the arena the slot of the guest's own memory has an address.
fn offset(gpa: Gpa) -> usize {
    index(gpa.0)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn wire(region: Region) -> UserspaceMemoryRegion2 {
    UserspaceMemoryRegion2 {
        slot: region.slot,
        flags: region.flags,
        guest_phys_addr: region.gpa,
        memory_size: region.size,
        userspace_addr: region.offset,
        guest_memfd_offset: region.file_offset,
        guest_memfd: region.file,
        pad1: 0,
        pad2: [0; 14],
    }
}

fn errno(error: &KvmError) -> Errno {
    match error {
        KvmError::Ioctl { errno, .. } | KvmError::Map { errno, .. } => *errno,
        _ => Errno::EIO,
    }
}

struct Playing {
    // The vCPU goes first.
    vcpu: Vcpu,
    vm: Unchecked,
}

impl Machine for Playing {
    type Vcpu = Vcpu;

    fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }

    fn log(&mut self, bytes: &mut [u8]) {
        // The log lies in the arena, before the hole.
        let _ = self.vm.read(offset(LOG), bytes);
    }

    fn other(&mut self, step: &Step) -> Answer {
        match *step {
            Step::CheckExtension { cap } => Answer::of(self.vm.check_extension(cap)),
            Step::EnableCap { cap, flags, argument } => {
                let args = [argument, 0, 0, 0];
                Answer::of(self.vm.enable_cap(EnableCap { cap, flags, args, pad: [0; 64] }))
            }
            Step::SetRegion(region) => Answer::done(self.vm.set_region(&wire(region), region.second)),
            Step::CreateFile { size, flags } => {
                Answer::of(self.vm.create_guest_memfd(CreateGuestMemfd { size, flags, reserved: [0; 6] }))
            }
            Step::CloseFile { file } => Answer::done(self.vm.close_guest_memfd(index(file.into()))),
            Step::Fallocate { file, allocate, offset, bytes } => {
                Answer::done(self.vm.fallocate(index(file.into()), allocate, offset, bytes))
            }
            Step::SetAttributes { address, size, attributes, flags } => {
                let argument = MemoryAttributes { address, size, attributes, flags };
                Answer::of(self.vm.set_memory_attributes(argument))
            }
            Step::Poke { offset, value } => {
                Answer::done(self.vm.write(index(offset.into()), &value.to_le_bytes()))
            }
            Step::Peek { offset } => {
                let mut bytes = vec![0; 8];
                let result = self.vm.read(index(offset.into()), &mut bytes);
                Answer { result: result.map(|()| 0), seen: vec![("memory", bytes)] }
            }
            Step::RaiseTripleFault => {
                let raised = self.vcpu.raise_triple_fault();
                Answer::done(raised.map_err(|error| errno(&error)))
            }
            Step::GetMpState => Answer::of(self.vcpu.mp_state().map(u64::from)),
            Step::SetMpState(state) => Answer::done(self.vcpu.set_mp_state(state)),
            _ => Answer::of(Err(Errno::ENOTTY)),
        }
    }
}
