//! `KVM_GET_ONE_REG`, `KVM_SET_ONE_REG` and `KVM_GET_REG_LIST` of x86, which came with shadow stacks: model-specific
//! registers by id, and KVM's own, of which the model has none.

use super::call::Call;
use crate::vcpu::Vcpu;
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl as nr;

/// `KVM_REG_ARCH_MASK` and `KVM_REG_X86`.
const ARCH_MASK: u64 = 0xff << 56;
const X86: u64 = 0x20 << 56;
/// `KVM_REG_SIZE_MASK` and `KVM_REG_SIZE_U64`, in bits 55:52.
const SIZE_MASK: u64 = 0xf << 52;
const SIZE_U64: u64 = 3 << 52;
/// Bits 51:40 of an id, which have to be 0.
const RESERVED: u64 = 0xfff << 40;
/// Bits 39:32: `KVM_X86_REG_TYPE_MSR`.
const TYPE_MASK: u64 = 0xff << 32;
const TYPE_MSR: u64 = 2 << 32;

impl Call<'_> {
    /// The ioctls of registers by id; `None` is another ioctl.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_get_set_one_reg` and `kvm_get_reg_list`.
    pub(super) fn on_one_reg(&self, vcpu: &mut Vcpu) -> Option<Result<u32, Errno>> {
        if !self.device.kernel.dialect.has_x86_one_reg() {
            return None;
        }
        Some(match self.request {
            nr::KVM_GET_ONE_REG => self.one_reg(|call, index, at| {
                let value = vcpu.msr(index)?;
                call.put_at(at, &value)
            }),
            nr::KVM_SET_ONE_REG => self.one_reg(|call, index, at| {
                let value: u64 = call.get_at(at)?;
                vcpu.set_msr(index, value)
            }),
            nr::KVM_GET_REG_LIST => self.reg_list(),
            _ => return None,
        })
    }

    fn one_reg(&self, access: impl FnOnce(&Self, u32, u64) -> Result<(), Errno>) -> Result<u32, Errno> {
        let [id, at]: [u64; 2] = self.get()?;
        if id & ARCH_MASK != X86 || id & (RESERVED | TYPE_MASK) != TYPE_MSR || id & SIZE_MASK != SIZE_U64 {
            return Err(Errno::EINVAL);
        }
        let index = u32::try_from(id & 0xffff_ffff).unwrap_or(u32::MAX);
        access(self, index, at).map(|()| 0)
    }

    /// The shadow stack's pointer would be the one register of the list.
    fn reg_list(&self) -> Result<u32, Errno> {
        self.get::<u64>()?;
        self.put(&0u64).map(|()| 0)
    }
}
