//! The state of a vCPU for a snapshot: the port's `State` over the ioctls.

use exeunt_abi::Errno;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl;
use exeunt_abi::kvm::regs::XSAVE_BYTES;
use exeunt_proto::state::{Area, State};

use crate::state_unsafe;
use crate::vcpu::Vcpu;

impl State for Vcpu {
    fn vcpu_id(&self) -> u64 {
        self.id
    }

    fn mp_state(&mut self) -> Result<u32, Errno> {
        Self::mp_state(self)
    }

    fn set_mp_state(&mut self, mp_state: u32) -> Result<(), Errno> {
        Self::set_mp_state(self, mp_state)
    }

    fn area(&mut self, area: Area, to: &mut [u8]) -> Result<Option<usize>, Errno> {
        let request = match area {
            Area::Cpuid => return state_unsafe::cpuid(&self.fd, to).map(Some),
            Area::Sregs => ioctl::KVM_GET_SREGS,
            Area::Xcrs => ioctl::KVM_GET_XCRS,
            // An area that is larger than what is carried would come back without its end.
            Area::Xsave if self.xsave_bytes() > XSAVE_BYTES => return Err(Errno::EOPNOTSUPP),
            Area::Xsave => ioctl::KVM_GET_XSAVE,
            Area::DebugRegs => ioctl::KVM_GET_DEBUGREGS,
            Area::Regs => ioctl::KVM_GET_REGS,
            _ => return Ok(None),
        };
        let to = to.get_mut(..area.max_bytes()).ok_or(Errno::EFAULT)?;
        state_unsafe::read(&self.fd, request, to).map(|()| Some(to.len()))
    }

    fn set_area(&mut self, area: Area, from: &[u8]) -> Result<(), Errno> {
        let request = match area {
            Area::Cpuid => return state_unsafe::set_cpuid(&self.fd, from),
            Area::Xsave => return state_unsafe::set_xsave(&self.fd, from, self.xsave_bytes()),
            Area::Sregs => ioctl::KVM_SET_SREGS,
            Area::Xcrs => ioctl::KVM_SET_XCRS,
            Area::DebugRegs => ioctl::KVM_SET_DEBUGREGS,
            Area::Regs => ioctl::KVM_SET_REGS,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        state_unsafe::write(&self.fd, request, from)
    }
}

impl Vcpu {
    /// How much `KVM_SET_XSAVE` reads: more than 4096 bytes only in a process that asked for features of that size.
    fn xsave_bytes(&self) -> usize {
        usize::try_from(self.machine.check_extension(Cap::XSAVE2)).unwrap_or(usize::MAX)
    }
}
