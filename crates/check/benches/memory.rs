//! Question: how much memory does a guest of the model cost?
//!
//! Compare with the memory of the guest itself; aim: under 64 MiB for a guest of 1 TiB, half of it converted in steps of
//! 2 MiB.
//!
//! Unit: bytes that are allocated and not given back. Command: `cargo bench -p exeunt-check --bench memory`.

#[path = "../tests/scale/live_bytes_unsafe.rs"]
mod live_bytes_unsafe;

use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Kvm, Slot, Vm};
use exeunt_proto::host::Vcpu as _;
use live_bytes_unsafe::live_bytes;
use std::time::Instant;

const GIB: u64 = 1 << 30;
const HUGE: u64 = 2 << 20;

fn vm(bytes: u64) -> Vm {
    let vm = Kvm::default().create_vm(VmType::Snp).expect("a VM");
    let file = vm.create_guest_memfd(bytes).expect("a file");
    let slot = Slot::shared(0, Gpa(0), bytes).expect("a slot").with_guest_memfd(file, 0);
    vm.add_slot(slot).expect("memory");
    vm.sev_init2(2).expect("init");
    vm.launch().expect("launch");
    vm
}

/// Makes every second step of the guest's memory private.
fn convert_every_second(vm: &Vm, bytes: u64, step: u64) {
    for gpa in (0..bytes).step_by(usize::try_from(2 * step).expect("a step")) {
        vm.set_memory_attributes(Gpa(gpa), step, MEMORY_ATTRIBUTE_PRIVATE).expect("attributes");
    }
}

fn line(name: &str, bytes: u64, before: usize, started: Instant) {
    let used = live_bytes().saturating_sub(before) as u64;
    let per_gib = used / (bytes / GIB);
    let seconds = started.elapsed().as_secs_f64();
    println!("{name:<44} {:8} KiB, {per_gib:9} bytes per GiB of guest, {seconds:.2} s", used / 1024);
}

fn conversions(name: &str, bytes: u64, step: u64) {
    let (before, started) = (live_bytes(), Instant::now());
    let vm = vm(bytes);
    convert_every_second(&vm, bytes, step);
    line(name, bytes, before, started);
}

/// Validates the first page of each private step of the memory.
async fn touch(cpu: Cpu, bytes: u64, step: u64, write: bool) -> Result<(), GuestFault> {
    for gpa in (0..bytes).step_by(usize::try_from(2 * step).unwrap_or(usize::MAX)) {
        cpu.pvalidate(Gpa(gpa), true).await?;
        if write {
            cpu.write(Gpa(gpa), &[1; 8], Access::Private).await?;
        }
    }
    Ok(())
}

/// A checkerboard of single pages, each validated by the guest and perhaps written to.
fn checkerboard(name: &str, bytes: u64, write: bool) {
    let (before, started) = (live_bytes(), Instant::now());
    let vm = vm(bytes);
    convert_every_second(&vm, bytes, PAGE_SIZE);
    let mut vcpu = vm.create_vcpu(0, move |cpu| touch(cpu, bytes, PAGE_SIZE, write)).expect("a vCPU");
    while vcpu.enter().is_err() {}
    line(name, bytes, before, started);
}

fn main() {
    conversions("1 GiB, converted in one", GIB, GIB / 2);
    conversions("1 TiB, every second 2 MiB private", 1024 * GIB, HUGE);
    conversions("1 GiB, every second 4 KiB private", GIB, PAGE_SIZE);
    checkerboard("1 GiB, every second 4 KiB validated", GIB, false);
    checkerboard("1 GiB, every second 4 KiB written", GIB, true);
}
