//! A program without the standard library and without an allocator that takes an exit through `exeunt-abi` and
//! `exeunt-proto`. That it links is the test; its exit status says whether it also works.
#![no_std]
#![no_main]

use exeunt_abi::Kernel;
use exeunt_abi::kvm::run::{Hypercall, RunPage};
use exeunt_proto::conversion::{PageState, map_gpa_range};
use exeunt_proto::exit::{self, Exit};
use exeunt_proto::reply::{self, ConversionReply, Reply};

/// A conversion on its way: decoded, understood, answered. `None` says that something else came out.
fn answer_a_conversion() -> Option<u64> {
    let kernel = Kernel::default();
    let mut page = RunPage::zeroed();
    exit::map_gpa_range_by_psc(0x5000, 2, 0x10, kernel, &mut page);
    let Ok(Exit::Hypercall(call)) = exit::decode(Ok(()), &page, kernel) else { return None };
    let [gpa, pages, attributes, ..] = call.args;
    let conversion = map_gpa_range([gpa, pages, attributes]).ok()?;
    if conversion.to != PageState::Private || conversion.range.pages() != 2 {
        return None;
    }
    reply::encode(Reply::Conversion(ConversionReply::Again), kernel, &mut page);
    Some(page.payload::<Hypercall>().ret)
}

/// What the C runtime calls. The name is the runtime's, which is why the attribute is unsafe: no other `main` is linked.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    if answer_a_conversion() == Some(11) { 0 } else { 1 }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

// The start-up code of the C library; nothing else of it is used.
#[link(name = "c")]
unsafe extern "C" {}

/// The compiled `core` names this symbol for unwinding, which a program that aborts never does.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
