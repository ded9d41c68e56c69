//! The state of a vCPU as a VMM saves and restores it: the ioctls behind `exeunt_proto::state`, by their bytes.
//!
//! A guest of the model is a program, and where it is inside of itself is not state that any ioctl reads. A fresh vCPU
//! begins its program anew: one that is to go on keeps what it needs in guest memory and its devices.

use crate::vcpu::Vcpu;
use exeunt_abi::kvm::cpuid::CpuidEntry2;
use exeunt_abi::kvm::regs::{DebugRegs, Regs, Sregs, XSAVE_BYTES, Xcrs};
use exeunt_abi::{Arch, Errno};
use exeunt_proto::state::{Area, State};
use zerocopy::{FromBytes, Immutable, IntoBytes};

impl State for Vcpu {
    fn vcpu_id(&self) -> u64 {
        self.id()
    }

    fn mp_state(&mut self) -> Result<u32, Errno> {
        self.check_alive()?;
        Ok(Self::mp_state(self).number())
    }

    fn set_mp_state(&mut self, mp_state: u32) -> Result<(), Errno> {
        self.check_alive()?;
        Self::set_mp_state(self, mp_state)
    }

    fn area(&mut self, area: Area, to: &mut [u8]) -> Result<Option<usize>, Errno> {
        self.check_alive()?;
        if self.kernel.arch != Arch::X86 {
            return Ok(None);
        }
        if area == Area::Cpuid {
            return give(self.cpuid2().as_slice(), to).map(Some);
        }
        self.check_open_state()?;
        match area {
            Area::Sregs => give(&self.readable_sregs(), to),
            Area::Xcrs => give(&self.xcrs(), to),
            Area::Xsave => give(&self.readable_xsave(), to),
            Area::DebugRegs => give(&self.debug_registers(), to),
            Area::Regs => give(&self.general_registers(), to),
            _ => return Ok(None),
        }
        .map(Some)
    }

    fn set_area(&mut self, area: Area, from: &[u8]) -> Result<(), Errno> {
        self.check_alive()?;
        if self.kernel.arch != Arch::X86 {
            return Err(Errno::EOPNOTSUPP);
        }
        if area == Area::Cpuid {
            return self.set_cpuid2(&entries(from)?);
        }
        self.check_open_state()?;
        match area {
            Area::Sregs => self.set_sregs(&take::<Sregs>(from)?),
            Area::Xcrs => self.set_xcrs(&take::<Xcrs>(from)?),
            Area::Xsave => self.set_xsave(&take::<[u8; XSAVE_BYTES]>(from)?),
            Area::DebugRegs => self.set_debug_registers(&take::<DebugRegs>(from)?),
            Area::Regs => {
                self.set_general_registers(&take::<Regs>(from)?);
                Ok(())
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }?;
        self.publish_registers();
        Ok(())
    }
}

impl Vcpu {
    /// Each ioctl of a vCPU fails once the VM is dead.
    fn check_alive(&self) -> Result<(), Errno> {
        if self.vm.is_dead() { Err(Errno::EIO) } else { Ok(()) }
    }
}

fn give<T: IntoBytes + Immutable + ?Sized>(value: &T, to: &mut [u8]) -> Result<usize, Errno> {
    let bytes = value.as_bytes();
    to.get_mut(..bytes.len()).ok_or(Errno::EFAULT)?.copy_from_slice(bytes);
    Ok(bytes.len())
}

fn take<T: FromBytes>(from: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(from).map_err(|_| Errno::EINVAL)
}

/// The table, copied entry by entry: the bytes may lie anywhere.
fn entries(from: &[u8]) -> Result<Vec<CpuidEntry2>, Errno> {
    let entries = from.chunks_exact(size_of::<CpuidEntry2>());
    if !entries.remainder().is_empty() {
        return Err(Errno::EINVAL);
    }
    entries.map(take).collect()
}
