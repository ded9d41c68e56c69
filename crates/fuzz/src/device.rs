//! Any ioctls with any bytes on any descriptor: the model answers each with a number or an error.

use crate::decoders::{Words64, kernel};
use crate::explorer;
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::{KNOWN, KVM_CREATE_VCPU, KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION};
use exeunt_model::device::{Device, Path};
use exeunt_model::{Host, SparseMemory, UserMemory};
use std::sync::Arc;

/// Requests of one input, at most.
const REQUESTS: usize = 48;
/// Where the process keeps its structs.
const ARGUMENT: u64 = 0x1_0000;
/// Where its slots are.
const MEMORY: u64 = 0x10_0000;
/// Descriptors that a process of so few requests can have.
const DESCRIPTORS: u64 = 12;

pub(crate) fn ioctls(data: &[u8]) {
    let mut words = Words64(data);
    let setup = words.next();
    let host = if setup & 0x100 == 0 { Host::AMD } else { Host::INTEL };
    let device = Device::new(kernel(setup), host);
    let seed = words.next();
    device.set_guest(move |id, cpu| {
        let acts = explorer::drawn_acts(seed ^ id);
        Box::pin(explorer::guest(cpu, acts))
    });
    let memory: Arc<dyn UserMemory> = Arc::new(SparseMemory::new());
    let _ = device.open(Path::Kvm);
    let _ = device.open(Path::Sev);
    prepare(&device, setup >> 16 & 7, &memory);
    for _ in 0..REQUESTS {
        let [what, argument] = [words.next(), words.next()];
        let fd = i32::try_from(what % DESCRIPTORS).unwrap_or(0) + 2;
        match what >> 8 & 0xf {
            0 => _ = device.close(fd),
            1 => _ = device.dup(fd),
            2 => _ = device.mmap(fd, argument & 0x3000, 0x1000),
            3 => _ = device.fallocate(fd, 3, i64::from_ne_bytes(argument.to_ne_bytes()), 0x1000),
            4 => {
                _ = device.write_run_page(
                    fd,
                    usize::from(argument.to_le_bytes()[0]),
                    &argument.to_le_bytes(),
                );
            }
            5 => _ = device.open(Path::Kvm),
            6 => _ = device.ioctl(fd, low(what >> 16), argument, &memory),
            _ => request(&device, fd, [what, argument], &mut words, &memory),
        }
    }
}

fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).unwrap_or(0)
}

/// A known request with a struct of its size, whose words come from the input and point into the process now and then.
fn request(
    device: &Device,
    fd: i32,
    [what, argument]: [u64; 2],
    words: &mut Words64<'_>,
    memory: &Arc<dyn UserMemory>,
) {
    let index = usize::try_from(what >> 16).unwrap_or(0) % KNOWN.len().max(1);
    let Some(request) = KNOWN.get(index).map(|known| known.ioctl) else { return };
    let bytes = u64::from(request.parts().size_bytes).min(256);
    for offset in (0..bytes).step_by(8) {
        let word = match words.next() {
            word if word & 0xff == 0x11 => ARGUMENT + 0x1000,
            word if word & 0xff == 0x22 => MEMORY,
            word => word & !0xff_0000_0000_0000,
        };
        let _ = memory.write(ARGUMENT + offset, &word.to_le_bytes());
    }
    let argument = if bytes == 0 { argument & 0xff } else { ARGUMENT };
    let result = device.ioctl(fd, request.0, argument, memory);
    assert_ne!(result, Err(Errno(0)), "an error has a number");
}

/// A VM of a type with memory and a vCPU, as far as the kernel lets it.
fn prepare(device: &Device, vm_type: u64, memory: &Arc<dyn UserMemory>) {
    let Ok(vm) = device.ioctl(3, KVM_CREATE_VM.0, vm_type, memory) else { return };
    let Ok(vm) = i32::try_from(vm) else { return };
    let region = [0, 0, 0x10_0000, MEMORY];
    for (at, word) in (0u64..).zip(region) {
        let _ = memory.write(ARGUMENT + 8 * at, &word.to_le_bytes());
    }
    let _ = device.ioctl(vm, KVM_SET_USER_MEMORY_REGION.0, ARGUMENT, memory);
    let _ = device.ioctl(vm, KVM_CREATE_VCPU.0, 0, memory);
}
