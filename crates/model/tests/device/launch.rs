//! A whole SNP launch through bytes, and what it refuses on the way.

use crate::process::{ARG, Process, UNMAPPED, fd};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::debug::GuestDebug;
use exeunt_abi::kvm::device_attr::EnableCap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl::{self as nr, Ioctl};
use exeunt_abi::kvm::memory::{
    CreateGuestMemfd, MEM_GUEST_MEMFD, MEMORY_ATTRIBUTE_PRIVATE, MemoryAttributes, PreFaultMemory,
    UserspaceMemoryRegion2,
};
use exeunt_abi::kvm::msr::MsrEntry;
use exeunt_abi::kvm::regs::Regs;
use exeunt_abi::kvm::run::{ExitReason, Hypercall, MAP_GPA_RANGE};
use exeunt_abi::kvm::sev::snp::{LaunchFinish, LaunchStart, LaunchUpdate, page_type, policy};
use exeunt_abi::kvm::sev::{Init2, SevCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn, Gpa};
use exeunt_model::device::Path;
use exeunt_model::guest::snp::Ghcb;
use zerocopy::{FromZeros, Immutable, IntoBytes};

const MEMORY_BYTES: u64 = 0x40_0000;
/// Where the process has the guest's shared memory.
const SHARED: u64 = 0x10_0000_0000;
/// Where the process has the struct of a command.
const DATA: u64 = 0x7100_0000;
const GHCB: Gpa = Gpa(0x10_0000);

/// An SNP VM with its memory, all private.
struct Snp {
    process: Process,
    vm: i32,
    sev: i32,
}

impl Snp {
    fn new() -> Self {
        let process = Process::new();
        let sev = process.device.open(Path::Sev).unwrap();
        let vm = process.vm(VmType::Snp);
        Self { process, vm, sev }
    }

    /// A command with its struct; what the firmware said is the second.
    fn command<T: IntoBytes + Immutable>(&self, id: u32, data: &T) -> (Result<u32, Errno>, u32) {
        self.process.memory.write(DATA, data.as_bytes()).unwrap();
        let data = if size_of::<T>() == 0 { 0 } else { DATA };
        let cmd = SevCmd { id, pad0: 0, data, error: 0x77, sev_fd: self.sev.unsigned_abs() };
        let result = self.process.with(self.vm, nr::KVM_MEMORY_ENCRYPT_OP, &cmd);
        (result, self.process.argument::<SevCmd>().error)
    }

    fn enable(&self, cap: Cap, argument: u64) -> Result<u32, Errno> {
        let enable = EnableCap { cap: cap.0, flags: 0, args: [argument, 0, 0, 0], pad: [0; 64] };
        self.process.with(self.vm, nr::KVM_ENABLE_CAP, &enable)
    }

    fn add_memory(&self) {
        let args = CreateGuestMemfd { size: MEMORY_BYTES, flags: 0, reserved: [0; 6] };
        let file = fd(self.process.with(self.vm, nr::KVM_CREATE_GUEST_MEMFD, &args));
        let region = UserspaceMemoryRegion2 {
            flags: MEM_GUEST_MEMFD,
            memory_size: MEMORY_BYTES,
            userspace_addr: SHARED,
            guest_memfd: file.unsigned_abs(),
            ..UserspaceMemoryRegion2::new_zeroed()
        };
        assert_eq!(self.process.with(self.vm, nr::KVM_SET_USER_MEMORY_REGION2, &region), Ok(0));
        let private = MemoryAttributes {
            address: 0,
            size: MEMORY_BYTES,
            attributes: MEMORY_ATTRIBUTE_PRIVATE,
            flags: 0,
        };
        assert_eq!(self.process.with(self.vm, nr::KVM_SET_MEMORY_ATTRIBUTES, &private), Ok(0));
        assert_eq!(self.process.device.fstat(file).unwrap().size, MEMORY_BYTES);
    }

    /// Everything from `INIT2` to `FINISH`. Returns the vCPU.
    fn launch(&self) -> i32 {
        assert_eq!(self.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
        let vcpu = self.process.vcpu(self.vm, 0);
        self.add_memory();
        assert_eq!(self.command(id::SNP_LAUNCH_START, &start()).0, Ok(0));
        self.process.memory.write(SHARED, &[0x90; 0x1000]).unwrap();
        let update = LaunchUpdate {
            gfn_start: 0,
            uaddr: SHARED,
            len: 0x2000,
            page_type: page_type::NORMAL,
            ..LaunchUpdate::new_zeroed()
        };
        assert_eq!(self.command(id::SNP_LAUNCH_UPDATE, &update).0, Ok(0));
        assert_eq!(self.command(id::SNP_LAUNCH_FINISH, &LaunchFinish::new_zeroed()).0, Ok(0));
        vcpu
    }
}

fn start() -> LaunchStart {
    LaunchStart { policy: policy::RSVD | policy::SMT, ..LaunchStart::new_zeroed() }
}

#[test]
fn a_guest_that_is_launched_through_bytes_converts_a_page_and_halts() {
    let snp = Snp::new();
    snp.process.device.set_guest(|_, cpu| {
        Box::pin(async move {
            Ghcb::set_up(&cpu, GHCB).await?;
            Ok(())
        })
    });
    assert_eq!(snp.enable(Cap::EXIT_HYPERCALL, 1 << MAP_GPA_RANGE), Ok(0));
    let vcpu = snp.launch();
    let process = &snp.process;
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    let page = process.page(vcpu);
    assert_eq!(page.reason(), ExitReason::HYPERCALL);
    let hypercall: Hypercall = page.payload();
    assert_eq!((hypercall.nr, hypercall.args[0], hypercall.args[1]), (MAP_GPA_RANGE, GHCB.0, 1));
    assert_eq!(hypercall.args[2] & 0x10, 0, "to shared");
    let shared = MemoryAttributes { address: GHCB.0, size: 0x1000, attributes: 0, flags: 0 };
    assert_eq!(process.with(snp.vm, nr::KVM_SET_MEMORY_ATTRIBUTES, &shared), Ok(0));
    // The answer is at 88 in the page, and `immediate_exit` at 1: the answer is taken all the same.
    process.device.write_run_page(vcpu, 88, &0u64.to_le_bytes()).unwrap();
    process.device.write_run_page(vcpu, 1, &[1]).unwrap();
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Err(Errno::EINTR));
    assert_eq!(process.page(vcpu).reason(), ExitReason::HYPERCALL, "stale");
    process.device.write_run_page(vcpu, 1, &[0]).unwrap();
    assert_eq!(process.ioctl(vcpu, nr::KVM_RUN, 0), Ok(0));
    assert_eq!(process.page(vcpu).reason(), ExitReason::HLT);
    let page_state = process.device.vm(vcpu).unwrap().page_state(Gfn(GHCB.0 >> 12));
    assert_eq!(page_state, exeunt_proto::conversion::PageState::Shared);
}

#[test]
fn the_launch_measures_the_registers_that_the_ioctls_set() {
    let digest = |rip: Option<u64>| {
        let snp = Snp::new();
        assert_eq!(snp.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
        let vcpu = snp.process.vcpu(snp.vm, 0);
        if let Some(rip) = rip {
            assert_eq!(snp.process.ioctl(vcpu, nr::KVM_GET_REGS, ARG), Ok(0));
            let regs = Regs { rip, ..snp.process.argument() };
            assert_eq!(snp.process.with(vcpu, nr::KVM_SET_REGS, &regs), Ok(0));
        }
        assert_eq!(snp.command(id::SNP_LAUNCH_START, &start()).0, Ok(0));
        assert_eq!(snp.command(id::SNP_LAUNCH_FINISH, &LaunchFinish::new_zeroed()).0, Ok(0));
        snp.process.device.vm(snp.vm).unwrap().launch_digest().unwrap()
    };
    assert_eq!(digest(None), digest(Some(0xfff0)));
    assert_ne!(digest(None), digest(Some(0xb004)));
}

#[test]
fn the_generic_order_of_commands_is_the_kernels() {
    let snp = Snp::new();
    let process = &snp.process;
    assert_eq!(process.ioctl(snp.vm, nr::KVM_MEMORY_ENCRYPT_OP, 0), Ok(0));
    assert_eq!(process.ioctl(snp.vm, nr::KVM_MEMORY_ENCRYPT_OP, UNMAPPED), Err(Errno::EFAULT));
    // An unknown command is not written back: `error` stays.
    assert_eq!(snp.command(104, &()), (Err(Errno::EINVAL), 0x77));
    assert_eq!(snp.command(id::SEND_UPDATE_VMSA, &()).0, Err(Errno::EINVAL));
    assert_eq!(snp.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
    for refused in [id::INIT2, id::SEND_START, id::LAUNCH_FINISH, 99] {
        assert_eq!(snp.command(refused, &Init2::new_zeroed()), (Err(Errno::EPERM), 0x77), "{refused}");
    }
    assert_eq!(snp.command(104, &()), (Err(Errno::EINVAL), 0x77));
}

#[test]
fn a_command_needs_an_open_dev_sev_and_the_number_is_what_counts() {
    let snp = Snp::new();
    let process = &snp.process;
    assert_eq!(snp.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
    process.device.close(snp.sev).unwrap();
    // Without a file no context is made, and that is what `ENOTTY` says here.
    assert_eq!(snp.command(id::SNP_LAUNCH_START, &start()).0, Err(Errno::ENOTTY));
    assert_eq!(process.device.open(Path::Kvm), Ok(snp.sev));
    assert_eq!(snp.command(id::SNP_LAUNCH_START, &start()).0, Err(Errno::ENOTTY), "another file");
    process.device.close(snp.sev).unwrap();
    assert_eq!(process.device.open(Path::Sev), Ok(snp.sev));
    assert_eq!(snp.command(id::SNP_LAUNCH_START, &start()).0, Ok(0));
}

/// The ioctls that the gate of encrypted registers shuts.
const SHUT: &[Ioctl] = &[
    nr::KVM_GET_REGS,
    nr::KVM_SET_REGS,
    nr::KVM_GET_SREGS,
    nr::KVM_SET_SREGS,
    nr::KVM_GET_SREGS2,
    nr::KVM_SET_SREGS2,
    nr::KVM_GET_FPU,
    nr::KVM_SET_FPU,
    nr::KVM_GET_XSAVE,
    nr::KVM_GET_XSAVE2,
    nr::KVM_SET_XSAVE,
    nr::KVM_GET_XCRS,
    nr::KVM_SET_XCRS,
    nr::KVM_GET_DEBUGREGS,
    nr::KVM_SET_DEBUGREGS,
    nr::KVM_SET_GUEST_DEBUG,
];

#[test]
fn registers_are_shut_after_finish_and_open_before() {
    let snp = Snp::new();
    let process = &snp.process;
    assert_eq!(snp.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
    let early = process.vcpu(snp.vm, 0);
    let reads = |request: &&Ioctl| request.name().is_some_and(|name| name.starts_with("KVM_GET"));
    for request in SHUT.iter().filter(reads) {
        assert_eq!(process.ioctl(early, *request, ARG), Ok(0), "{request}");
    }
    let snp = Snp::new();
    let vcpu = snp.launch();
    let process = &snp.process;
    for request in SHUT {
        assert_eq!(process.ioctl(vcpu, *request, ARG), Err(Errno::EINVAL), "{request}");
    }
    // Of a write the argument is copied before the gate, of SREGS2 after it.
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_REGS, UNMAPPED), Err(Errno::EFAULT));
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_SREGS2, UNMAPPED), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_REGS, UNMAPPED), Err(Errno::EINVAL));
    for open in [nr::KVM_GET_VCPU_EVENTS, nr::KVM_GET_MP_STATE] {
        assert_eq!(process.ioctl(vcpu, open, ARG), Ok(0), "{open}");
    }
    assert_eq!(process.argument::<VcpuEvents>().exception_pending, 0);
}

#[test]
fn msrs_that_the_guest_keeps_end_the_list_after_finish() {
    let snp = Snp::new();
    let vcpu = snp.launch();
    let entry = |index| MsrEntry { index, reserved: 0, data: 0 };
    // PLATFORM MSRs of KVM, then STAR, which is passed through.
    let entries = [entry(0x4b56_4d00), entry(0xc000_0081), entry(0x4b56_4d01)];
    let bytes = [&3u64.to_le_bytes()[..], entries.as_bytes()].concat();
    assert_eq!(snp.process.with(vcpu, nr::KVM_GET_MSRS, &*bytes), Ok(1));
    assert_eq!(snp.process.with(vcpu, nr::KVM_SET_MSRS, &*bytes), Ok(1));
}

#[test]
fn a_debugged_vcpu_cannot_be_encrypted() {
    let snp = Snp::new();
    assert_eq!(snp.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
    let vcpu = snp.process.vcpu(snp.vm, 0);
    let debug = GuestDebug { control: 1, ..GuestDebug::default() };
    assert_eq!(snp.process.with(vcpu, nr::KVM_SET_GUEST_DEBUG, &debug), Ok(0));
    assert_eq!(snp.command(id::SNP_LAUNCH_START, &start()).0, Ok(0));
    assert_eq!(snp.command(id::SNP_LAUNCH_FINISH, &LaunchFinish::new_zeroed()).0, Err(Errno::EINVAL));
    assert_eq!(snp.process.with(vcpu, nr::KVM_SET_GUEST_DEBUG, &GuestDebug::default()), Ok(0));
    assert_eq!(snp.command(id::SNP_LAUNCH_FINISH, &LaunchFinish::new_zeroed()).0, Ok(0));
    assert_eq!(snp.process.with(vcpu, nr::KVM_SET_GUEST_DEBUG, &debug), Err(Errno::EINVAL));
}

#[test]
fn prefaulting_waits_for_the_launch_and_writes_back_what_is_left() {
    let snp = Snp::new();
    assert_eq!(snp.command(id::INIT2, &Init2::new_zeroed()).0, Ok(0));
    let vcpu = snp.process.vcpu(snp.vm, 0);
    snp.add_memory();
    let range = PreFaultMemory { gpa: 0, size: 0x3000, flags: 0, padding: [0; 5] };
    assert_eq!(snp.process.with(vcpu, nr::KVM_PRE_FAULT_MEMORY, &range), Err(Errno::EOPNOTSUPP));
    let snp = Snp::new();
    let vcpu = snp.launch();
    assert_eq!(snp.process.with(vcpu, nr::KVM_PRE_FAULT_MEMORY, &range), Ok(0));
    let left: PreFaultMemory = snp.process.argument();
    assert_eq!((left.gpa, left.size), (0x3000, 0));
}

#[test]
fn the_capabilities_that_name_another_vm_want_its_descriptor() {
    let snp = Snp::new();
    for cap in [Cap::VM_COPY_ENC_CONTEXT_FROM, Cap::VM_MOVE_ENC_CONTEXT_FROM] {
        assert_eq!(snp.enable(cap, 500), Err(Errno::EBADF), "{cap}");
        assert_eq!(snp.enable(cap, u64::from(snp.sev.unsigned_abs())), Err(Errno::EBADF), "{cap}");
        assert_eq!(snp.enable(cap, u64::from(snp.vm.unsigned_abs())), Err(Errno::EINVAL), "{cap}");
    }
}

#[test]
fn the_registers_of_a_guest_of_the_older_init_are_stale_and_not_shut() {
    let process = Process::new();
    let sev = process.device.open(Path::Sev).unwrap();
    let snp = Snp { vm: process.vm(VmType::Default), process, sev };
    let process = &snp.process;
    assert_eq!(snp.command(id::ES_INIT, &()).0, Ok(0));
    let vcpu = process.vcpu(snp.vm, 0);
    let mut start = exeunt_abi::kvm::sev::LaunchStart::new_zeroed();
    // Encrypted state, and no debugging.
    start.policy = 0b101;
    assert_eq!(snp.command(id::LAUNCH_START, &start).0, Ok(0));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_FPU, ARG), Ok(0));
    assert_ne!(process.argument::<[u8; 416]>(), [0; 416]);
    assert_eq!(snp.command(id::LAUNCH_UPDATE_VMSA, &()).0, Ok(0));
    for request in SHUT.iter().filter(|request| **request != nr::KVM_SET_GUEST_DEBUG) {
        // What was read is written back, so that no check of values is in the way.
        assert_eq!(process.ioctl(vcpu, *request, ARG), Ok(0), "{request}");
    }
    assert_eq!(process.ioctl(vcpu, nr::KVM_SET_GUEST_DEBUG, ARG), Err(Errno::EINVAL));
    assert_eq!(process.ioctl(vcpu, nr::KVM_GET_FPU, ARG), Ok(0));
    assert_eq!(process.argument::<[u8; 416]>(), [0; 416]);
    let entry = MsrEntry { index: 0xc000_0081, reserved: 0, data: 0x77 };
    let bytes = [&1u64.to_le_bytes()[..], entry.as_bytes()].concat();
    assert_eq!(process.with(vcpu, nr::KVM_GET_MSRS, &*bytes), Ok(1));
    assert_eq!(process.argument::<[u64; 3]>()[2], 0x77, "left as it was given");
}
