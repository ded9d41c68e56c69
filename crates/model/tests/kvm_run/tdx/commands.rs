//! `KVM_MEMORY_ENCRYPT_OP` on TDs and their vCPUs.

use super::{MEMORY_BYTES, SHARED, address_bits, halts, init_vm, initialised, new_td};
use exeunt_abi::kvm::cpuid::{CpuidEntry2, MAX_ENTRIES};
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::tdx::{Capabilities, InitMemRegion, InitVm, MEASURE_MEMORY_REGION, TdxCmd, id};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::tdx::{CompletionStatus, attributes, operand};
use exeunt_abi::{Dialect, Errno, Gpa, Kernel};
use exeunt_model::{
    Fault, FaultPlan, Host, Kvm, Point, Protection, SparseMemory, TdxFailure, UserMemory, Vcpu, Vm,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Where the process has its command, and the struct that it names.
const CMD: u64 = 0x7f00_0000_0000;
const DATA: u64 = 0x7f00_0001_0000;
/// Where it has the contents of pages.
const SOURCE: u64 = 0x7f00_0010_0000;

fn put<T: IntoBytes + Immutable + ?Sized>(memory: &SparseMemory, at: u64, value: &T) {
    memory.write(at, value.as_bytes()).unwrap();
}

fn get<T: FromBytes + IntoBytes>(memory: &SparseMemory, at: u64) -> T {
    let mut value = T::new_zeroed();
    memory.read(at, value.as_mut_bytes()).unwrap();
    value
}

fn cmd(memory: &SparseMemory, id: u32, flags: u32) {
    put(memory, CMD, &TdxCmd { id, flags, data: DATA, hw_error: 0 });
}

fn on_vm(vm: &Vm, memory: &SparseMemory, id: u32) -> Result<(), Errno> {
    cmd(memory, id, 0);
    vm.tdx_command(CMD, memory)
}

fn on_vcpu(vcpu: &mut Vcpu, memory: &SparseMemory, id: u32) -> Result<(), Errno> {
    cmd(memory, id, 0);
    vcpu.tdx_command(CMD, memory)
}

fn put_init(memory: &SparseMemory, init: &InitVm, entries: &[CpuidEntry2]) {
    put(memory, DATA, &InitVm { cpuid_nent: count(entries), ..*init });
    put(memory, DATA + 264, entries);
}

fn count(entries: &[CpuidEntry2]) -> u32 {
    u32::try_from(entries.len()).unwrap()
}

fn vcpu_of(vm: &Vm) -> Vcpu {
    super::vcpu_with(vm, 0, halts)
}

#[test]
fn only_kernels_with_tdx_on_intel_hosts_make_tds() {
    for dialect in Dialect::all() {
        for host in [Host::INTEL, Host::AMD] {
            let kernel = Kernel { dialect, ..Kernel::default() };
            let made = Kvm::on(host, kernel).create_vm(VmType::Tdx).is_ok();
            assert_eq!(made, dialect == Dialect::Linux7_2 && host.is_intel(), "{dialect}");
        }
    }
}

#[test]
fn a_command_sets_no_hw_error_has_a_number_and_goes_to_its_own_kind_of_file() {
    let memory = SparseMemory::new();
    let vm = new_td();
    put(&memory, CMD, &TdxCmd { id: id::CAPABILITIES, flags: 0, data: DATA, hw_error: 1 });
    assert_eq!(vm.tdx_command(CMD, &memory), Err(Errno::EINVAL));
    for number in (0..16).chain([u32::MAX]).filter(|number| id::is_for_vcpu(*number) != Some(false)) {
        assert_eq!(on_vm(&vm, &memory, number), Err(Errno::EINVAL), "{number}");
    }
    let mut vcpu = initialised().create_vcpu(0, halts).unwrap();
    for number in (0..16).chain([u32::MAX]).filter(|number| id::is_for_vcpu(*number) != Some(true)) {
        assert_eq!(on_vcpu(&mut vcpu, &memory, number), Err(Errno::EINVAL), "{number}");
    }
    put(&memory, CMD, &TdxCmd { id: id::INIT_VCPU, flags: 0, data: DATA, hw_error: 1 });
    assert_eq!(vcpu.tdx_command(CMD, &memory), Err(Errno::EINVAL));
    memory.protect(CMD, Protection::None);
    assert_eq!(vm.tdx_command(CMD, &memory), Err(Errno::EFAULT));
    assert_eq!(vcpu.tdx_command(CMD, &memory), Err(Errno::EFAULT));
}

#[test]
fn a_vm_that_is_no_td_has_no_such_commands() {
    let memory = SparseMemory::new();
    cmd(&memory, id::CAPABILITIES, 0);
    let vm = Kvm::on(Host::INTEL, Kernel::default()).create_vm(VmType::Default).unwrap();
    assert_eq!(vm.tdx_command(CMD, &memory), Err(Errno::ENOTTY));
    assert_eq!(vm.tdx_init_vm(&init_vm(), &[address_bits(48)]).unwrap_err().errno, Errno::ENOTTY);
    let mut vcpu = vm.create_vcpu(0, halts).unwrap();
    assert_eq!(vcpu.tdx_command(CMD, &memory), Err(Errno::EINVAL));
}

#[test]
fn capabilities_say_how_many_entries_there_are_when_the_buffer_is_too_small() {
    let memory = SparseMemory::new();
    let vm = new_td();
    let (_, entries) = vm.tdx_capabilities();
    let there = count(&entries);
    for room in [0, 1, there - 1] {
        let mut head = Capabilities::new_zeroed();
        (head.supported_attrs, head.cpuid_nent) = (0x55, room);
        put(&memory, DATA, &head);
        assert_eq!(on_vm(&vm, &memory, id::CAPABILITIES), Err(Errno::E2BIG));
        let back: Capabilities = get(&memory, DATA);
        assert_eq!((back.cpuid_nent, back.supported_attrs), (there, 0x55), "nothing else is written");
    }
    for room in [there, there + 7] {
        put(&memory, DATA, &Capabilities { cpuid_nent: room, ..Capabilities::new_zeroed() });
        assert_eq!(on_vm(&vm, &memory, id::CAPABILITIES), Ok(()));
        let back: Capabilities = get(&memory, DATA);
        assert_eq!(back, vm.tdx_capabilities().0);
        assert_eq!((back.supported_attrs, back.user_tdvmcallinfo_1_r11), (attributes::SEPT_VE_DISABLE, 2));
        assert_eq!(back.cpuid_nent, there);
        for (index, entry) in (0..).zip(&entries) {
            assert_eq!(get::<CpuidEntry2>(&memory, DATA + 2056 + index * 40), *entry);
        }
    }
    cmd(&memory, id::CAPABILITIES, 1);
    assert_eq!(vm.tdx_command(CMD, &memory), Err(Errno::EINVAL), "flags");
    memory.protect(DATA, Protection::ReadOnly);
    assert_eq!(on_vm(&vm, &memory, id::CAPABILITIES), Err(Errno::EFAULT));
}

#[test]
fn init_vm_is_done_once() {
    let memory = SparseMemory::new();
    let vm = new_td();
    put_init(&memory, &init_vm(), &[address_bits(48)]);
    cmd(&memory, id::INIT_VM, 1);
    assert_eq!(vm.tdx_command(CMD, &memory), Err(Errno::EINVAL), "flags");
    assert_eq!(on_vm(&vm, &memory, id::INIT_VM), Ok(()));
    assert_eq!(on_vm(&vm, &memory, id::INIT_VM), Err(Errno::EINVAL));
    assert_eq!(get::<TdxCmd>(&memory, CMD).hw_error, 0);
}

#[test]
fn init_vm_refuses_more_entries_than_there_can_be_before_it_reads_them() {
    let memory = SparseMemory::new();
    memory.protect(DATA + 0x1000, Protection::None);
    let vm = new_td();
    for (count, expected) in
        [(MAX_ENTRIES + 1, Errno::E2BIG), (u32::MAX, Errno::E2BIG), (MAX_ENTRIES, Errno::EFAULT)]
    {
        put(&memory, DATA, &InitVm { cpuid_nent: count, ..init_vm() });
        assert_eq!(on_vm(&vm, &memory, id::INIT_VM), Err(expected), "{count}");
    }
}

#[test]
fn init_vm_refuses_what_is_reserved_or_not_offered() {
    let refused = |init: InitVm, entries: &[CpuidEntry2]| {
        let memory = SparseMemory::new();
        put_init(&memory, &init, entries);
        let vm = new_td();
        assert_eq!(on_vm(&vm, &memory, id::INIT_VM), Err(Errno::EINVAL), "{init:x?}");
        assert_eq!(vm.create_vcpu(0, halts).err(), Some(Errno::EIO), "it is no TD yet");
        CompletionStatus(get::<TdxCmd>(&memory, CMD).hw_error)
    };
    let entries = [address_bits(48)];
    for index in 0..12 {
        let mut init = init_vm();
        init.reserved[index] = 1;
        refused(init, &entries);
    }
    refused(InitVm { cpuid_padding: 1, ..init_vm() }, &entries);
    let (capabilities, _) = new_td().tdx_capabilities();
    for bit in 0..64 {
        if capabilities.supported_attrs >> bit & 1 == 0 {
            refused(InitVm { attributes: 1 << bit, ..init_vm() }, &entries);
        }
        if capabilities.supported_xfam >> bit & 1 == 0 {
            let status = refused(InitVm { xfam: 1 << bit, ..init_vm() }, &entries);
            assert_eq!(status, CompletionStatus::SUCCESS, "KVM says no before the module is asked");
        }
    }
    refused(init_vm(), &[]);
    refused(init_vm(), &[address_bits(46)]);
}

#[test]
fn what_the_module_refuses_is_named_in_hw_error() {
    let vm = new_td();
    let failure = |operand| TdxFailure {
        errno: Errno::EINVAL,
        hw_error: CompletionStatus::OPERAND_INVALID.with(operand),
    };
    // AVX-512 in part, and without AVX; half of CET; half of AMX.
    for xfam in [0x27, 0xe3, 0x803, 0x2_0003] {
        let init = InitVm { xfam, ..init_vm() };
        assert_eq!(vm.tdx_init_vm(&init, &[address_bits(48)]), Err(failure(operand::XFAM)), "{xfam:#x}");
    }
    let fixed = CpuidEntry2 { function: 1, edx: 1, ..CpuidEntry2::default() };
    let refused = vm.tdx_init_vm(&init_vm(), &[address_bits(48), fixed]);
    assert_eq!(refused, Err(failure(operand::CPUID_CONFIG)));
    let memory = SparseMemory::new();
    put_init(&memory, &init_vm(), &[address_bits(48), fixed]);
    assert_eq!(on_vm(&vm, &memory, id::INIT_VM), Err(Errno::EINVAL));
    assert_eq!(get::<TdxCmd>(&memory, CMD).hw_error, 0xc000_0100_0000_0045);
    assert_eq!(vm.tdx_init_vm(&init_vm(), &[address_bits(48)]), Ok(()), "and can be tried again");
}

#[test]
fn finalize_is_done_once_and_after_init_vm() {
    let memory = SparseMemory::new();
    let vm = new_td();
    assert_eq!(on_vm(&vm, &memory, id::FINALIZE_VM), Err(Errno::EINVAL));
    vm.tdx_init_vm(&init_vm(), &[address_bits(48)]).unwrap();
    assert_eq!(on_vm(&vm, &memory, id::FINALIZE_VM), Ok(()));
    assert_eq!(on_vm(&vm, &memory, id::FINALIZE_VM), Err(Errno::EINVAL));
}

#[test]
fn a_vcpu_is_initialised_once_and_needs_an_x2apic() {
    let memory = SparseMemory::new();
    let vm = initialised();
    let mut vcpu = vm.create_vcpu(0, halts).unwrap();
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_VCPU), Err(Errno::EINVAL), "no x2APIC");
    vcpu.set_cpuid2(&super::cpuid(52)).unwrap();
    cmd(&memory, id::INIT_VCPU, 1);
    assert_eq!(vcpu.tdx_command(CMD, &memory), Err(Errno::EINVAL), "flags");
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_VCPU), Ok(()));
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_VCPU), Err(Errno::EINVAL));
}

#[test]
fn after_finalize_no_command_of_a_vcpu_is_taken() {
    let memory = SparseMemory::new();
    let vm = initialised();
    let mut vcpu = vcpu_of(&vm);
    vm.tdx_finalize_vm().unwrap();
    put(&memory, DATA, &InitMemRegion { source_addr: SOURCE, gpa: 0, nr_pages: 1 });
    for number in 0..8 {
        assert_eq!(on_vcpu(&mut vcpu, &memory, number), Err(Errno::EINVAL), "{number}");
    }
    assert_eq!(vcpu.tdx_get_cpuid(), Err(Errno::EINVAL));
}

#[test]
fn get_cpuid_says_how_many_entries_there_are_and_what_the_td_sees() {
    let memory = SparseMemory::new();
    let vm = initialised();
    let mut vcpu = vm.create_vcpu(0, halts).unwrap();
    let entries = vcpu.tdx_get_cpuid().unwrap();
    put(&memory, DATA, &[3u32, 9]);
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::GET_CPUID), Err(Errno::E2BIG));
    assert_eq!(get::<[u32; 2]>(&memory, DATA), [count(&entries), 9]);
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::GET_CPUID), Ok(()), "now there is room");
    assert_eq!(get::<CpuidEntry2>(&memory, DATA + 8), entries[0]);
    assert_eq!(entries[0].ebx, u32::from_le_bytes(*b"Genu"));
    let widths = entries.iter().find(|entry| entry.function == 0x8000_0008).unwrap();
    assert_eq!(widths.eax >> 16 & 0xff, 48);
}

fn region(source_addr: u64, gpa: u64, nr_pages: u64) -> InitMemRegion {
    InitMemRegion { source_addr, gpa, nr_pages }
}

#[test]
fn a_region_that_is_unaligned_empty_wraps_or_is_shared_is_refused_and_not_written_back() {
    let memory = SparseMemory::new();
    let mut vcpu = vcpu_of(&initialised());
    let bad = [
        region(SOURCE + 1, 0, 1),
        region(SOURCE, 0x800, 1),
        region(SOURCE, 0, 0),
        region(SOURCE, u64::MAX - 0xfff, 1),
        region(SOURCE, 0x1000, u64::MAX >> 12),
        region(SOURCE, 0x1000, 1 << 52),
        region(SOURCE, SHARED, 1),
        region(SOURCE, SHARED - 0x1000, 2),
    ];
    for region in bad {
        put(&memory, DATA, &region);
        assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_MEM_REGION), Err(Errno::EINVAL), "{region:x?}");
        assert_eq!(get::<InitMemRegion>(&memory, DATA), region);
    }
    put(&memory, DATA, &region(SOURCE, 0, 1));
    cmd(&memory, id::INIT_MEM_REGION, 2);
    assert_eq!(vcpu.tdx_command(CMD, &memory), Err(Errno::EINVAL), "flags");
    memory.protect(DATA, Protection::None);
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_MEM_REGION), Err(Errno::EFAULT));
}

#[test]
fn a_region_needs_a_vcpu_that_is_initialised() {
    let memory = SparseMemory::new();
    let mut vcpu = initialised().create_vcpu(0, halts).unwrap();
    put(&memory, DATA, &region(SOURCE, 0, 1));
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_MEM_REGION), Err(Errno::EINVAL));
}

#[test]
fn a_region_is_written_back_as_far_as_it_got() {
    let end = MEMORY_BYTES;
    // Behind the memory; not private; no source; not mapped; there already.
    let cases = [
        (region(SOURCE, end - 0x2000, 5), 2, Errno::EINVAL),
        (region(SOURCE, 0x10_0000, 5), 3, Errno::EINVAL),
        (region(0, 0x20_0000, 5), 0, Errno::EOPNOTSUPP),
        (region(SOURCE + 0xf_d000, 0x30_0000, 5), 3, Errno::EFAULT),
        (region(SOURCE, 0x40_0000, 5), 1, Errno::EIO),
    ];
    for (before, done, expected) in cases {
        let memory = SparseMemory::new();
        memory.protect(SOURCE + 0x10_0000, Protection::None);
        let vm = initialised();
        vm.set_memory_attributes(Gpa(0x10_3000), 0x1000, 0).unwrap();
        let mut vcpu = vcpu_of(&vm);
        vcpu.tdx_init_mem_region(&mut region(SOURCE, 0x40_1000, 1), false, &memory).unwrap();
        put(&memory, DATA, &before);
        assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_MEM_REGION), Err(expected), "{before:x?}");
        let after: InitMemRegion = get(&memory, DATA);
        let expected =
            region(before.source_addr + done * 0x1000, before.gpa + done * 0x1000, before.nr_pages - done);
        assert_eq!(after, expected);
    }
}

#[test]
fn a_signal_stops_a_region_between_two_pages_and_the_rest_can_follow() {
    let memory = SparseMemory::new();
    let vm = initialised();
    let mut vcpu = vcpu_of(&vm);
    vm.set_fault_plan(FaultPlan::new().with(Point::LaunchPage, 2, Fault::Signal));
    put(&memory, DATA, &region(SOURCE, 0x1000, 4));
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_MEM_REGION), Err(Errno::EINTR));
    assert_eq!(get::<InitMemRegion>(&memory, DATA), region(SOURCE + 0x2000, 0x3000, 2));
    assert_eq!(on_vcpu(&mut vcpu, &memory, id::INIT_MEM_REGION), Ok(()));
    assert_eq!(get::<InitMemRegion>(&memory, DATA), region(SOURCE + 0x4000, 0x5000, 0));
}

#[test]
fn a_region_needs_a_guest_memfd() {
    let memory = SparseMemory::new();
    let vm = initialised();
    let plain = exeunt_model::Slot::shared(1, Gpa(0x4000_0000), 0x1000).unwrap();
    vm.add_slot(plain).unwrap();
    vm.set_memory_attributes(Gpa(0x4000_0000), 0x1000, MEMORY_ATTRIBUTE_PRIVATE).unwrap();
    let mut vcpu = vcpu_of(&vm);
    let mut region = region(SOURCE, 0x4000_0000, 1);
    let result = vcpu.tdx_init_mem_region(&mut region, MEASURE_MEMORY_REGION != 0, &memory);
    assert_eq!(result, Err(Errno::EINVAL));
}
