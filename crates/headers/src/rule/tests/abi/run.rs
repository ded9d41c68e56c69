//! `kvm_run` and the members of its exit union.

use super::{ALIGNED, EVERYWHERE, LP64, NEWEST, Ours, ours};
use crate::target::Target;
use exeunt_abi::kvm::run;

const I386: &[Target] = &[Target::I386];

/// The registry begins at 5.10 and its proposals of 2022 at 5.17.
const V5_17: &str = "linux-5.17";

pub(super) fn exits() -> Vec<Ours> {
    ours! {
        Whole NEWEST EVERYWHERE "kvm_run.io" = run::Io { direction, size, port, count, data_offset }
        Whole NEWEST EVERYWHERE "kvm_run.hypercall" = run::Hypercall {
            nr, args, ret, flags: ["flags" "longmode"],
        }
        Whole NEWEST EVERYWHERE "kvm_run.mmio" = run::Mmio { phys_addr, data, len, is_write, pad: [] }
        Whole NEWEST ALIGNED "kvm_run.fail_entry" = run::FailEntry {
            hardware_entry_failure_reason, cpu, pad: [],
        }
        Whole NEWEST EVERYWHERE "kvm_run.internal" = run::InternalError { suberror, ndata, data }
        Whole NEWEST EVERYWHERE "kvm_run.emulation_failure" = run::EmulationFailure {
            suberror, ndata, flags, insn_size, insn_bytes,
        }
        Whole NEWEST EVERYWHERE "kvm_run.msr" = run::X86Msr { error, pad, reason, index, data }
        Whole NEWEST LP64 "kvm_run.riscv_sbi" = run::RiscvSbi { extension_id, function_id, args, ret }
        Whole NEWEST EVERYWHERE "kvm_run.notify" = run::Notify { flags }
        Whole NEWEST EVERYWHERE "kvm_run.memory_fault" = run::MemoryFault { flags, gpa, size }
        Whole NEWEST EVERYWHERE "kvm_run.snp_req_certs" = run::SnpReqCerts { gpa, npages, ret }
        Whole "vmgexit-v10" EVERYWHERE "kvm_run.vmgexit" = run::VmgexitV10 { ghcb_msr, ret }
        Whole "coco-v1" EVERYWHERE "kvm_run.coco" = run::CocoV1 {
            nr, pad0, gfn: ["req_certs.gfn"], npages: ["req_certs.npages"], ret: ["req_certs.ret"],
        }
    }
}

pub(super) fn system_events() -> Vec<Ours> {
    ours! {
        Whole NEWEST EVERYWHERE "kvm_run.system_event" = run::SystemEvent {
            event_type: ["type"], ndata, data: ["data" "flags"],
        }
        Whole V5_17 ALIGNED "kvm_run.system_event" = run::SystemEventV5_17 {
            event_type: ["type"], pad: [], flags,
        }
        Whole V5_17 I386 "kvm_run.system_event" = run::SystemEventV5_17Ilp32 { event_type: ["type"], flags }
        Whole "sev-term-v4.1" EVERYWHERE "kvm_run.system_event" = run::SystemEventV4_1 {
            event_type: ["type"], ndata, data,
        }
        Whole "sev-term-alternative" EVERYWHERE "kvm_run.system_event" = run::SystemEventV4_1 {
            event_type: ["type"], ndata, data,
        }
        Whole "sev-term-v4.1-doc" EVERYWHERE "kvm_run.system_event" = run::SystemEventQueued {
            event_type: ["type"], ndata, flags, data,
        }
    }
}

pub(super) fn parts() -> Vec<Ours> {
    ours! {
        Part NEWEST EVERYWHERE "kvm_run" = run::RunPage {
            user: ["request_interrupt_window" "immediate_exit" "padding1"],
            exit_reason, ready_for_interrupt_injection, if_flag, flags, cr8, apic_base, exit: ["padding"],
        }
        Part NEWEST EVERYWHERE "kvm_run.tdx" = run::Tdx { flags, nr, ret: ["unknown.ret"], data: ["unknown.data"] }
        Part NEWEST EVERYWHERE "kvm_run.tdx" = run::TdxGetQuote {
            flags, nr, ret: ["get_quote.ret"], gpa: ["get_quote.gpa"], size: ["get_quote.size"],
        }
        Part NEWEST EVERYWHERE "kvm_run.tdx" = run::TdxGetTdVmCallInfo {
            flags, nr, ret: ["get_tdvmcall_info.ret"], leaf: ["get_tdvmcall_info.leaf"],
            r11: ["get_tdvmcall_info.r11"], r12: ["get_tdvmcall_info.r12"],
            r13: ["get_tdvmcall_info.r13"], r14: ["get_tdvmcall_info.r14"],
        }
        Part NEWEST EVERYWHERE "kvm_run.tdx" = run::TdxSetupEventNotify {
            flags, nr, ret: ["setup_event_notify.ret"], vector: ["setup_event_notify.vector"],
        }
    }
}
