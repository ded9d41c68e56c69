//! Guests that change the state of their pages.

use super::runs::start_the_second;
use crate::conversions::{Converter, touch};
use crate::situation::{Orders, Part, Rewrite, Situation, Task};
use exeunt_abi::ghcb::psc::{Entry, operation};
use exeunt_abi::kvm::run::{ExitReason, Hypercall};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Dialect, Errno, Gfn, Gpa};
use exeunt_model::guest::snp::{Ghcb, page_at};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Fault, FaultPlan, Point, Vm};
use exeunt_proto::ghcb::MsrRequest;

pub(super) fn all() -> Vec<Situation> {
    let mut all = asked_by_hypercall();
    all.extend(asked_by_ghcb());
    all
}

fn asked_by_hypercall() -> Vec<Situation> {
    let new = |name, guest| Situation::new(name, VmType::SwProtected, guest);
    vec![
        Situation {
            later_hypercalls: 1 << NEWER_HYPERCALL,
            ..new("later-hypercalls", |cpu| Box::pin(repeated(cpu)))
        },
        new("conversion-with-hints", |cpu| Box::pin(with_hints(cpu))),
        new("conversion-too-long", |cpu| Box::pin(too_long(cpu))),
        new("conversion-there-and-back", |cpu| Box::pin(there_and_back(cpu))),
        Situation { memory: PIECES.into(), ..new("conversion-over-slots", |cpu| Box::pin(over_slots(cpu))) },
        new("conversion-without-memory", |cpu| Box::pin(without_memory(cpu))),
        new("conversion-repeated", |cpu| Box::pin(repeated(cpu))),
        Situation { later: Some(RENUMBER), ..new("unknown-hypercall", |cpu| Box::pin(repeated(cpu))) },
        // Where the local APICs are in the kernel the second one waits for its start.
        Situation {
            vcpus: 2,
            prepare: Some(start_the_second),
            ..new("conversions-that-overlap", |cpu| Box::pin(overlapping(cpu)))
        },
    ]
}

fn asked_by_ghcb() -> Vec<Situation> {
    let new = |name, guest| Situation::new(name, VmType::Snp, guest);
    vec![
        Situation {
            prepare: Some(fail_changes),
            ..new("conversion-that-fails", |cpu| Box::pin(until_it_is(cpu)))
        },
        new("conversion-on-6.12", |cpu| Box::pin(page_by_page(cpu))).on(Dialect::Linux6_12, Arch::X86),
        new("conversion-unaligned", |cpu| Box::pin(unaligned(cpu))).on(Dialect::VmgexitV10, Arch::X86),
        Situation {
            orders: Orders { task: Task::SaveAfter(2), ..Orders::default() },
            ..new("snapshot-in-a-conversion", |cpu| Box::pin(in_pieces(cpu)))
        },
    ]
}

/// Two slots of 4 and 2 MiB with a hole between them, and one of 1 MiB that has no private half.
const PIECES: &[Part] = &[
    Part { gpa: 0, bytes: 0x40_0000, has_private: true },
    Part { gpa: 0x60_0000, bytes: 0x20_0000, has_private: true },
    Part { gpa: 0x80_0000, bytes: 0x10_0000, has_private: false },
];

/// The next number that is free.
const NEWER_HYPERCALL: u64 = 13;

/// A newer kernel forwards one more hypercall.
const RENUMBER: Rewrite = |_, _, page| {
    if page.reason() == ExitReason::HYPERCALL {
        let call: Hypercall = page.payload();
        page.set_payload(&Hypercall { nr: NEWER_HYPERCALL, ..call });
    }
};

/// Changes of attributes that the kernel has no memory for, or refuses.
fn fail_changes(vm: &Vm) {
    let plan = FaultPlan::new().with(Point::AttributeChange, 0, Fault::Fails(Errno::ENOMEM)).with(
        Point::AttributeChange,
        1,
        Fault::Fails(Errno::EIO),
    );
    vm.set_fault_plan(plan);
}

/// 2 MiB to private and back with the hint for large pages, 3 pages with it, and a bit that is reserved.
async fn with_hints(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    for (gpa, pages, attributes) in
        [(0x20_0000, 512, 0x11), (0x20_0000, 512, 0x01), (0x40_1000, 3, 0x11), (0x40_1000, 1, 0x30)]
    {
        converter.map_gpa_range(&cpu, gpa, pages, attributes).await?;
    }
    Ok(())
}

/// The last page to private; then ranges that end one page behind it, that wrap in bytes, and that are larger than all memory.
async fn too_long(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    converter.map_gpa_range(&cpu, 0xff_f000, 1, 0x10).await?;
    for (gpa, pages) in [(0xff_f000, 2), (0x1000, 1 << 52), (0, 1 << 51)] {
        for attributes in [0x10, 0] {
            converter.map_gpa_range(&cpu, gpa, pages, attributes).await?;
        }
    }
    Ok(())
}

/// Private, used, shared, used, private.
async fn there_and_back(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    let page = Gpa(0x4000);
    for (attributes, access) in [(0x10, Access::Private), (0, Access::Shared), (0x10, Access::Private)] {
        converter.map_gpa_range(&cpu, page.0, 2, attributes).await?;
        touch(&cpu, page, b"used", access).await?;
    }
    Ok(())
}

/// Private at the end of one slot and at the start of the next, then all of both shared, with what lies around.
async fn over_slots(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    for (gpa, pages, attributes) in
        [(0x3f_0000, 0x10, 0x10), (0x60_0000, 0x10, 0x10), (0x3f_0000, 0x4e0, 0), (0x3f_0000, 0x220, 0x10)]
    {
        converter.map_gpa_range(&cpu, gpa, pages, attributes).await?;
    }
    Ok(())
}

/// To shared, where a device is.
async fn without_memory(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    converter.map_gpa_range(&cpu, 0xfe00_0000, 4, 0).await.map(|_| ())
}

/// The same conversion twice, in both directions.
async fn repeated(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    for attributes in [0x10, 0x10, 0, 0] {
        converter.map_gpa_range(&cpu, 0x4000, 4, attributes).await?;
    }
    Ok(())
}

/// Ranges that overlap those of the other vCPU, in the other direction.
async fn overlapping(cpu: Cpu) -> Result<(), GuestFault> {
    let mut converter = Converter::default();
    let (gpa, attributes) = if cpu.id() == 0 { (0x4000, [0x10, 0]) } else { (0x6000, [0, 0x10]) };
    for turn in 0..6 {
        converter.map_gpa_range(&cpu, gpa, 4, attributes[turn % 2]).await?;
    }
    Ok(())
}

/// A page that is no memory to private, which is refused; then one page after the other to shared, by the MSR protocol. The
/// answer that was given first is where the next one goes.
async fn page_by_page(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.vmgexit(MsrRequest::psc(Gfn(0x8_0000), operation::PRIVATE)).await?;
    for gfn in 0x200..0x204 {
        cpu.vmgexit(MsrRequest::psc(Gfn(gfn), operation::SHARED)).await?;
    }
    Ok(())
}

/// One page to shared by the MSR protocol, until it is.
async fn until_it_is(cpu: Cpu) -> Result<(), GuestFault> {
    for _ in 0..3 {
        cpu.vmgexit(MsrRequest::psc(Gfn(0x200), operation::SHARED)).await?;
    }
    Ok(())
}

/// 2 MiB from an address on that is not aligned so.
async fn unaligned(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, Gpa(0x2000)).await?;
    ghcb.page_state_change(&cpu, &[Entry::new(Gfn(0x201).0, operation::SHARED, true)]).await.map(|_| ())
}

/// One request that takes four exits.
async fn in_pieces(cpu: Cpu) -> Result<(), GuestFault> {
    let ghcb = Ghcb::set_up(&cpu, Gpa(0x2000)).await?;
    let entries: Vec<_> = (0..4)
        .map(|index| Entry::new(page_at(Gpa(0x20_0000), 3 * index).gfn().0, operation::SHARED, false))
        .collect();
    ghcb.page_state_change(&cpu, &entries).await.map(|_| ())
}
