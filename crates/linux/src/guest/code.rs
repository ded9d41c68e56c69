//! The machine code of the guests.

use crate::embed_unsafe::embed;

embed! {
    ".rodata.exeunt_guests":
    port_io = "port_io.S", "exeunt_guest_port_io", "exeunt_guest_port_io_end";
    hlt = "hlt.S", "exeunt_guest_hlt", "exeunt_guest_hlt_end";
    shutdown = "shutdown.S", "exeunt_guest_shutdown", "exeunt_guest_shutdown_end";
    spin = "spin.S", "exeunt_guest_spin", "exeunt_guest_spin_end";
    string_io = "string_io.S", "exeunt_guest_string_io", "exeunt_guest_string_io_end";
    string_in = "string_in.S", "exeunt_guest_string_in", "exeunt_guest_string_in_end";
    count = "count.S", "exeunt_guest_count", "exeunt_guest_count_end";
    mmio = "mmio.S", "exeunt_guest_mmio", "exeunt_guest_mmio_end";
}
