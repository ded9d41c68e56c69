//! TDs and their calls.

use crate::programs::tdx;
use crate::situation::{Orders, Rewrite, Situation};
use exeunt_abi::ghci::{QUOTE_VERSION, QuoteHeader, leaf};
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::guest::tdx::map_gpa;
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_model::{Fault, FaultPlan, Point, Vm};
use zerocopy::IntoBytes;

pub(super) fn all() -> Vec<Situation> {
    let new = |name, guest| Situation::new(name, VmType::Tdx, guest);
    let quotes = Orders { quotes: true, ..Orders::default() };
    vec![
        Situation { later: Some(NEWER_CALL), ..new("td-unknown-call", |cpu| Box::pin(ask_for_a_quote(cpu))) },
        Situation { orders: quotes, ..new("td-get-quote", |cpu| Box::pin(ask_for_quotes(cpu))) },
        Situation { orders: quotes, ..new("td-event-notify", |cpu| Box::pin(choose_vectors(cpu))) },
        Situation {
            prepare: Some(short_once),
            ..new("td-conversion-again", |cpu| Box::pin(tdx::convert(cpu)))
        },
    ]
}

/// The first leaf that is free.
const UNKNOWN_CALL: u64 = 0x1_0005;
/// Where `kvm_run.tdx.nr` is in the union.
const NR_OFFSET: usize = 8;

/// A newer kernel forwards one more call, with an answer in place as `api.rst` promises.
const NEWER_CALL: Rewrite = |_, _, page| {
    if page.reason() == ExitReason::TDX {
        page.set_bytes(NR_OFFSET, &UNKNOWN_CALL.to_le_bytes());
    }
};

/// There is no memory for a change of attributes, once.
fn short_once(vm: &Vm) {
    vm.set_fault_plan(FaultPlan::new().with(Point::AttributeChange, 0, Fault::Fails(Errno::ENOMEM)));
}

/// A buffer that the TD has made shared.
const SHARED: Gpa = Gpa(0x30_0000);

async fn ask_for_a_quote(cpu: Cpu) -> Result<(), GuestFault> {
    let info = cpu.tdg_vp_info().await?;
    cpu.tdvmcall(leaf::GET_QUOTE, [info.shared(SHARED), 0x2000, 0, 0]).await.map(|_| ())
}

/// Buffers that start within a page, are no whole pages, are empty, lie outside of memory, wrap, or are private; then a good one.
async fn ask_for_quotes(cpu: Cpu) -> Result<(), GuestFault> {
    let info = cpu.tdg_vp_info().await?;
    map_gpa(&cpu, info.shared(SHARED), 0x4000).await?;
    let request = QuoteHeader { version: QUOTE_VERSION, status: 0, in_len: 1024, out_len: 0 };
    cpu.write(SHARED, request.as_bytes(), Access::Shared).await?;
    for (gpa, bytes) in [
        (SHARED.0 + 0x10, 0x2000),
        (SHARED.0, 0x1800),
        (SHARED.0, 0),
        (0x4000_0000, 0x2000),
        (SHARED.0, u64::MAX - 0xfff),
        (0x50_0000, 0x2000),
        (SHARED.0, 0x2000),
    ] {
        cpu.tdvmcall(leaf::GET_QUOTE, [info.shared(Gpa(gpa)), bytes, 0, 0]).await?;
    }
    Ok(())
}

/// The first vector, one between, the last, and those next to them, which KVM refuses by itself.
async fn choose_vectors(cpu: Cpu) -> Result<(), GuestFault> {
    for vector in [31, 32, 64, 255, 256] {
        cpu.tdvmcall(leaf::SETUP_EVENT_NOTIFY_INTERRUPT, [vector, 0, 0, 0]).await?;
    }
    Ok(())
}
