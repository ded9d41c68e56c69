//! One page, read by VMMs of two word sizes with the headers of before and after the change of `system_event`.

use crate::timeline::{Event, Log};
use exeunt_abi::WordSize;
use exeunt_abi::kvm::run::{RunPage, SystemEvent, SystemEventV5_17, SystemEventV5_17Ilp32};

/// Adds what each reader makes of a system event.
pub(crate) fn read_system_event(page: &RunPage, log: &Log) {
    for (headers, word_size) in [
        ("5.17", WordSize::Lp64),
        ("5.17", WordSize::Ilp32),
        ("5.18", WordSize::Lp64),
        ("5.18", WordSize::Ilp32),
    ] {
        let bits = match word_size {
            WordSize::Lp64 => "64-bit",
            WordSize::Ilp32 => "i386",
        };
        let text = match (headers, word_size) {
            ("5.17", WordSize::Lp64) => old(page, page.payload::<SystemEventV5_17>().flags, 40),
            ("5.17", WordSize::Ilp32) => old(page, page.payload::<SystemEventV5_17Ilp32>().flags.get(), 36),
            // From 5.18 on the offsets are the same for both.
            _ => new(&page.payload()),
        };
        log.add(Event::Read { reader: format!("{headers} headers, {bits}"), text });
    }
}

fn old(page: &RunPage, flags: u64, offset: u32) -> String {
    format!("type = {:#x}, flags = {flags:#x} (at {offset})", page.u32_at(0))
}

fn new(event: &SystemEvent) -> String {
    let [first, ..] = event.data;
    format!("type = {:#x}, ndata = {} (at 36), data[0] = {first:#x} (at 40)", event.event_type, event.ndata)
}
