//! The bytes of the guests. The compiler's assembler puts them into a read-only section, between two symbols.

use std::arch::global_asm;
use std::slice;

macro_rules! images {
    ($($name:ident = $file:literal, $start:literal, $end:literal;)*) => { $(
        global_asm!(
            ".pushsection .rodata.exeunt_guests,\"a\",@progbits",
            concat!(".globl ", $start),
            concat!(".hidden ", $start),
            concat!($start, ":"),
            include_str!($file),
            concat!(".globl ", $end),
            concat!(".hidden ", $end),
            concat!($end, ":"),
            ".code64",
            ".popsection",
            options(raw),
        );

        /// The image of a guest, and its source.
        pub(super) fn $name() -> (&'static [u8], &'static str) {
            // SAFETY: The two symbols are defined just above, in a section that nobody writes.
            unsafe extern "C" {
                #[link_name = $start]
                safe static START: u8;
                #[link_name = $end]
                safe static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            let bytes = end.addr().saturating_sub(start.addr());
            // SAFETY: The bytes between the symbols are the guest and nothing else, and they are never written.
            (unsafe { slice::from_raw_parts(start, bytes) }, include_str!($file))
        }
    )* };
}

images! {
    port_io = "port_io.S", "exeunt_guest_port_io", "exeunt_guest_port_io_end";
    hlt = "hlt.S", "exeunt_guest_hlt", "exeunt_guest_hlt_end";
    shutdown = "shutdown.S", "exeunt_guest_shutdown", "exeunt_guest_shutdown_end";
    spin = "spin.S", "exeunt_guest_spin", "exeunt_guest_spin_end";
    string_io = "string_io.S", "exeunt_guest_string_io", "exeunt_guest_string_io_end";
    string_in = "string_in.S", "exeunt_guest_string_in", "exeunt_guest_string_in_end";
    count = "count.S", "exeunt_guest_count", "exeunt_guest_count_end";
    mmio = "mmio.S", "exeunt_guest_mmio", "exeunt_guest_mmio_end";
}
