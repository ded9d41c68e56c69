//! The members of the exit union.

use super::super::dump::Dump;
use super::super::explanation::{Explanation, Field, unknown_bits};
use super::super::input::Input;
use super::super::{exits, ghcb_msr, map_gpa};
use super::{UNION, system_event};
use exeunt_abi::CertsForm;
use exeunt_abi::ghci::{Status, leaf};
use exeunt_abi::kvm::run::{
    ExitReason, HYPERCALL_LONG_MODE, MAP_GPA_RANGE, MEMORY_EXIT_FLAG_PRIVATE, NOTIFY_CONTEXT_INVALID,
    RunPage, msr_exit_reason, suberror,
};
use exeunt_abi::{Errno, Kernel};
use exeunt_proto::conversion::map_gpa_range;
use exeunt_proto::exit::{Exit, Hypercall, InternalError, Io, MemoryFault, Mmio, Tdx, TdxCall};
use zerocopy::IntoBytes;

/// Adds what the exit says: title, fields, advice.
pub(super) fn describe(to: &mut Explanation, exit: &Exit, page: &RunPage, input: &Input, kernel: Kernel) {
    let dump = Dump(page.as_bytes());
    let reason = page.reason();
    to.advice = exits::about(reason, kernel.dialect).advice.into();
    let name = exits::name(reason, kernel.dialect);
    let says = match exit {
        Exit::Io(io) => self::io(to, dump, *io, input),
        Exit::Mmio(mmio) => self::mmio(to, dump, *mmio),
        Exit::Hypercall(call) => hypercall(to, dump, call, kernel),
        Exit::FailEntry(fail) => {
            to.fields.push(dump.hex64(UNION, "hardware_entry_failure_reason", "the vendor's exit code"));
            to.fields.push(Field::at(0x28, "cpu", fail.cpu.to_string(), "the host CPU"));
            format!("the guest cannot be entered, reason {:#x}", fail.reason)
        }
        Exit::InternalError(error) => internal(to, error),
        Exit::SystemEvent(event) => system_event::describe(to, dump, event, kernel),
        Exit::Notify { flags } => {
            to.fields.push(dump.hex32(UNION, "flags", "bit 0: the context is invalid"));
            to.reserved.extend(unknown_bits(u64::from(*flags), u64::from(NOTIFY_CONTEXT_INVALID)));
            let is_invalid = flags & NOTIFY_CONTEXT_INVALID != 0;
            let what = if is_invalid { "the vCPU must not be entered again" } else { "the vCPU can go on" };
            format!("no event window for too long; {what}")
        }
        Exit::MemoryFault(fault) => memory_fault(to, dump, fault),
        Exit::SnpReqCerts(_) => certs(to, dump, kernel),
        Exit::Vmgexit { ghcb_msr } => vmgexit(to, dump, *ghcb_msr),
        Exit::Tdx(call) => tdx(to, dump, call),
        Exit::Rdmsr(read) => msr(to, dump, &read.to_string()),
        Exit::Wrmsr(write) => msr(to, dump, &write.to_string()),
        Exit::Other(_) => {
            to.fields.extend(raw(reason, dump));
            exits::about(reason, kernel.dialect).meaning.to_string()
        }
        _ => exits::about(reason, kernel.dialect).meaning.to_string(),
    };
    to.title = format!("{name}: {says}");
}

/// The union in rows of 16 bytes, without those of zeroes: what is left if nothing is known.
pub(super) fn raw(reason: ExitReason, dump: Dump<'_>) -> Vec<Field> {
    let rows = (0..16).map(|row| UNION + 16 * row);
    let filled = rows.filter(|offset| dump.slice(*offset, 16).iter().any(|byte| *byte != 0));
    filled.map(|offset| dump.run(offset, 16, "bytes", format!("of the union, exit {}", reason.0))).collect()
}

fn io(to: &mut Explanation, dump: Dump<'_>, io: Io, input: &Input) -> String {
    let way = if io.is_out { "out: userspace takes the data" } else { "in: userspace fills the data" };
    to.fields.extend([
        dump.byte(0x20, "direction", way),
        Field::at(0x21, "size", io.size.to_string(), "of one element").unit("bytes"),
        Field::at(0x22, "port", format!("{:#x}", io.port), "the port"),
        Field::at(0x24, "count", io.count.to_string(), "more than one for string instructions")
            .unit("elements"),
        dump.hex64(0x28, "data_offset", "where the data starts, from the start of kvm_run"),
    ]);
    let range = io.data_range();
    let start = range.start + 4096;
    let data = Dump(&input.bytes).slice(start, range.len().min(64));
    if !data.is_empty() {
        to.fields.push(Dump(&input.bytes).run(start, data.len(), "data", "in the port page"));
    }
    let verb = if io.is_out { "OUT to" } else { "IN from" };
    format!("{verb} port {:#x}, {} x {} bytes", io.port, io.count, io.size)
}

fn mmio(to: &mut Explanation, dump: Dump<'_>, mmio: Mmio) -> String {
    to.fields.extend([
        dump.hex64(0x20, "phys_addr", "guest physical address"),
        dump.run(
            0x28,
            8,
            "data",
            if mmio.is_write { "the bytes written" } else { "to be filled by userspace" },
        ),
        Field::at(0x30, "len", mmio.len.to_string(), "how many of data count").unit("bytes"),
        dump.byte(0x34, "is_write", "1 for a write"),
    ]);
    let verb = if mmio.is_write { "write to" } else { "read from" };
    format!("{verb} {}, {} bytes", mmio.gpa, mmio.len)
}

fn hypercall(to: &mut Explanation, dump: Dump<'_>, call: &Hypercall, kernel: Kernel) -> String {
    let is_map_gpa = call.nr == MAP_GPA_RANGE;
    let [first, second, third, ..] = call.args;
    let args = [first, second, third];
    let name = if is_map_gpa { "KVM_HC_MAP_GPA_RANGE" } else { "no call that KVM forwards on x86" };
    to.fields.push(Field::at(0x20, "nr", call.nr.to_string(), name));
    let says = if is_map_gpa {
        let result = map_gpa_range(args);
        to.fields.extend(map_gpa::fields(args));
        to.fields.push(Field::at(0x40, "args[3..6]", "", "stale: no kernel writes them for this call"));
        to.reserved.extend(map_gpa::reserved(args));
        to.advice = map_gpa::advice(result).into();
        format!("KVM_HC_MAP_GPA_RANGE, {}", map_gpa::title(result))
    } else {
        let offsets = (0..6).map(|index| (index, 0x28 + 8 * index));
        to.fields.extend(offsets.map(|(index, at)| dump.hex64(at, &format!("args[{index}]"), "an argument")));
        to.advice = "Refuse the call with ret = -1000 (KVM_ENOSYS), never with success (HC-12).".into();
        format!("hypercall {}", call.nr)
    };
    let preset = if kernel.dialect.presets_hypercall_ret() { "preset to 0" } else { "stale on this kernel" };
    let verdict = conversion_verdict(dump.u64(0x58), kernel);
    to.fields.push(Field::at(
        0x58,
        "ret",
        dump.u64(0x58).to_string(),
        format!("the answer, {preset}: {verdict}"),
    ));
    let is_long = call.flags & HYPERCALL_LONG_MODE != 0;
    let mode = if is_long { "LONG_MODE: from 64-bit code" } else { "not from 64-bit code" };
    let stale = "; stale if an SNP page-state change made the exit";
    to.fields.push(Field::at(0x60, "flags", format!("{:#x}", call.flags), format!("{mode}{stale}")));
    says
}

fn conversion_verdict(ret: u64, kernel: Kernel) -> &'static str {
    match (ret, kernel.dialect.checks_conversion_ret()) {
        (0, _) => "done",
        (22, _) => "EINVAL, the request is refused",
        (11, _) => "EAGAIN, which a TD retries and an SNP guest dies of (TD-4)",
        (_, true) => {
            "illegal: the next KVM_RUN fails with EINVAL, if the request is a page-state change (HC-2)"
        }
        (_, false) => "an error for the guest, like any value but 0",
    }
}

fn internal(to: &mut Explanation, error: &InternalError) -> String {
    let name = suberror::name(error.suberror).unwrap_or("no suberror that is known");
    to.fields.push(Field::at(0x20, "suberror", error.suberror.to_string(), name));
    to.fields
        .push(Field::at(0x24, "ndata", error.data.count.to_string(), "valid words of data").unit("words"));
    if error.data.count > 16 {
        to.reserved.push(format!("ndata is {}: there are 16 words, and no more are read", error.data.count));
    }
    let emulation = error.emulation();
    for (index, word) in error.data.as_slice().iter().enumerate() {
        let meaning = match (error.suberror, index) {
            (suberror::UNEXPECTED_EXIT_REASON, 0) => "the hardware's exit code, which has no handler",
            (suberror::UNEXPECTED_EXIT_REASON, 1) | (suberror::DELIVERY_EV, 4) => "the host CPU",
            (suberror::DELIVERY_EV, 0) => "the event that was delivered",
            (suberror::DELIVERY_EV, 1) => "the hardware's exit reason",
            (suberror::DELIVERY_EV, 2) => "its qualification",
            (suberror::DELIVERY_EV, 3) => "guest physical address",
            (suberror::EMULATION, 0) => "emulation_failure.flags: bit 0 = the instruction is there",
            (suberror::EMULATION, 1 | 2) if emulation.is_some_and(|it| it.instruction.is_some()) => {
                "the instruction"
            }
            (suberror::EMULATION, _) => "the hardware's exit information",
            _ => "unknown",
        };
        to.fields.push(Field::at(0x28 + 8 * index, format!("data[{index}]"), format!("{word:#x}"), meaning));
    }
    match emulation.and_then(|it| it.instruction) {
        Some(instruction) => format!("the emulator cannot do the instruction {instruction:?}"),
        None => format!("suberror {} ({name})", error.suberror),
    }
}

fn memory_fault(to: &mut Explanation, dump: Dump<'_>, fault: &MemoryFault) -> String {
    to.fields.extend([
        dump.hex64(0x20, "flags", if fault.private { "bit 3: a private access" } else { "a shared access" }),
        dump.hex64(0x28, "gpa", "start of the range"),
        dump.hex64(0x30, "size", "length of the range").unit("bytes"),
    ]);
    to.reserved
        .extend(unknown_bits(dump.u64(0x20), MEMORY_EXIT_FLAG_PRIVATE).map(|what| format!("{what} (MF-2)")));
    let how = if fault.private { "private" } else { "shared" };
    if fault.poisoned {
        return format!("a {how} access to a poisoned page at {}", fault.gpa);
    }
    format!("a {how} access to {:#x} bytes at {} that do not fit it", fault.size, fault.gpa)
}

fn certs(to: &mut Explanation, dump: Dump<'_>, kernel: Kernel) -> String {
    if kernel.dialect.certs_form() == CertsForm::Coco {
        to.fields.extend([
            dump.byte(0x20, "nr", "REQ_CERTS"),
            dump.hex64(0x28, "gfn", "where the guest wants the table: a frame number"),
            Field::at(0x30, "npages", dump.u32(0x30).to_string(), "of the guest's buffer")
                .unit("4 KiB pages"),
            dump.hex32(0x34, "ret", "the answer: 0, 1 (too small) or 0x80000000"),
        ]);
        to.reserved.extend(dump.not_zero(0x21, 7, "padding"));
        return format!("certificates wanted at frame {:#x}, {} pages", dump.u64(0x28), dump.u32(0x30));
    }
    let (gpa, npages, ret) = (dump.u64(0x20), dump.u64(0x28), dump.u64(0x30));
    let verdict = match ret {
        0 => "0, as preset: the table is installed".to_string(),
        11 | 28 | 5 => {
            let errno = i32::try_from(ret).map(Errno).map(|errno| errno.to_string()).unwrap_or_default();
            format!("{errno}, a legal answer")
        }
        _ => "illegal: the next KVM_RUN fails with EINVAL (RC-3)".to_string(),
    };
    to.fields.extend([
        dump.hex64(0x20, "gpa", "where the guest wants the table; only its alignment was checked (RC-1)"),
        Field::at(0x28, "npages", npages.to_string(), "of the guest's buffer, unchecked (RC-1)")
            .unit("4 KiB pages"),
        Field::at(0x30, "ret", ret.to_string(), verdict),
    ]);
    if gpa % 4096 != 0 {
        to.reserved.push(format!("gpa {gpa:#x} is not page aligned, which KVM refuses"));
    }
    format!("certificates wanted at {gpa:#x}, {npages} pages")
}

fn vmgexit(to: &mut Explanation, dump: Dump<'_>, msr: u64) -> String {
    let text = format!("{msr:#x}");
    let inner = ghcb_msr::explain(&text).map(|explanation| explanation.title).unwrap_or_default();
    to.fields.push(dump.hex64(0x20, "ghcb_msr", inner.clone()));
    to.fields.push(dump.hex64(0x28, "ret", "the answer, stale before: SW_EXITINFO2 for a page request"));
    inner
}

fn tdx(to: &mut Explanation, dump: Dump<'_>, call: &Tdx) -> String {
    let nr = dump.u64(0x28);
    to.fields.extend([
        dump.hex64(0x20, "flags", "no flag exists"),
        dump.hex64(0x28, "nr", leaf::name(nr).unwrap_or("no leaf that is known here")),
        dump.hex64(0x30, "ret", format!("the answer, preset by KVM: {}", Status(dump.u64(0x30)))),
    ]);
    to.reserved.extend(unknown_bits(call.flags, 0).map(|what| format!("flags: {what}")));
    let names: &[&str] = match call.call {
        TdxCall::GetQuote { .. } => &["gpa", "size"],
        TdxCall::GetTdVmCallInfo { .. } => &["leaf", "r11", "r12", "r13", "r14"],
        TdxCall::SetupEventNotify { .. } => &["vector"],
        _ => &["data[0]", "data[1]", "data[2]", "data[3]", "data[4]"],
    };
    let meanings = |name: &str| match name {
        "gpa" => "the buffer, without the shared bit; unchecked (TD-2)",
        "size" => "of the buffer in bytes; unchecked (TD-2)",
        "leaf" => "what is asked for",
        "r11" => "answer: bits of the calls that userspace implements",
        "vector" => "32 to 255 (TD-3)",
        _ => "",
    };
    to.fields
        .extend(names.iter().zip((0x38..).step_by(8)).map(|(name, at)| dump.hex64(at, name, meanings(name))));
    call.to_string()
}

fn msr(to: &mut Explanation, dump: Dump<'_>, says: &str) -> String {
    let why = msr_exit_reason::name(dump.u32(0x28)).unwrap_or("no reason that is known");
    to.fields.extend([
        dump.byte(0x20, "error", "the answer: not 0 raises #GP"),
        dump.hex32(0x28, "reason", why),
        dump.hex32(0x2c, "index", "the register"),
        dump.hex64(0x30, "data", "the value"),
    ]);
    says.to_string()
}
