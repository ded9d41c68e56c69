//! Every number, every direction, every kind of descriptor.

use crate::process::{ARG, Process, fd};
use exeunt_abi::kvm::ioctl::{self as nr, Direction, Ioctl, KNOWN, KVMIO, ioctl};
use exeunt_abi::kvm::irq::{CreateDevice, DEV_TYPE_VFIO};
use exeunt_abi::kvm::memory::CreateGuestMemfd;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno};
use exeunt_model::Host;
use exeunt_model::device::Path;

/// A descriptor of each kind, with what the kernel answers to a number that it does not know.
fn one_of_each(process: &Process) -> Vec<(&'static str, i32, Errno)> {
    let vm = process.vm(VmType::Default);
    let vcpu = process.vcpu(vm, 0);
    let args = CreateGuestMemfd { size: 0x1000, flags: 0, reserved: [0; 6] };
    let mut all = vec![
        ("/dev/kvm", process.kvm(), Errno::EINVAL),
        ("a VM", vm, Errno::ENOTTY),
        ("a vCPU", vcpu, Errno::EINVAL),
        ("an event file", process.device.eventfd().unwrap(), Errno::ENOTTY),
    ];
    if let Ok(file) = process.ioctl(vm, nr::KVM_GET_STATS_FD, 0) {
        all.push(("statistics", fd(Ok(file)), Errno::ENOTTY));
    }
    process
        .with(vm, nr::KVM_CREATE_DEVICE, &CreateDevice { device_type: DEV_TYPE_VFIO, fd: 0, flags: 0 })
        .unwrap();
    let device = i32::try_from(process.argument::<CreateDevice>().fd).unwrap();
    all.push(("a device", device, Errno::ENOTTY));
    if let Ok(file) = process.with(vm, nr::KVM_CREATE_GUEST_MEMFD, &args) {
        all.push(("a guest_memfd", fd(Ok(file)), Errno::ENOTTY));
    }
    if let Ok(sev) = process.device.open(Path::Sev) {
        all.push(("/dev/sev", sev, Errno::EINVAL));
    }
    all
}

/// Sizes of arguments that occur, and some that do not.
fn sizes() -> Vec<u16> {
    let mut sizes: Vec<u16> = KNOWN.iter().map(|known| known.ioctl.parts().size_bytes).collect();
    sizes.extend([1, 3, 0x3fff]);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[test]
fn a_number_that_the_kernel_does_not_know_is_refused_by_each_descriptor_as_the_kernel_does() {
    for host in [Host::AMD, Host::INTEL] {
        let process = Process::on(Dialect::Linux7_2, host);
        for (what, fd, errno) in one_of_each(&process) {
            for (direction, number) in numbers() {
                for size in sizes() {
                    let request = ioctl(direction, size, KVMIO, number);
                    if request.known().is_none() {
                        assert_eq!(process.ioctl(fd, request, ARG), Err(errno), "{what}: {request}");
                    }
                }
            }
        }
    }
}

#[test]
fn no_number_of_the_table_panics_on_any_descriptor_and_another_type_is_unknown() {
    for dialect in Dialect::all() {
        for host in [Host::AMD, Host::INTEL] {
            let process = Process::on(dialect, host);
            for (what, fd, errno) in one_of_each(&process) {
                for known in KNOWN {
                    for arg in [0, 1, ARG, u64::MAX, u64::MAX - 8] {
                        // The answer is any; that there is one is the point.
                        let _ = process.ioctl(fd, known.ioctl, arg);
                    }
                    let other = Ioctl(known.ioctl.0 ^ 0x0100);
                    assert_eq!(process.ioctl(fd, other, ARG), Err(errno), "{what}: {other}");
                }
            }
        }
    }
}

#[test]
fn the_number_that_a_32_bit_process_computes_is_unknown() {
    let process = Process::new();
    let vm = process.vm(VmType::Snp);
    let vcpu = process.vcpu(vm, 0);
    let number = nr::KVM_MEMORY_ENCRYPT_OP_ILP32;
    assert_eq!(number.0, 0xc004_aeba);
    assert_eq!(process.ioctl(vm, number, 0), Err(Errno::ENOTTY));
    assert_eq!(process.ioctl(vcpu, number, 0), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vm, nr::KVM_MEMORY_ENCRYPT_OP, 0), Ok(0), "no argument is no command");
}

fn numbers() -> impl Iterator<Item = (Direction, u8)> {
    let directions = [Direction::None, Direction::Write, Direction::Read, Direction::ReadWrite];
    directions.into_iter().flat_map(|direction| (0..=255).map(move |number| (direction, number)))
}
