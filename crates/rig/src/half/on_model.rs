//! The model as a half.

use super::{Answer, Half, Machine, perform_all};
use crate::code::tables;
use crate::script::{ARENA_BYTES, Act, CODE, Features, HOLE, LOG, LOW_BYTES, Region, Script, Step, TABLES};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::{
    CreateGuestMemfd, MemoryAttributes, UserspaceMemoryRegion, UserspaceMemoryRegion2,
};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Gpa, Kernel};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{GuestMemfd, Kvm, Protection, SparseMemory, UserMemory, Vcpu, Vm, falloc};
use std::sync::Arc;

/// Where the arena lies in the address space of the model's VMM.
const ARENA: u64 = 0x7f00_0000_0000;

/// The model, imitating the dialect of the features.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnModel;

impl Half for OnModel {
    fn play(&self, script: &Script, features: Features) -> Vec<Answer> {
        let mut playing = match start(script, features) {
            Ok(playing) => playing,
            Err(errno) => return vec![Answer::of(Err(errno))],
        };
        perform_all(&mut playing, script)
    }
}

fn start(script: &Script, features: Features) -> Result<Playing, Errno> {
    let user = Arc::new(SparseMemory::new());
    for page in (HOLE..ARENA_BYTES as u64).step_by(0x1000) {
        user.protect(ARENA.wrapping_add(page), Protection::None);
    }
    let vm_type = VmType::from_number(script.vm_type).ok_or(Errno::EINVAL)?;
    let kernel = Kernel { dialect: features.dialect, arch: Arch::X86 };
    let vm = Kvm::new(kernel).create_vm_in(vm_type, Arc::<SparseMemory>::clone(&user))?;
    let playing = Playing {
        vcpu: vm.create_vcpu(0, |cpu| guest(cpu, script.acts.clone()))?,
        vm,
        user,
        files: Vec::new(),
        has_private_memory: features.dialect.has_private_memory(),
    };
    playing.set_region(Region { size: LOW_BYTES, ..Region::default() })?;
    playing.vm.write_shared(TABLES, &tables())?;
    playing.vm.write_shared(CODE, &crate::code::assemble(&script.acts))?;
    Ok(playing)
}

/// What the machine code of the script does.
async fn guest(cpu: Cpu, acts: Vec<Act>) -> Result<(), GuestFault> {
    let mut logged = 0u64;
    for act in acts {
        let rax = match act {
            Act::Out { port, size, value } => {
                cpu.port_out(port, size, value).await?;
                None
            }
            Act::In { port, size } => Some(cpu.port_in(port, size).await?),
            Act::Hlt => {
                cpu.hlt().await;
                None
            }
            Act::Hypercall { nr, args, .. } => Some(cpu.vmmcall(nr, args).await?),
            Act::Write { gpa, size, value } => {
                let bytes = value.to_le_bytes();
                cpu.write(Gpa(gpa), bytes.get(..usize::from(size)).unwrap_or_default(), Access::Shared)
                    .await?;
                None
            }
            Act::Read { gpa, size } => {
                let bytes = cpu.read(Gpa(gpa), usize::from(size), Access::Shared).await?;
                let mut word = [0; 8];
                word.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                Some(u64::from_le_bytes(word))
            }
            Act::HypervReset => {
                cpu.hyperv_reset().await?;
                None
            }
            Act::TripleFault => {
                cpu.triple_fault().await;
                None
            }
        };
        if let Some(rax) = rax {
            let at = Gpa(LOG.0.wrapping_add(logged.wrapping_mul(8)));
            logged = logged.wrapping_add(1);
            cpu.write(at, &rax.to_le_bytes(), Access::Shared).await?;
        }
    }
    loop {
        cpu.hlt().await;
    }
}

struct Playing {
    vm: Vm,
    vcpu: Vcpu,
    user: Arc<SparseMemory>,
    files: Vec<Option<GuestMemfd>>,
    has_private_memory: bool,
}

impl Playing {
    fn set_region(&self, region: Region) -> Result<(), Errno> {
        let Region { second, slot, flags, gpa, size, offset, file, file_offset } = region;
        let userspace_addr = ARENA.wrapping_add(offset);
        if !second {
            return self.vm.set_user_memory_region(&UserspaceMemoryRegion {
                slot,
                flags,
                guest_phys_addr: gpa,
                memory_size: size,
                userspace_addr,
            });
        }
        let region = UserspaceMemoryRegion2 {
            slot,
            flags,
            guest_phys_addr: gpa,
            memory_size: size,
            userspace_addr,
            guest_memfd_offset: file_offset,
            guest_memfd: file,
            pad1: 0,
            pad2: [0; 14],
        };
        self.vm.set_user_memory_region2(&region, |file| self.file(file))
    }

    fn file(&self, number: u32) -> Result<GuestMemfd, Errno> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.files.get(index).copied().flatten().ok_or(Errno::EBADF)
    }

    fn fallocate(&self, file: u32, allocate: bool, offset: u64, bytes: u64) -> Result<(), Errno> {
        let file = self.file(file)?;
        let mode = if allocate { 0 } else { falloc::PUNCH_HOLE } | falloc::KEEP_SIZE;
        let [offset, bytes] = [offset, bytes].map(|number| i64::from_ne_bytes(number.to_ne_bytes()));
        self.vm.fallocate(file, mode, offset, bytes)
    }

    fn close(&mut self, file: u32) -> Result<(), Errno> {
        self.vm.close_guest_memfd(self.file(file)?);
        if let Some(file) = usize::try_from(file).ok().and_then(|index| self.files.get_mut(index)) {
            *file = None;
        }
        Ok(())
    }
}

impl Machine for Playing {
    type Vcpu = Vcpu;

    fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }

    fn log(&mut self, bytes: &mut [u8]) {
        let _ = self.vm.read_shared(LOG, bytes);
    }

    fn other(&mut self, step: &Step) -> Answer {
        match *step {
            Step::CheckExtension { cap } => Answer::of(Ok(self.vm.check_extension(Cap(cap)))),
            Step::EnableCap { cap, flags, argument } => {
                if flags != 0 {
                    return Answer::of(Err(Errno::EINVAL));
                }
                Answer::done(self.vm.enable_cap(Cap(cap), argument))
            }
            Step::SetRegion(region) => Answer::done(self.set_region(region)),
            // Older kernels do not know the ioctl, whatever its argument.
            Step::CreateFile { .. } if !self.has_private_memory => {
                self.files.push(None);
                Answer::of(Err(Errno::ENOTTY))
            }
            Step::CreateFile { size, flags } => {
                let arguments = CreateGuestMemfd { size, flags, reserved: [0; 6] };
                let file = self.vm.create_guest_memfd_with(&arguments);
                let number = self.files.len() as u64;
                self.files.push(file.ok());
                Answer::of(file.map(|_| number))
            }
            Step::CloseFile { file } => Answer::done(self.close(file)),
            Step::Fallocate { file, allocate, offset, bytes } => {
                Answer::done(self.fallocate(file, allocate, offset, bytes))
            }
            Step::SetAttributes { address, size, attributes, flags } => {
                Answer::done(self.vm.set_attributes(&MemoryAttributes { address, size, attributes, flags }))
            }
            Step::Poke { offset, value } => {
                let uaddr = ARENA.wrapping_add(offset.into());
                Answer::done(self.user.write(uaddr, &value.to_le_bytes()))
            }
            Step::Peek { offset } => {
                let mut bytes = vec![0; 8];
                let result = self.user.read(ARENA.wrapping_add(offset.into()), &mut bytes);
                Answer { result: result.map(|()| 0), seen: vec![("memory", bytes)] }
            }
            Step::RaiseTripleFault => {
                self.vcpu.raise_triple_fault();
                Answer::done(Ok(()))
            }
            Step::GetMpState => Answer::of(Ok(self.vcpu.mp_state().number().into())),
            Step::SetMpState(state) => Answer::done(self.vcpu.set_mp_state(state)),
            _ => Answer::of(Err(Errno::ENOTTY)),
        }
    }
}
