//! The same seeds lead to the same bytes.

use crate::world::{DATA, GHCB, launched, registered};
use exeunt_abi::ghcb::psc::Entry;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::run::{ExitReason, MemoryFault};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Gpa, PAGE_SIZE};
use exeunt_model::Rng;
use exeunt_model::guest::snp::page_at;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_proto::exit::Entered;
use exeunt_proto::ghcb::MsrRequest;
use exeunt_proto::host::Vcpu as _;
use zerocopy::IntoBytes;

/// A guest that does what the seed says.
async fn erratic(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = registered(&cpu).await?;
    loop {
        let gpa = page_at(DATA, cpu.random() % 16);
        let operation = if cpu.random() % 2 == 0 { 1 } else { 2 };
        match cpu.random() % 6 {
            0 => _ = cpu.vmgexit(MsrRequest::psc(gpa.gfn(), operation)).await?,
            1 => {
                let entries = [0, 1, 2].map(|step| {
                    let gfn = gpa.gfn().0 + step * (cpu.random() % 2 + 1);
                    Entry::new(gfn, operation, false)
                });
                ghcb.page_state_change(&cpu, &entries).await?;
            }
            2 => _ = cpu.vmgexit(MsrRequest::terminate(1, 7)).await?,
            3 => _ = cpu.pvalidate(gpa, cpu.random() % 2 == 0).await,
            4 => _ = cpu.write(gpa, &cpu.random().to_le_bytes(), Access::Private).await,
            _ => cpu.hlt().await,
        }
    }
}

/// Runs the guest against a VMM that answers by chance, and returns each result with its page.
fn history(guest_seed: u64, vmm_seed: u64) -> Vec<(Entered, Vec<u8>)> {
    let vm = launched(Dialect::Linux7_2, VmType::Snp);
    let mut rng = Rng::new(vmm_seed);
    let mut vcpu = vm.create_vcpu(guest_seed, erratic).unwrap();
    let mut history = Vec::new();
    for _ in 0..500 {
        let entered = if rng.below(8) == 0 { vcpu.enter_immediately() } else { vcpu.enter() };
        history.push((entered, vcpu.page().as_bytes().to_vec()));
        match vcpu.page().reason() {
            ExitReason::MEMORY_FAULT => {
                let fault: MemoryFault = vcpu.page().payload();
                vm.set_memory_attributes(Gpa(fault.gpa), fault.size, fault.flags).unwrap();
            }
            ExitReason::HYPERCALL => {
                let ret = [0u64, 0, 11, 22][usize::try_from(rng.below(4)).unwrap()];
                vcpu.page_mut().set_bytes(56, &ret.to_le_bytes());
                let attributes = rng.below(2) * MEMORY_ATTRIBUTE_PRIVATE;
                vm.set_memory_attributes(page_at(DATA, rng.below(16)), PAGE_SIZE, attributes).unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(vm.page_state(GHCB.gfn()), exeunt_proto::conversion::PageState::Shared);
    history
}

#[test]
fn the_same_seeds_lead_to_the_same_run_pages() {
    for seed in 0..8 {
        assert_eq!(history(seed, 1), history(seed, 1), "seed {seed}");
    }
}

#[test]
fn another_seed_of_guest_or_vmm_leads_elsewhere() {
    let first = history(1, 1);
    assert_ne!(first, history(2, 1));
    assert_ne!(first, history(1, 2));
    let reasons =
        |wanted: ExitReason| first.iter().filter(|(_, page)| page[8..12] == wanted.0.to_le_bytes()).count();
    for reason in [ExitReason::HYPERCALL, ExitReason::SYSTEM_EVENT, ExitReason::MEMORY_FAULT, ExitReason::HLT]
    {
        assert!(reasons(reason) > 0, "the guest never led to {reason}");
    }
}
