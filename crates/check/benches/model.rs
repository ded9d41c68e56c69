//! Question: how fast is the kernel half in software, and how much memory does a guest cost?
//!
//! Compare with the aim of 5 million exits a second on one thread; each other line with the one above it.
//!
//! Unit: as printed, best of 5 runs. Command: `cargo bench -p exeunt-check --bench model`.

use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::{Policy, step};
use exeunt_abi::ghcb::msr;
use exeunt_abi::ghcb::psc::{Entry, MAX_ENTRIES, operation};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Gfn, Gpa};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_model::{Effects, Kvm, Slot, Vcpu, Vm};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::Vcpu as _;
use std::thread;
use std::time::Instant;

const RUNS: u32 = 5;
const MEMORY: u64 = 1 << 30;
const GHCB: Gpa = Gpa(0x10_0000);

/// The best of five runs, in seconds for one of `count`.
fn best(count: u32, mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() / f64::from(count)
    };
    (0..RUNS).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

/// A launched SNP guest with 1 GiB, all of it private.
fn vm() -> Vm {
    let vm = Kvm::default().create_vm(VmType::Snp).expect("a VM");
    let file = vm.create_guest_memfd(MEMORY).expect("a file");
    let slot = Slot::shared(0, Gpa(0), MEMORY).expect("a slot").with_guest_memfd(file, 0);
    vm.add_slot(slot).expect("memory");
    vm.sev_init2(2).expect("init");
    vm.launch().expect("launch");
    vm.set_memory_attributes(Gpa(0), MEMORY, MEMORY_ATTRIBUTE_PRIVATE).expect("attributes");
    vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12).expect("a capability");
    vm
}

fn policy() -> Policy {
    let range = PageRange::new(Gfn(0), MEMORY / 4096).expect("a range");
    Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }]).expect("one slot"))
}

/// Makes a page private and shared again, by the MSR protocol, for ever.
async fn convert_by_msr(cpu: Cpu) -> Result<(), GuestFault> {
    loop {
        for operation in [operation::SHARED, operation::PRIVATE] {
            cpu.vmgexit(MsrRequest::psc(Gfn(0x8000 + cpu.id()), operation)).await?;
        }
    }
}

/// Makes as many entries shared and private as one request can hold, for ever.
async fn convert_by_page(cpu: Cpu, entry: fn(u64, u8) -> Entry) -> Result<(), GuestFault> {
    cpu.vmgexit(MsrRequest::psc(GHCB.gfn(), operation::SHARED)).await?;
    cpu.vmgexit(GHCB.0 | msr::REGISTER_GPA_REQUEST).await?;
    let ghcb = Ghcb::at(GHCB);
    loop {
        for operation in [operation::SHARED, operation::PRIVATE] {
            let entries: Vec<Entry> = (0..MAX_ENTRIES).map(|index| entry(index, operation)).collect();
            ghcb.page_state_change(&cpu, &entries).await?;
            cpu.hlt().await;
        }
    }
}

/// Exits per second of `threads` vCPUs, each on its own thread.
fn exits_per_second(vcpus: &mut [(Vcpu, Effects)]) -> f64 {
    const EXITS: u32 = 500_000;
    let policy = policy();
    let threads = u32::try_from(vcpus.len()).expect("few threads");
    let seconds = best(EXITS * threads, || {
        thread::scope(|scope| {
            for (vcpu, host) in vcpus.iter_mut() {
                let policy = &policy;
                scope.spawn(move || {
                    for _ in 0..EXITS {
                        step(vcpu, host, policy).expect("an exit");
                    }
                });
            }
        });
    });
    1.0 / seconds
}

fn vcpu(vm: &Vm) -> (Vcpu, Effects) {
    (vm.create_vcpu(1, convert_by_msr).expect("a vCPU"), vm.effects())
}

/// Requests by page until the guest halts after each. Returns seconds for one request.
fn request_seconds(entry: fn(u64, u8) -> Entry) -> f64 {
    const REQUESTS: u32 = 400;
    let vm = vm();
    let policy = policy();
    let mut vcpu = vm.create_vcpu(1, move |cpu| convert_by_page(cpu, entry)).expect("a vCPU");
    let mut host = vm.effects();
    best(REQUESTS, || {
        for _ in 0..REQUESTS {
            while step(&mut vcpu, &mut host, &policy).is_ok() {}
            assert_eq!(vcpu.page().reason(), ExitReason::HLT, "the request is done");
        }
    })
}

fn exits() {
    let one = exits_per_second(&mut [vcpu(&vm())]);
    println!("exits/1 thread            {:9.2} million/s", one / 1e6);
    let two_vms = exits_per_second(&mut [vcpu(&vm()), vcpu(&vm())]);
    println!("exits/2 VMs, 2 threads    {:9.2} million/s, {:.2} of 1 thread", two_vms / 1e6, two_vms / one);
    let vm = vm();
    let one_vm = exits_per_second(&mut [vcpu(&vm), vcpu(&vm)]);
    println!("exits/1 VM, 2 threads     {:9.2} million/s, {:.2} of 1 thread", one_vm / 1e6, one_vm / one);
}

fn page_state_changes() {
    let entries = f64::from(u32::try_from(MAX_ENTRIES).expect("few entries"));
    let line = |name: &str, seconds: f64, pages: f64, exits: u64| {
        println!("psc/{name:<21} {:9.2} million pages/s, {exits} exits a request", pages / seconds / 1e6);
    };
    let apart = request_seconds(|index, operation| Entry::new(0x1000 + 2 * index, operation, false));
    line("253 pages apart", apart, entries, MAX_ENTRIES);
    let row = request_seconds(|index, operation| Entry::new(0x1000 + index, operation, false));
    line("253 pages in a row", row, entries, 1);
    let huge = request_seconds(|index, operation| Entry::new(0x1000 + 512 * index, operation, true));
    line("253 x 2 MiB in a row", huge, entries * 512.0, 1);
}

fn main() {
    exits();
    page_state_changes();
}
