//! `map-gpa`: the arguments of `KVM_HC_MAP_GPA_RANGE`.

use super::explanation::{Explanation, Field, unknown_bits};
use super::number;
use crate::Failure;
use exeunt_abi::kvm::run::map_gpa_range as bits;
use exeunt_proto::conversion::{Conversion, ConversionError, map_gpa_range};

const SOURCE: &str = "Linux v7.2 Documentation/virt/kvm/x86/hypercalls.rst, section 8, and \
                      include/uapi/linux/kvm_para.h, KVM_MAP_GPA_RANGE_*";

/// `map-gpa 0x100000 512 0x11`.
pub(super) fn explain(words: &[String]) -> Result<Explanation, Failure> {
    let [gpa, pages, attributes] = words else {
        return Err(
            "map-gpa wants three numbers: the address, the count of 4 KiB pages and the attributes".into()
        );
    };
    let args = [number::parse(gpa)?, number::parse(pages)?, number::parse(attributes)?];
    let result = map_gpa_range(args);
    Ok(Explanation::new("map-gpa", words.join(" "), title(result))
        .with_all(fields(args))
        .reserved(reserved(args))
        .advice(advice(result))
        .source(SOURCE))
}

/// The meaning of the arguments in a line.
pub(super) fn title(result: Result<Conversion, ConversionError>) -> String {
    match result {
        Ok(Conversion { range, to }) => {
            let pages = range.pages();
            format!("make {range} {to}: {pages} {}", if pages == 1 { "page" } else { "pages" })
        }
        Err(error) => format!("to be refused: {error}"),
    }
}

/// The arguments, at their places in `kvm_run`.
pub(super) fn fields([gpa, pages, attributes]: [u64; 3]) -> [Field; 3] {
    let size = match attributes & bits::PAGE_SIZE_MASK {
        0 => "4 KiB",
        1 => "2 MiB",
        2 => "1 GiB",
        _ => "no size that is known",
    };
    let to = if attributes & bits::ENCRYPTED == 0 { "shared" } else { "private" };
    [
        Field::at(0x28, "args[0] gpa", format!("{gpa:#x}"), "start of the range, page aligned"),
        Field::at(
            0x30,
            "args[1] npages",
            pages.to_string(),
            "counted in 4 KiB, whatever bits 3:0 say (HC-4)",
        )
        .unit("4 KiB pages"),
        Field::at(
            0x38,
            "args[2] attributes",
            format!("{attributes:#x}"),
            format!("bit 4: becomes {to}; bits 3:0: pages of {size}, a hint"),
        ),
    ]
}

/// Bits of the attributes that mean nothing.
pub(super) fn reserved([_, _, attributes]: [u64; 3]) -> Option<String> {
    unknown_bits(attributes, bits::PAGE_SIZE_MASK | bits::ENCRYPTED).map(|what| format!("attributes: {what}"))
}

/// What to do with the request.
pub(super) fn advice(result: Result<Conversion, ConversionError>) -> &'static str {
    match result {
        Ok(_) => {
            "Check that the range lies in the guest's memory before any ioctl (HC-6; a range without memory that \
             becomes shared is legal, HC-10). KVM_SET_MEMORY_ATTRIBUTES over it, split by slots (HC-9), then discard \
             the old backing (HC-8). Write ret: 0, or EINVAL (22) if it cannot be done (HC-2, HC-3). Doing it twice \
             succeeds (HC-11)."
        }
        Err(ConversionError::UnalignedGpa { .. }) => {
            "Refuse the request with ret = EINVAL (22); the VM goes on (HC-7)."
        }
        Err(ConversionError::BadRange { .. }) => {
            "Refuse the request with ret = EINVAL (22); the VM goes on (HC-6)."
        }
        Err(_) => "Refuse the request with ret = EINVAL (22): KVM does not check these bits (HC-5).",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(ToString::to_string).collect()
    }

    #[test]
    fn the_arguments_say_what_becomes_of_which_range() {
        let explanation = explain(&words("0x100000 512 0x11")).unwrap();
        assert_eq!(explanation.title, "make [0x100000-0x2fffff] private: 512 pages");
        assert!(explanation.fields[2].meaning.contains("2 MiB"));
        assert!(explain(&words("0x100800 1 0")).unwrap().advice.contains("HC-7"));
        assert!(explain(&words("0x1000 0 0")).unwrap().advice.contains("HC-6"));
        let reserved = explain(&words("0x1000 1 0x30")).unwrap();
        assert_eq!(reserved.reserved, ["attributes: bit 5 (0x20) without a meaning here, should be 0"]);
    }
}
