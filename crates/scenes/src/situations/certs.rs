//! SNP guests that ask for certificates.

use crate::programs::certificates;
use crate::situation::{Orders, Situation};
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
        new("certs-no-room", |cpu| Box::pin(certificates::grow_the_buffer(cpu))),
        new("certs-wild-buffer", |cpu| Box::pin(wild_buffers(cpu))),
        new("certs-private-buffer", |cpu| Box::pin(private_buffer(cpu))),
        new("certs-locked", |cpu| Box::pin(certificates::once(cpu))),
        Situation { busy_locks: u32::MAX, ..new("certs-busy", |cpu| Box::pin(certificates::once(cpu))) },
        new("certs-installed", |cpu| Box::pin(certificates::once(cpu))),
        new("certs-renewed", |cpu| Box::pin(twice(cpu))),
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
