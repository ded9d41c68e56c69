//! The machine code of the images. The compiler's assembler puts it into a read-only section, between two symbols.

use std::arch::global_asm;
use std::slice;

macro_rules! code {
    ($($name:ident = $file:literal, $start:literal, $end:literal;)*) => { $(
        global_asm!(
            ".pushsection .rodata.exeunt_images,\"a\",@progbits",
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

        #[doc = concat!("What `", $file, "` says.")]
        pub(super) fn $name() -> &'static [u8] {
            // SAFETY: The two symbols are defined just above, in a section that nobody writes.
            unsafe extern "C" {
                #[link_name = $start]
                safe static START: u8;
                #[link_name = $end]
                safe static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            let bytes = end.addr().saturating_sub(start.addr());
            // SAFETY: The bytes between the symbols are the code and nothing else, and they are never written.
            unsafe { slice::from_raw_parts(start, bytes) }
        }
    )* };
}

code! {
    real = "real.S", "exeunt_image_real", "exeunt_image_real_end";
    protected = "protected.S", "exeunt_image_protected", "exeunt_image_protected_end";
    long = "long.S", "exeunt_image_long", "exeunt_image_long_end";
    rom_to_protected = "rom_to_protected.S", "exeunt_image_rom32", "exeunt_image_rom32_end";
    pvh_to_protected = "pvh_to_protected.S", "exeunt_image_pvh32", "exeunt_image_pvh32_end";
    pvh_to_long = "pvh_to_long.S", "exeunt_image_pvh64", "exeunt_image_pvh64_end";
}
