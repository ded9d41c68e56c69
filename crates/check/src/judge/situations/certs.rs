//! SNP guests that ask for certificates.

use crate::judge::situation::{Orders, Situation};
use crate::programs::certificates;
use exeunt_abi::Gpa;
use exeunt_abi::ghcb::psc::operation;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_model::guest::{Cpu, GuestFault};
use exeunt_proto::ghcb::MsrRequest;

pub(super) fn all() -> Vec<Situation> {
    let new = |name, guest| Situation {
        orders: Orders { certificates: true, ..Orders::default() },
        ..Situation::new(name, VmType::Snp, guest)
    };
    vec![
        new("certs-no-room", |vm, seed| vm.create_vcpu(seed, certificates::grow_the_buffer)),
        new("certs-wild-buffer", |vm, seed| vm.create_vcpu(seed, wild_buffers)),
        new("certs-private-buffer", |vm, seed| vm.create_vcpu(seed, private_buffer)),
        new("certs-locked", |vm, seed| vm.create_vcpu(seed, certificates::once)),
        Situation {
            busy_locks: u32::MAX,
            ..new("certs-busy", |vm, seed| vm.create_vcpu(seed, certificates::once))
        },
        new("certs-installed", |vm, seed| vm.create_vcpu(seed, certificates::once)),
        new("certs-renewed", |vm, seed| vm.create_vcpu(seed, twice)),
    ]
}

/// More pages than there are, so many that their end wraps, and a place where there is no memory.
async fn wild_buffers(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = certificates::set_up(&cpu).await?;
    // The last page of memory, so that only a part of the buffer is behind the end.
    cpu.vmgexit(MsrRequest::psc(Gpa(0xff_f000).gfn(), operation::SHARED)).await?;
    for (gpa, pages) in [(0xff_f000, 4), (0x10_2000, 1 << 52), (0x4000_0000, 4)] {
        certificates::ask_at(&cpu, &ghcb, Gpa(gpa), pages).await?;
    }
    Ok(())
}

/// A buffer that was never shared.
async fn private_buffer(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = certificates::set_up(&cpu).await?;
    certificates::ask_at(&cpu, &ghcb, Gpa(0x20_0000), 4).await.map(|_| ())
}

/// Two requests, between which the certificates are renewed.
async fn twice(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = certificates::set_up(&cpu).await?;
    for _ in 0..2 {
        certificates::ask(&cpu, &ghcb, certificates::BUFFER_PAGES).await?;
    }
    Ok(())
}
