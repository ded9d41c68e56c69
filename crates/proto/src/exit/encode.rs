//! Meaning to bytes: what a kernel writes for an exit, and nothing that it leaves stale.

use super::{Entered, EventType, Exit, Hypercall, SystemEvent, msr, tdx};
use core::mem::size_of;
use exeunt_abi::kvm::run::coco_v1::REQ_CERTS;
use exeunt_abi::kvm::run::{
    self, ExitReason, MAP_GPA_RANGE, PORT_DATA_BYTES, RunPage, UNION_BYTES, sev_term_v4_1,
};
use exeunt_abi::{CertsForm, Errno, Kernel, SystemEventForm};

/// Offset of `hypercall.args` in the union.
const ARGS: usize = 8;
/// Offset of `hypercall.ret` in the union.
const RET: usize = 56;
/// Offset of `hypercall.flags` in the union.
const FLAGS: usize = 64;

/// Writes an exit as `kernel` writes it and returns what `KVM_RUN` returns with it. Bytes that this kernel does not
/// write keep their old values, because a VMM that trusts them must be seen to fail.
///
/// Source: Linux v7.2 and v6.12 `arch/x86/kvm/x86.c` and `svm/sev.c`, `arch/arm64/kvm/psci.c`; for older kernels,
/// bytes measured on 5.10 and 6.1.
///
/// # Errors
///
/// Not a failure: the error number that `KVM_RUN` brings this exit with.
pub fn encode(exit: &Exit, kernel: Kernel, page: &mut RunPage) -> Entered {
    match exit {
        Exit::Again(errno) => return Err(*errno),
        Exit::Io(io) => page.set_payload(&run::Io {
            direction: u8::from(io.is_out),
            size: io.size,
            port: io.port,
            count: io.count,
            data_offset: (PORT_DATA_BYTES as u64).saturating_add(u64::from(io.start)),
        }),
        // The padding behind it stays stale.
        Exit::Mmio(mmio) => {
            page.set_bytes(0, &mmio.gpa.0.to_le_bytes());
            page.set_bytes(8, &mmio.data);
            page.set_bytes(16, &u32::from(mmio.len).to_le_bytes());
            page.set_bytes(20, &[u8::from(mmio.is_write)]);
        }
        Exit::Hlt | Exit::Shutdown | Exit::ApResetHold => {}
        Exit::Hypercall(hypercall) => write_hypercall(hypercall, kernel, page),
        Exit::FailEntry(fail) => {
            page.set_bytes(0, &fail.reason.to_le_bytes());
            page.set_bytes(8, &fail.cpu.to_le_bytes());
        }
        Exit::InternalError(error) => {
            page.set_bytes(0, &error.suberror.to_le_bytes());
            page.set_bytes(4, &error.data.count.to_le_bytes());
            write_words(error.data.as_slice(), page);
        }
        Exit::SystemEvent(event) => write_system_event(event, kernel, page),
        Exit::Notify { flags } => page.set_payload(&run::Notify { flags: *flags }),
        Exit::MemoryFault(fault) => {
            let private = if fault.private { run::MEMORY_EXIT_FLAG_PRIVATE } else { 0 };
            let flags = private | fault.unknown_flags;
            page.set_payload(&run::MemoryFault { flags, gpa: fault.gpa.0, size: fault.size });
            page.exit_reason = kernel.dialect.memory_fault_number();
            return Err(if fault.poisoned { Errno::EHWPOISON } else { Errno::EFAULT });
        }
        Exit::SnpReqCerts(certs) if kernel.dialect.certs_form() == CertsForm::Coco => {
            // The guest's count is cut to 32 bits, as the proposal's struct does.
            let npages = u32::try_from(certs.pages & 0xffff_ffff).unwrap_or(u32::MAX);
            let gfn = certs.gpa.gfn().0;
            page.set_payload(&run::CocoV1 { nr: REQ_CERTS, pad0: [0; 7], gfn, npages, ret: 0 });
        }
        Exit::SnpReqCerts(certs) => {
            page.set_payload(&run::SnpReqCerts { gpa: certs.gpa.0, npages: certs.pages, ret: 0 });
        }
        // `ret` is not preset.
        Exit::Vmgexit { ghcb_msr } => page.set_bytes(0, &ghcb_msr.to_le_bytes()),
        Exit::Tdx(call) => tdx::encode(call, page),
        Exit::Rdmsr(read) => msr::encode(read.index, read.reason, 0, page),
        Exit::Wrmsr(write) => msr::encode(write.index, write.reason, write.value, page),
        Exit::Other(other) => page.exit = other.bytes,
    }
    if let Some(reason) = exit.reason(kernel.dialect) {
        page.exit_reason = reason.0;
    }
    Ok(())
}

/// Writes the exit of an SNP page-state change: like a hypercall, but `flags` stays stale.
///
/// `attributes` are the bits of `args[2]`.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `snp_begin_psc_msr` and `snp_do_psc`.
pub fn map_gpa_range_by_psc(gpa: u64, pages: u64, attributes: u64, kernel: Kernel, page: &mut RunPage) {
    page.exit_reason = ExitReason::HYPERCALL.0;
    write_call(MAP_GPA_RANGE, &[gpa, pages, attributes], kernel, page);
}

fn write_hypercall(hypercall: &Hypercall, kernel: Kernel, page: &mut RunPage) {
    let written = if hypercall.nr == MAP_GPA_RANGE { 3 } else { 6 };
    write_call(hypercall.nr, hypercall.args.get(..written).unwrap_or_default(), kernel, page);
    let flags = hypercall.flags.to_le_bytes();
    page.set_bytes(FLAGS, flags.get(..kernel.dialect.hypercall_flags_bytes()).unwrap_or(&flags));
}

fn write_call(nr: u64, args: &[u64], kernel: Kernel, page: &mut RunPage) {
    page.set_bytes(0, &nr.to_le_bytes());
    for (index, arg) in args.iter().enumerate() {
        page.set_bytes(ARGS.saturating_add(index.saturating_mul(8)), &arg.to_le_bytes());
    }
    if kernel.dialect.presets_hypercall_ret() {
        page.set_bytes(RET, &0u64.to_le_bytes());
    }
}

fn write_system_event(event: &SystemEvent, kernel: Kernel, page: &mut RunPage) {
    let form = kernel.dialect.system_event_form();
    if kernel.arch.clears_system_event() {
        let bytes = match form {
            SystemEventForm::Flags => size_of::<run::SystemEventV5_17>(),
            SystemEventForm::Queued => size_of::<run::SystemEventQueued>(),
            SystemEventForm::Alternative | SystemEventForm::Shipped => size_of::<run::SystemEvent>(),
        };
        page.set_bytes(0, [0; UNION_BYTES].get(..bytes).unwrap_or_default());
    }
    let (number, counts) = match (form, event.event) {
        (SystemEventForm::Shipped, event) => (event.number(), true),
        (SystemEventForm::Queued | SystemEventForm::Alternative, EventType::SevTerm) => {
            (sev_term_v4_1::SEV_TERM_WITH_DATA, true)
        }
        (SystemEventForm::Queued | SystemEventForm::Alternative, event) => {
            (event.number(), event.number() & sev_term_v4_1::NDATA_VALID != 0)
        }
        (SystemEventForm::Flags, event) => (event.number(), false),
    };
    page.set_bytes(0, &number.to_le_bytes());
    if counts {
        page.set_bytes(4, &event.data.count.to_le_bytes());
        write_words_at(if form == SystemEventForm::Queued { 2 } else { 1 }, event.data.as_slice(), page);
    } else if kernel.arch.clears_system_event() {
        write_words(&[event.data.first().unwrap_or(0)], page);
    }
}

/// Writes words behind the 8 bytes that type, suberror and count take.
fn write_words(words: &[u64], page: &mut RunPage) {
    write_words_at(1, words, page);
}

fn write_words_at(first: usize, words: &[u64], page: &mut RunPage) {
    for (index, word) in words.iter().enumerate() {
        page.set_bytes(first.saturating_add(index).saturating_mul(8), &word.to_le_bytes());
    }
}
