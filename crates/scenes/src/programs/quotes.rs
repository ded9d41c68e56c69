//! TDs that ask for quotes, as a Linux guest does and as it does not.

use exeunt_abi::ghci::{QUOTE_VERSION, Status, leaf, quote_status};
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_model::guest::tdx::{accept_range, map_gpa};
use exeunt_model::guest::{Access, Cpu, GuestFault};
use exeunt_proto::ghci::{Quote, QuoteStatus};

/// A private page for the report.
const REPORT: Gpa = Gpa(0x20_1000);
/// Where in this page the data is that goes into the report.
const DATA_OFFSET: u64 = 0x400;
/// Each vCPU has pages of its own, so far apart.
const VCPU_BYTES: u64 = 0x40_0000;
/// Bytes of a report.
const REPORT_BYTES: usize = 1024;
/// What the TD wants to be in its report.
const REPORT_DATA: &[u8; 64] = b"what a TD wants to be in its report, 64 bytes of the TD's own. .";
/// Buffers, each of two pages.
const BUFFERS: [Gpa; 3] = [Gpa(0x30_0000), Gpa(0x30_2000), Gpa(0x30_4000)];
const BUFFER_BYTES: u64 = 2 * PAGE_SIZE;
/// The vector that says that a quote is there.
const VECTOR: u64 = 0x40;
/// The register of the local APIC that enables it, and the value that does, with vector 255 for spurious interrupts.
const SPURIOUS: u64 = 0x80f;
const APIC_ENABLED: u64 = 0x1ff;
/// How often a TD looks for its quote.
const POLLS: u32 = 50;

/// The same place in the pages of this vCPU.
fn own(cpu: &Cpu, gpa: Gpa) -> Gpa {
    Gpa(gpa.0.wrapping_add(cpu.id().wrapping_mul(VCPU_BYTES)))
}

/// Makes a buffer shared and fills it with a request.
async fn prepare(cpu: &Cpu, buffer: Gpa) -> Result<(), GuestFault> {
    let shared = cpu.tdg_vp_info().await?.shared(buffer);
    let status = map_gpa(cpu, shared, BUFFER_BYTES).await?;
    if status != Status::SUCCESS {
        cpu.saw(|| format!("{status} of MapGPA"));
    }
    let page = own(cpu, REPORT);
    let data = Gpa(page.0.wrapping_add(DATA_OFFSET));
    accept_range(cpu, page, PAGE_SIZE).await?;
    cpu.write(data, REPORT_DATA, Access::Private).await?;
    cpu.tdg_mr_report(page.0, data.0).await?;
    let report = cpu.read(page, REPORT_BYTES, Access::Private).await?;
    fill(cpu, buffer, QUOTE_VERSION, 1024, &report).await
}

/// Writes a request into a buffer.
async fn fill(cpu: &Cpu, buffer: Gpa, version: u64, in_len: u32, report: &[u8]) -> Result<(), GuestFault> {
    let head = [version.to_le_bytes().as_slice(), &[0; 8], &in_len.to_le_bytes(), &[0; 4], report].concat();
    cpu.write(buffer, &head, Access::Shared).await
}

/// `GetQuote`.
async fn get_quote(cpu: &Cpu, gpa: Gpa, size_bytes: u64) -> Result<Status, GuestFault> {
    let shared = cpu.tdg_vp_info().await?.shared(gpa);
    Ok(cpu.tdvmcall(leaf::GET_QUOTE, [shared, size_bytes, 0, 0]).await?.status())
}

/// Enables the local APIC, chooses the vector, and asks what the host says of it.
async fn set_vector(cpu: &Cpu) -> Result<(), GuestFault> {
    cpu.tdvmcall(leaf::WRMSR, [SPURIOUS, APIC_ENABLED, 0, 0]).await?;
    let info = cpu.tdvmcall(leaf::GET_TD_VM_CALL_INFO, [1, 0, 0, 0]).await?;
    let chosen = cpu.tdvmcall(leaf::SETUP_EVENT_NOTIFY_INTERRUPT, [VECTOR, 0, 0, 0]).await?;
    cpu.saw(|| format!("calls {:#x}, {} of SetupEventNotifyInterrupt", info.r11, chosen.status()));
    Ok(())
}

/// Looks at the status until it is another one than "in flight". Each look is an exit.
async fn wait(cpu: &Cpu, buffer: Gpa) -> Result<(), GuestFault> {
    let status = Gpa(buffer.0.wrapping_add(8));
    let mut polls = 0;
    while cpu.read_u64(status, Access::Shared).await? == quote_status::IN_FLIGHT && polls < POLLS {
        cpu.tdvmcall(leaf::IO, [1, 1, 0x80, 0]).await?;
        polls += 1;
    }
    cpu.saw(|| format!("{polls} polls"));
    look(cpu, buffer).await
}

/// Says what is in a buffer.
async fn look(cpu: &Cpu, buffer: Gpa) -> Result<(), GuestFault> {
    let bytes = cpu.read(buffer, usize::try_from(BUFFER_BYTES).unwrap_or(0), Access::Shared).await?;
    match Quote::parse(&bytes) {
        Ok(Quote { status: QuoteStatus::Success, quote, .. }) => {
            let is_simulated = quote.starts_with(b"SIMULATED");
            let has_data = quote.ends_with(REPORT_DATA);
            cpu.saw(|| {
                format!("a quote of {} bytes, simulated {is_simulated}, report data {has_data}", quote.len())
            });
        }
        Ok(quote) => cpu.saw(|| format!("no quote: {:?}", quote.status)),
        Err(error) => cpu.saw(|| format!("no quote: {error}")),
    }
    while let Some(vector) = cpu.take_interrupt() {
        cpu.saw(|| format!("interrupt {vector:#x}"));
    }
    Ok(())
}

/// Asks for a quote and polls for it.
pub(super) async fn one(cpu: Cpu) -> Result<(), GuestFault> {
    let buffer = own(&cpu, BUFFERS[0]);
    set_vector(&cpu).await?;
    prepare(&cpu, buffer).await?;
    let status = get_quote(&cpu, buffer, BUFFER_BYTES).await?;
    cpu.saw(|| format!("{status} of GetQuote"));
    wait(&cpu, buffer).await
}

/// Asks for a quote and sleeps until the interrupt says that it is there.
pub(super) async fn halted(cpu: Cpu) -> Result<(), GuestFault> {
    set_vector(&cpu).await?;
    prepare(&cpu, BUFFERS[0]).await?;
    let status = get_quote(&cpu, BUFFERS[0], BUFFER_BYTES).await?;
    cpu.saw(|| format!("{status} of GetQuote"));
    cpu.tdvmcall(leaf::HLT, [0; 4]).await?;
    look(&cpu, BUFFERS[0]).await
}

/// Asks for quotes into what cannot be a buffer.
pub(super) async fn refused(cpu: Cpu) -> Result<(), GuestFault> {
    let [buffer, ..] = BUFFERS;
    prepare(&cpu, buffer).await?;
    let at = |offset| Gpa(buffer.0.wrapping_add(offset));
    for (name, gpa, size_bytes) in [
        ("nothing", buffer, 0),
        ("half a page", buffer, 0x800),
        ("an address between two pages", at(0x10), PAGE_SIZE),
        ("a page too many, which is private", buffer, BUFFER_BYTES + PAGE_SIZE),
        ("more than the limit", buffer, 1 << 20),
        ("more than everything", buffer, !(PAGE_SIZE - 1)),
        ("no memory", Gpa(1 << 40), PAGE_SIZE),
    ] {
        let status = get_quote(&cpu, gpa, size_bytes).await?;
        cpu.saw(|| format!("{status} of GetQuote into {name}"));
    }
    for (name, version, in_len) in [
        ("version 2", 2, 1024),
        ("no report", 1, 0),
        ("a report that ends behind the buffer", 1, 0x1fe9),
        ("a report of 4 GiB", 1, u32::MAX),
    ] {
        fill(&cpu, buffer, version, in_len, &[]).await?;
        let before = cpu.read(buffer, 64, Access::Shared).await?;
        let status = get_quote(&cpu, buffer, BUFFER_BYTES).await?;
        let is_left_alone = cpu.read(buffer, 64, Access::Shared).await? == before;
        cpu.saw(|| format!("{status} of GetQuote with {name}, left alone {is_left_alone}"));
    }
    for vector in [31, 256] {
        let status = cpu.tdvmcall(leaf::SETUP_EVENT_NOTIFY_INTERRUPT, [vector, 0, 0, 0]).await?.status();
        cpu.saw(|| format!("{status} of SetupEventNotifyInterrupt {vector}"));
    }
    Ok(())
}

/// Asks for a quote into memory that it keeps to itself.
pub(super) async fn private(cpu: Cpu) -> Result<(), GuestFault> {
    let [buffer, ..] = BUFFERS;
    accept_range(&cpu, buffer, BUFFER_BYTES).await?;
    cpu.write(buffer, b"a secret", Access::Private).await?;
    let status = get_quote(&cpu, buffer, BUFFER_BYTES).await?;
    let secret = cpu.read(buffer, 8, Access::Private).await?;
    cpu.saw(|| format!("{status} of GetQuote, the page holds {:?}", String::from_utf8_lossy(&secret)));
    Ok(())
}

/// Asks for more quotes than the host makes at once, and again when one is there.
pub(super) async fn many(cpu: Cpu) -> Result<(), GuestFault> {
    for buffer in BUFFERS {
        prepare(&cpu, buffer).await?;
    }
    for buffer in BUFFERS {
        let status = get_quote(&cpu, buffer, BUFFER_BYTES).await?;
        cpu.saw(|| format!("{status} of GetQuote"));
    }
    let [first, second, third] = BUFFERS;
    wait(&cpu, first).await?;
    let status = get_quote(&cpu, third, BUFFER_BYTES).await?;
    cpu.saw(|| format!("{status} of GetQuote, again"));
    wait(&cpu, second).await?;
    wait(&cpu, third).await
}

/// Asks for a quote and makes the buffer private before it is there.
pub(super) async fn taken_back(cpu: Cpu) -> Result<(), GuestFault> {
    let [buffer, other, _] = BUFFERS;
    set_vector(&cpu).await?;
    prepare(&cpu, buffer).await?;
    prepare(&cpu, other).await?;
    let status = get_quote(&cpu, buffer, BUFFER_BYTES).await?;
    let taken = map_gpa(&cpu, buffer.0, BUFFER_BYTES).await?;
    accept_range(&cpu, buffer, BUFFER_BYTES).await?;
    cpu.saw(|| format!("{status} of GetQuote, {taken} of MapGPA to private"));
    for _ in 0..8 {
        cpu.tdvmcall(leaf::IO, [1, 1, 0x80, 0]).await?;
    }
    let held = cpu.read(buffer, 32, Access::Private).await?;
    let is_zero = held.iter().all(|byte| *byte == 0);
    cpu.saw(|| format!("zeroes {is_zero}, interrupt {:?}", cpu.take_interrupt()));
    let status = get_quote(&cpu, other, BUFFER_BYTES).await?;
    cpu.saw(|| format!("{status} of the next GetQuote"));
    wait(&cpu, other).await
}
