//! Machine code in the program: the compiler's assembler puts a source into a read-only section, between two symbols.

/// Functions that return the machine code of a source, and the source, which lies beside the file that names it.
macro_rules! embed {
    ($section:literal: $($name:ident = $file:literal, $start:literal, $end:literal;)*) => { $(
        std::arch::global_asm!(
            concat!(".pushsection ", $section, ",\"a\",@progbits"),
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

        #[doc = concat!("What `", $file, "` says, and its text.")]
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
            // SAFETY: The bytes between the symbols are the code and nothing else, and they are never written.
            (unsafe { std::slice::from_raw_parts(start, bytes) }, include_str!($file))
        }
    )* };
}

pub(crate) use embed;
