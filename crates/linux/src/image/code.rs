//! The machine code of the images.

use crate::embed_unsafe::embed;

embed! {
    ".rodata.exeunt_images":
    real = "real.S", "exeunt_image_real", "exeunt_image_real_end";
    protected = "protected.S", "exeunt_image_protected", "exeunt_image_protected_end";
    long = "long.S", "exeunt_image_long", "exeunt_image_long_end";
    rom_to_protected = "rom_to_protected.S", "exeunt_image_rom32", "exeunt_image_rom32_end";
    pvh_to_protected = "pvh_to_protected.S", "exeunt_image_pvh32", "exeunt_image_pvh32_end";
    pvh_to_long = "pvh_to_long.S", "exeunt_image_pvh64", "exeunt_image_pvh64_end";
}
