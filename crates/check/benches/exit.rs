//! Question: what does our half add to one exit, and how fast is the kernel half in software?
//!
//! Compare with one real `KVM_RUN`, measured in the same run where there is a `/dev/kvm`; aims: under 1 % of it, and
//! over 5 million exits a second through both halves.
//!
//! Unit: ns per exit, best of 5 runs; allocations per exit, which must be 0.
//! Command: `cargo bench -p exeunt-check --bench exit`.

mod counting_unsafe;

use counting_unsafe::allocations;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt::{Policy, step};
use exeunt_abi::kvm::run::RunPage;
use exeunt_abi::{Errno, Gfn, Gpa, Kernel};
use exeunt_model::guest::Cpu;
use exeunt_model::{Kvm, Slot};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::exit::{self, Exit, Hypercall};
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::{Action, Host};
use std::hint::black_box;
use std::time::Instant;

const RUNS: u32 = 5;

/// A host that has nothing to do.
struct NoHost;

impl Host for NoHost {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        black_box(action);
        Ok(())
    }
}

/// The best of five runs of `count` rounds, in ns per round.
fn best_ns(count: u32, mut round: impl FnMut()) -> f64 {
    let run = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..count {
            round();
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(count)
    };
    (0..RUNS).map(|_| run(&mut round)).fold(f64::INFINITY, f64::min)
}

fn policy(pages: u64) -> Policy {
    let slot = MemorySlot { range: PageRange::new(Gfn(0), pages).expect("a range"), has_private: true };
    Policy::new(GuestMemory::new([slot]).expect("one slot"))
}

/// Decode, plan, carry out on a host that has nothing to do, encode: a request for 16 pages that repeats itself, or takes
/// turns between private and shared.
fn plan_ns(attributes: [u64; 2]) -> f64 {
    let kernel = Kernel::default();
    let policy = policy(4096);
    let mut pages = attributes.map(|attributes| {
        let mut page = RunPage::zeroed();
        let call = Hypercall { nr: 12, args: [0x10_0000, 16, attributes, 0, 0, 0], flags: 1 };
        exit::encode(&Exit::Hypercall(call), kernel, &mut page).expect("an exit");
        page
    });
    let mut turn = 0;
    let mut round = || {
        turn ^= 1;
        let page = &mut pages[turn];
        let exit = exit::decode(Ok(()), black_box(page), kernel);
        let plan = policy.plan(exit.as_ref().expect("an exit")).expect("a plan");
        let answer = plan.carry_out(&mut NoHost, &mut []);
        let _ = black_box(answer).encode(kernel, page);
    };
    // The first request makes the first run.
    round();
    round();
    let before = allocations();
    let ns = best_ns(1_000_000, round);
    assert_eq!(allocations() - before, 0, "allocations in decode, plan, carry out and encode");
    ns
}

/// Makes a page private and shared again, by the MSR protocol, for ever.
async fn convert_for_ever(cpu: Cpu) -> Result<(), exeunt_model::guest::GuestFault> {
    loop {
        for operation in [1, 2] {
            cpu.vmgexit(MsrRequest::psc(Gfn(0x100), operation)).await?;
        }
    }
}

/// An SNP guest's page-state changes through both halves, effects included.
fn model_ns() -> f64 {
    use exeunt_abi::kvm::caps::Cap;
    use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
    use exeunt_abi::kvm::vm_type::VmType;
    let vm = Kvm::default().create_vm(VmType::Snp).expect("a VM");
    let file = vm.create_guest_memfd(0x100_0000).expect("a file");
    let slot = Slot::shared(0, Gpa(0), 0x100_0000).expect("a slot").with_guest_memfd(file, 0);
    vm.add_slot(slot).expect("memory");
    vm.sev_init2(2).expect("init");
    vm.launch().expect("launch");
    // As after a launch: all of the memory is private.
    vm.set_memory_attributes(Gpa(0), 0x100_0000, MEMORY_ATTRIBUTE_PRIVATE).expect("attributes");
    vm.enable_cap(Cap::EXIT_HYPERCALL, 1 << 12).expect("a capability");
    let mut vcpu = vm.create_vcpu(1, convert_for_ever).expect("a vCPU");
    let mut host = vm.effects();
    let policy = policy(4096);
    best_ns(500_000, || {
        step(&mut vcpu, &mut host, &policy).expect("an exit");
    })
}

/// One real `KVM_RUN` that exits for a `HLT`, through the same port.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn kvm_run_ns() -> Result<f64, String> {
    use exeunt_abi::kvm::vm_type::VmType;
    use exeunt_proto::host::Vcpu;
    let kvm = exeunt_linux::probe()?;
    let failed = |error: exeunt_linux::KvmError| error.to_string();
    let mut vm = kvm.create_vm(VmType::Default).map_err(failed)?;
    let guest = exeunt_linux::guests::by_name("hlt").ok_or("no guest")?;
    vm.add_memory(Gpa(0), 0x10_0000).map_err(failed)?;
    vm.write_guest(guest.load, guest.image).map_err(|errno| errno.to_string())?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed)?;
    vcpu.start(&guest).map_err(failed)?;
    Ok(best_ns(10_000, || vcpu.enter().expect("an exit")))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn kvm_run_ns() -> Result<f64, String> {
    Err("exeunt runs /dev/kvm on x86-64 Linux only".into())
}

fn main() {
    let plan = plan_ns([0x10, 0x10]);
    println!("plan/no_op           {plan:9.1} ns/exit, 0 allocations");
    let convert = plan_ns([0x10, 0]);
    println!("plan/convert         {convert:9.1} ns/exit, 0 allocations");
    let model = model_ns();
    println!("model/psc_msr        {model:9.1} ns/exit, {:.2} million exits/s", 1e3 / model);
    match kvm_run_ns() {
        Ok(kvm) => {
            println!("kvm/run_hlt          {kvm:9.1} ns/exit");
            println!("ratio plan / kvm_run {:9.4} %", plan / kvm * 100.0);
            println!("ratio convert / kvm_run {:6.4} %", convert / kvm * 100.0);
            println!("ratio model / kvm_run {:8.4} %", model / kvm * 100.0);
        }
        Err(reason) => println!("kvm/run_hlt          skipped: {reason}"),
    }
}
