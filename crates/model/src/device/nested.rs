//! The ioctls of nested virtualisation.

use super::call::Call;
use crate::nested::NestedStateRead;
use crate::vcpu::Vcpu;
use exeunt_abi::Errno;

/// Where `struct kvm_nested_state` has its size.
const SIZE: u64 = 4;
/// Bytes of the structure that KVM looks at: the header, a VMCS and its shadow.
const MAX_BYTES: u32 = 128 + 2 * 4096;

impl Call<'_> {
    /// `KVM_GET_NESTED_STATE`.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_arch_vcpu_ioctl`.
    pub(super) fn get_nested_state(&self, vcpu: &Vcpu) -> Result<u32, Errno> {
        let bytes: u32 = self.get_at(self.arg.wrapping_add(SIZE))?;
        let NestedStateRead { writes, result } = vcpu.nested_state(bytes);
        for (at, written) in writes {
            self.put_at(self.arg.wrapping_add(at as u64), written.as_slice())?;
        }
        result.map(|()| 0)
    }

    /// `KVM_SET_NESTED_STATE`.
    pub(super) fn set_nested_state(&self, vcpu: &mut Vcpu) -> Result<u32, Errno> {
        let bytes: u32 = self.get_at(self.arg.wrapping_add(SIZE))?;
        // What the process does not have behind the header is missed by the checks, where they ask for it.
        let header: [u8; 128] = self.get()?;
        let mut state = header.to_vec();
        let wanted = usize::try_from(bytes.min(MAX_BYTES)).unwrap_or(0);
        if let Some(behind) = wanted.checked_sub(header.len()) {
            let mut data = vec![0; behind];
            if self.user.read(self.arg.wrapping_add(header.len() as u64), &mut data).is_ok() {
                state.extend_from_slice(&data);
            }
        }
        vcpu.set_nested_state(&state).map(|()| 0)
    }
}
