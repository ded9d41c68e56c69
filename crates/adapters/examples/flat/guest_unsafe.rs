//! A guest of a few instructions on `/dev/kvm`, as any VMM on kvm-ioctls sets one up.

use std::error::Error;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Prints "hi" through port 0x3f8, then divides by zero without an interrupt table: a triple fault.
const CODE: [u8; 18] =
    [0xba, 0xf8, 3, 0, 0, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee, 0xb0, b'\n', 0xee, 0x31, 0xc9, 0xf7, 0xf1];
const LOAD: usize = 0x1000;

/// Bytes of the guest's memory, which starts at 0.
pub(crate) const MEMORY_BYTES: usize = 0x1_0000;

/// A VM with the guest in its memory, and its vCPU, about to start.
pub(crate) fn boot() -> Result<(VmFd, VcpuFd), Box<dyn Error>> {
    let vm = Kvm::new()?.create_vm()?;
    let pages: &'static mut [[u8; 4096]] = Vec::leak(vec![[0; 4096]; MEMORY_BYTES / 4096 + 1]);
    let memory = pages.as_flattened_mut();
    // A mapping starts at a page. This memory is part of the heap, so the first bytes are left out.
    let start = memory.as_ptr().align_offset(4096);
    let memory = &mut memory[start..start + MEMORY_BYTES];
    memory[LOAD..LOAD + CODE.len()].copy_from_slice(&CODE);
    let slot = kvm_userspace_memory_region {
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: memory.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: The memory lives as long as the process and is not used by it any more.
    unsafe { vm.set_user_memory_region(slot) }?;
    let vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    let code = kvm_segment { limit: u32::MAX, selector: 8, type_: 11, present: 1, ..Default::default() };
    sregs.cs = kvm_segment { db: 1, s: 1, g: 1, ..code };
    // 32-bit code without paging.
    (sregs.idt.limit, sregs.cr0) = (0, sregs.cr0 | 1);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs { rip: LOAD as u64, rflags: 2, ..Default::default() })?;
    Ok((vm, vcpu))
}
