//! `ghcb`: a GHCB page, as the guest filled it or as KVM answered.

use super::dump::Dump;
use super::explanation::{Explanation, Field};
use super::input::Input;
use super::{exit_code as codes, psc};
use crate::Failure;
use exeunt_abi::ghcb::exit_code;
use exeunt_abi::ghcb::page::{self as at, FIELDS, Field as Place, GHCB_BYTES};
use exeunt_proto::ghcb::{GhcbPage, Outcome};

const SOURCE: &str = "AMD 56421 revision 2.04, table 3; Linux v7.2 arch/x86/include/asm/svm.h, struct ghcb, and \
                      arch/x86/kvm/svm/sev.c, sev_es_sync_from_ghcb and sev_es_validate_vmgexit";
const EXIT_CODE: usize = 0x390;

/// `ghcb FILE|HEX`.
pub(super) fn explain(input: &Input) -> Result<Explanation, Failure> {
    let Input { name, bytes, .. } = input;
    let found = bytes.len();
    let bytes: &[u8; GHCB_BYTES] =
        bytes.as_slice().try_into().map_err(|_| match found.checked_sub(GHCB_BYTES) {
            Some(_) => format!("{name}: {found} bytes are more than a GHCB, which is a page of {GHCB_BYTES}"),
            None => {
                format!("{name}: a GHCB is a page of {GHCB_BYTES} bytes, and these end at offset {found:#x}")
            }
        })?;
    let page = GhcbPage::decode(bytes);
    let dump = Dump(bytes);
    let code = dump.u64(EXIT_CODE);
    let about = codes::about(code);
    let is_answer = page.exit_code.is_none() && page.exit_info_1.is_some() && page.exit_info_2.is_some();
    let title = match (page.exit_code, is_answer) {
        (Some(_), _) => format!("{}: {}", code_name(code), about.meaning),
        (None, true) => {
            let outcome = Outcome::decode(code, dump.u64(0x398), dump.u64(0x3a0));
            format!("an answer to {}: {outcome}", code_name(code))
        }
        (None, false) => {
            "no request: sw_exit_code is not valid. KVM clears the bitmap as it reads a request".into()
        }
    };
    let mut explanation = Explanation::new("ghcb", name, title)
        .with_all(
            FIELDS
                .iter()
                .filter(|place| page.valid_bitmap & place.mask() != 0)
                .map(|place| register(dump, *place)),
        )
        .with(bitmap(&page))
        .with_all(scratch(dump, &page))
        .with(Field::at(
            0xffa,
            "protocol_version",
            page.protocol_version.to_string(),
            "KVM does not look at it",
        ))
        .with(dump.hex32(0xffc, "ghcb_usage", "0 for a page of this form"))
        .reserved(unnamed(&page))
        .reserved(dump.not_zero(0xff0, 10, "reserved_0xff0"))
        .advice(about.advice)
        .source(SOURCE);
    if page.usage != 0 {
        explanation.reserved.push(format!("ghcb_usage is {:#x}: KVM answers INVALID_USAGE", page.usage));
    }
    let missing = missing(&page, dump);
    if page.exit_code.is_some() && !missing.is_empty() {
        explanation
            .reserved
            .push(format!("not valid, and needed: {}. KVM answers MISSING_INPUT", missing.join(", ")));
    }
    Ok(explanation)
}

fn code_name(code: u64) -> String {
    match exit_code::name(code) {
        Some(name) => format!("{name} ({code:#x})"),
        None => format!("exit code {code:#x}"),
    }
}

fn place_name(place: Place) -> String {
    place.name().unwrap_or("unnamed").to_ascii_lowercase()
}

fn register(dump: Dump<'_>, place: Place) -> Field {
    let offset = usize::from(place.offset);
    let code = dump.u64(EXIT_CODE);
    let about = codes::about(code);
    let meaning = match place {
        at::CPL => return dump.byte(offset, "cpl", "privilege level of the code that asks"),
        at::SW_EXIT_CODE => code_name(code),
        at::SW_EXIT_INFO_1 => about.info_1.into(),
        at::SW_EXIT_INFO_2 => about.info_2.into(),
        at::SW_SCRATCH => "the scratch area".into(),
        at::RAX | at::RBX if code == exit_code::EXT_GUEST_REQUEST => {
            "the certificate table: rax where, rbx 4 KiB pages".into()
        }
        at::RAX if code == exit_code::VMMCALL => "the hypercall's number".into(),
        _ => "a register of the guest".into(),
    };
    dump.hex64(offset, &place_name(place), meaning)
}

/// What lies in the scratch area, if it is in this page: where it is can be told from the offset alone.
fn scratch(dump: Dump<'_>, page: &GhcbPage) -> Option<Field> {
    let offset = usize::try_from(page.scratch?.offset_in_page()).ok()?;
    if !(0x800..0xff0).contains(&offset) || dump.u64(EXIT_CODE) != exit_code::PSC {
        return None;
    }
    let bytes = dump.slice(offset, 0xff0 - offset).to_vec();
    let input = Input { name: String::new(), bytes, is_text: false };
    let meaning = match psc::descriptor(&input) {
        Ok(descriptor) => {
            format!("descriptor of the page-state change, if this page holds it: {}", descriptor.title)
        }
        Err(_) => {
            "INVALID_HDR or INVALID_SCRATCH_AREA: the descriptor does not fit behind this offset".into()
        }
    };
    Some(Field::at(offset, "shared_buffer", "", meaning))
}

fn bitmap(page: &GhcbPage) -> Field {
    let count = page.valid_bitmap.count_ones();
    Field::at(
        0x3f0,
        "valid_bitmap",
        format!("{:#x}", page.valid_bitmap),
        format!("{count} quadwords are valid"),
    )
}

fn unnamed(page: &GhcbPage) -> Option<String> {
    let bits = page.unnamed_bits();
    (bits != 0).then(|| {
        let first = bits.trailing_zeros();
        format!("valid_bitmap: bits {bits:#x} belong to no field, the first to offset {:#x}", first * 8)
    })
}

/// Fields that KVM needs for the request and that are not valid.
///
/// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_validate_vmgexit`.
fn missing(page: &GhcbPage, dump: Dump<'_>) -> Vec<String> {
    let (info_1, rax) = (dump.u64(0x398), dump.u64(0x1f8));
    let more: &[Place] = match dump.u64(EXIT_CODE) {
        exit_code::WRITE_DR7 => &[at::RAX],
        exit_code::CPUID if rax == 0xd => &[at::RAX, at::RCX, at::XCR0],
        exit_code::CPUID | exit_code::MWAIT => &[at::RAX, at::RCX],
        exit_code::IOIO if info_1 & 4 != 0 => &[at::SW_SCRATCH],
        exit_code::IOIO if info_1 & 1 == 0 => &[at::RAX],
        exit_code::MSR if info_1 != 0 => &[at::RCX, at::RAX, at::RDX],
        exit_code::MSR | exit_code::RDPMC => &[at::RCX],
        exit_code::VMMCALL => &[at::RAX, at::CPL],
        exit_code::MONITOR => &[at::RAX, at::RCX, at::RDX],
        exit_code::AP_CREATION if info_1 & 0xffff_ffff != u64::from(exit_code::ap_creation::DESTROY) => {
            &[at::RAX]
        }
        exit_code::MMIO_READ | exit_code::MMIO_WRITE | exit_code::PSC => &[at::SW_SCRATCH],
        _ => &[],
    };
    let always = [at::SW_EXIT_CODE, at::SW_EXIT_INFO_1, at::SW_EXIT_INFO_2];
    let all = always.iter().chain(more);
    all.filter(|place| page.valid_bitmap & place.mask() == 0).map(|place| place_name(*place)).collect()
}

/// Whether a page looks like a GHCB.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    let Ok(bytes) = <&[u8; GHCB_BYTES]>::try_from(bytes) else { return false };
    let page = GhcbPage::decode(bytes);
    page.usage == 0 && page.unnamed_bits() == 0 && (1..=2).contains(&page.protocol_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with these quadwords, all of them valid.
    fn ghcb(words: &[(Place, u64)]) -> Input {
        let mut bytes = vec![0; GHCB_BYTES];
        for (place, value) in words {
            let offset = usize::from(place.offset);
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            let bit = usize::from(place.bit());
            bytes[0x3f0 + bit / 8] |= 1 << (bit % 8);
        }
        bytes[0xffa] = 2;
        Input { name: "page".into(), bytes, is_text: false }
    }

    #[test]
    fn a_request_is_named_with_what_it_lacks() {
        let words = [(at::SW_EXIT_CODE, exit_code::PSC), (at::SW_EXIT_INFO_1, 0), (at::SW_EXIT_INFO_2, 0)];
        let lacking = explain(&ghcb(&words)).unwrap();
        assert!(lacking.title.starts_with("PSC (0x80000010): change the state of pages"));
        assert_eq!(lacking.reserved, ["not valid, and needed: sw_scratch. KVM answers MISSING_INPUT"]);
        let mut whole = ghcb(&[words.as_slice(), &[(at::SW_SCRATCH, 0x7f00_0800)]].concat());
        whole.bytes[0x80a] = 0;
        let whole = explain(&whole).unwrap();
        assert!(whole.reserved.is_empty());
        assert!(whole.fields.iter().any(|field| field.meaning.contains("1 of 1 entries to do")));
    }

    #[test]
    fn an_answer_is_told_from_a_request_by_the_bitmap() {
        let mut page = ghcb(&[(at::SW_EXIT_INFO_1, 0), (at::SW_EXIT_INFO_2, 0x100 << 32)]);
        page.bytes[EXIT_CODE..EXIT_CODE + 8].copy_from_slice(&exit_code::PSC.to_le_bytes());
        let answer = explain(&page).unwrap();
        assert_eq!(answer.title, "an answer to PSC (0x80000010): page-state change: failed");
        assert!(explain(&ghcb(&[])).unwrap().title.starts_with("no request"));
    }

    #[test]
    fn what_kvm_refuses_and_what_nobody_knows_is_called_out() {
        let mut page = ghcb(&[(at::SW_EXIT_CODE, 0x72), (at::SW_EXIT_INFO_1, 0), (at::SW_EXIT_INFO_2, 0)]);
        page.bytes[0xffc] = 1;
        page.bytes[0x3f0] = 1;
        page.bytes[0xff5] = 1;
        let reserved = explain(&page).unwrap().reserved;
        assert_eq!(reserved.len(), 4, "{reserved:?}");
        assert!(
            explain(&Input { bytes: vec![0; 4095], ..page.clone() })
                .unwrap_err()
                .contains("end at offset 0xfff")
        );
        assert!(explain(&Input { bytes: vec![0; 4097], ..page }).unwrap_err().contains("more than a GHCB"));
    }
}
