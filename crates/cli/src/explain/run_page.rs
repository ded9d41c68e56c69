//! `run-page`: the head of `struct kvm_run`, or its exit union alone, with the result of `KVM_RUN`.

mod payload;
mod system_event;

use super::dump::Dump;
use super::explanation::{Explanation, Field};
use super::input::Input;
use super::{Settings, errno, exits};
use crate::Failure;
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::{ExitReason, RunPage, UNION_BYTES};
use exeunt_proto::exit::{DecodeError, Exit, decode};
use std::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};

const HEAD_BYTES: usize = size_of::<RunPage>();
/// `kvm_run`, the port page and the ring of coalesced MMIO: what a vCPU's file maps on x86.
const MAX_BYTES: usize = 3 * 4096;
const UNION: usize = 0x20;

/// `run-page FILE|HEX`.
pub(super) fn explain(input: &Input, settings: &Settings) -> Result<Explanation, Failure> {
    let (page, has_head) = page(input, settings)?;
    let dialect = settings.kernel.dialect;
    let reason = page.reason();
    let is_fault = reason.0 == dialect.memory_fault_number() && dialect.has_private_memory();
    let (entered, is_assumed) = match settings.entered {
        Some(entered) => (entered, false),
        // This exit comes with no other result.
        None if is_fault => (Err(Errno::EFAULT), true),
        None => (Ok(()), false),
    };
    let bytes = page.as_bytes();
    let mut explanation = Explanation::new("run-page", &input.name, "")
        .with(result_field(entered, settings, is_assumed))
        .with_all(head(Dump(bytes), &exits::name(reason, dialect), has_head))
        .source(exits::SOURCE);
    match decode(entered, &page, settings.kernel) {
        Ok(Exit::Again(errno)) | Err(DecodeError::Failed { errno, .. }) => {
            let (meaning, _, advice) = errno::about(errno);
            explanation.title = format!("KVM_RUN failed with {errno}: {meaning}; this page is stale");
            explanation.advice = advice.into();
        }
        Err(error) => {
            explanation.title = format!(
                "{}: the kernel contradicts its own interface: {error}",
                exits::name(reason, dialect)
            );
            explanation.fields.extend(payload::raw(reason, Dump(bytes)));
            explanation.advice =
                "Nobody is there to answer: report the bytes and stop the VM. If the bytes come from \
                                  a copy, check that it was made at once after KVM_RUN (RN-3)."
                    .into();
        }
        Ok(exit) => payload::describe(&mut explanation, &exit, &page, input, settings.kernel),
    }
    Ok(explanation)
}

/// The page, made from a whole one or from its union, and whether it has a head.
fn page(input: &Input, settings: &Settings) -> Result<(RunPage, bool), Failure> {
    let Input { name, bytes, .. } = input;
    let found = bytes.len();
    match settings.reason {
        Some(reason) if found == UNION_BYTES => {
            let mut page = RunPage::zeroed();
            page.exit_reason = reason.0;
            page.set_bytes(0, bytes);
            Ok((page, false))
        }
        Some(_) if found >= HEAD_BYTES => Err(format!(
            "{name}: {found} bytes have an exit reason of their own at 0x8: --reason is for the union"
        )),
        Some(_) => {
            Err(format!("{name}: {found} bytes are not the union of kvm_run, which has {UNION_BYTES}"))
        }
        None if found > MAX_BYTES => {
            Err(format!("{name}: {found} bytes are more than a vCPU maps, which is {MAX_BYTES}"))
        }
        None if found == UNION_BYTES => Err(format!(
            "{name}: {found} bytes are the union of kvm_run alone: give the exit reason with --reason"
        )),
        None => match RunPage::read_from_prefix(bytes) {
            Ok((page, _)) => Ok((page, true)),
            Err(_) => Err(format!(
                "{name}: kvm_run ends at offset {found:#x}, and its exit union at {HEAD_BYTES:#x} ({HEAD_BYTES} bytes)"
            )),
        },
    }
}

fn result_field(entered: Result<(), Errno>, settings: &Settings, is_assumed: bool) -> Field {
    let value = match entered {
        Ok(()) => "0".to_string(),
        Err(errno) => format!("-1 {errno}"),
    };
    let meaning = match (is_assumed, settings.entered) {
        (true, _) => "assumed, since the exit comes with EFAULT or EHWPOISON alone (MF-1); give --errno",
        (_, Some(_)) => "as given",
        (_, None) => "assumed; give --errno if it failed",
    };
    Field::new("KVM_RUN", value, meaning)
}

fn head(dump: Dump<'_>, reason: &str, has_head: bool) -> Vec<Field> {
    let exit_reason = Field::at(8, "exit_reason", dump.u32(8).to_string(), reason);
    if !has_head {
        return vec![exit_reason];
    }
    let flags = match dump.u16(14) {
        0 => "none".to_string(),
        bits => {
            let names = [(1, "SMM"), (2, "BUS_LOCK"), (4, "GUEST_MODE")];
            let set = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
            format!("on x86 {}", set.collect::<Vec<_>>().join(", "))
        }
    };
    vec![
        dump.byte(1, "immediate_exit", "written by other threads and signal handlers"),
        exit_reason,
        dump.byte(12, "ready_for_interrupt", "1 if an interrupt can be injected now"),
        dump.byte(13, "if_flag", "the guest's RFLAGS.IF"),
        Field::at(14, "flags", format!("{:#x}", dump.u16(14)), flags),
        dump.hex64(16, "cr8", "with a local APIC in userspace"),
        dump.hex64(24, "apic_base", "IA32_APIC_BASE"),
    ]
}

/// Whether bytes could be the head of a run page, for inputs of which nothing is said. A page without an exit is not.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    let dump = Dump(bytes);
    let reason = dump.u32(8);
    let is_known = reason != 0 && (ExitReason(reason).name().is_some() || reason == 50);
    let is_sized = bytes.len() >= HEAD_BYTES && bytes.len() <= MAX_BYTES;
    is_sized
        && is_known
        && dump.u8(0) <= 1
        && dump.u8(1) <= 1
        && dump.u8(12) <= 1
        && dump.u8(13) <= 1
        && dump.u16(14) <= 7
        && dump.slice(2, 6).iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
