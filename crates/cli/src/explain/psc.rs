//! `psc-entry` and `psc`: page-state changes, one entry or a whole descriptor.

use super::dump::Dump;
use super::explanation::{Explanation, Field, mask, unknown_bits};
use super::input::Input;
use super::number;
use crate::Failure;
use exeunt_abi::ghcb::psc::{Entry, HEADER_BYTES, MAX_ENTRIES, operation};
use exeunt_proto::ghcb::{PscEntry, PscOperation};

const SOURCE: &str = "AMD 56421 revision 2.04, \"SNP Page State Change\"; Linux v7.2 arch/x86/include/asm/sev-common.h, struct \
                      psc_hdr and psc_entry, and arch/x86/kvm/svm/sev.c, snp_begin_psc and snp_do_psc";
/// Bytes of a header with all the entries that there can be.
const MAX_DESCRIPTOR: usize = 8 + 8 * 253;
const _: () = assert!(HEADER_BYTES == 8 && MAX_ENTRIES == 253);

/// `psc-entry 0x...`.
pub(super) fn entry(text: &str) -> Result<Explanation, Failure> {
    let value = number::parse(text)?;
    let entry = Entry(value);
    let name =
        operation::name(entry.operation()).unwrap_or("no operation that is known: KVM takes it for done");
    let size = if entry.is_2m() { "2 MiB: 512 pages" } else { "4 KiB: 1 page" };
    Ok(Explanation::new("psc-entry", text, entry_meaning(entry))
        .with(Field::bits("cur_page", value, 11, 0, "4 KiB pages of the entry that are done"))
        .with(Field::bits("gfn", value, 51, 12, "the first frame"))
        .with(Field::bits("operation", value, 55, 52, name))
        .with(Field::bits("pagesize", value, 56, 56, size))
        .reserved(reserved(entry))
        .advice(entry_advice(entry))
        .source(SOURCE))
}

fn entry_meaning(entry: Entry) -> String {
    match PscEntry::decode(entry) {
        Ok(decoded) => decoded.to_string(),
        Err(error) => format!("INVALID_ENTRY: {error}"),
    }
}

fn reserved(entry: Entry) -> Option<String> {
    unknown_bits(entry.0, mask(56, 0)).map(|what| format!("{what}; KVM does not look at them"))
}

fn entry_advice(entry: Entry) -> &'static str {
    match PscEntry::decode(entry) {
        Err(_) => "Nothing: KVM ends the request with INVALID_ENTRY. Entries before this one stay converted.",
        Ok(PscEntry { operation: PscOperation::Assign(_), range: Some(_), .. }) => {
            "It comes as KVM_HC_MAP_GPA_RANGE, together with neighbours that are alike. A 2 MiB entry that is partly \
             done comes with the 2 MiB hint and an address that is not aligned to it (HC-4); the frame has 40 bits \
             and may lie outside of the guest's memory (HC-6)."
        }
        Ok(_) => "Nothing: KVM takes the entry for done, and no exit reaches the VMM.",
    }
}

/// `psc FILE|HEX`: a header and its entries, from `sw_scratch` on.
pub(super) fn descriptor(input: &Input) -> Result<Explanation, Failure> {
    let bytes = input.bytes.as_slice();
    let found = bytes.len();
    if found < 8 {
        return Err(format!(
            "{}: {found} bytes hold no header of a page-state change, which has 8",
            input.name
        ));
    }
    if found > 4096 {
        return Err(format!(
            "{}: {found} bytes are more than the page that a descriptor lies in",
            input.name
        ));
    }
    let dump = Dump(bytes);
    let (cur, end) = (dump.u16(0), dump.u16(2));
    let is_refused = u64::from(end) >= MAX_ENTRIES;
    let needed = 8 * (usize::from(end) + 2);
    if !is_refused && found < needed {
        let at = found & !7;
        return Err(format!(
            "{}: end_entry at 0x2 is {end}, so {needed} bytes are needed, and they end at {at:#x}",
            input.name
        ));
    }
    let left = (usize::from(end) + 1).saturating_sub(usize::from(cur));
    let title = match (is_refused, left) {
        (true, _) => format!("INVALID_HDR: end_entry is {end}, and there is room for 253 entries"),
        (_, 0) => format!("nothing left to do: cur_entry {cur} is behind end_entry {end}"),
        _ => format!("{left} of {} entries to do", usize::from(end) + 1),
    };
    let mut explanation = Explanation::new("psc", &input.name, title)
        .with(Field::at(0, "cur_entry", cur.to_string(), "the first entry that is not done"))
        .with(Field::at(2, "end_entry", end.to_string(), "the last entry, inclusive"))
        .with(dump.hex32(4, "reserved", "a Linux guest takes it for an error if it is not 0 afterwards"))
        .reserved(dump.not_zero(4, 4, "reserved"));
    if !is_refused {
        explanation = explanation.with_all(entries(dump, cur, end));
        let set = (0..=end)
            .filter_map(|index| reserved(entry_at(dump, index)).map(|what| format!("entry {index}: {what}")));
        explanation.reserved.extend(set);
    }
    Ok(explanation.advice(DESCRIPTOR_ADVICE).source(SOURCE))
}

const DESCRIPTOR_ADVICE: &str = "Each run of entries that are alike comes as one KVM_HC_MAP_GPA_RANGE: answer each, by \
    HC-2 to HC-7. Entries are checked only when their turn comes, and those before a bad one stay converted. KVM \
    has no progress smaller than an entry.";

fn entry_at(dump: Dump<'_>, index: u16) -> Entry {
    Entry(dump.u64(8 + 8 * usize::from(index)))
}

fn entries(dump: Dump<'_>, cur: u16, end: u16) -> impl Iterator<Item = Field> {
    (0..=end).map(move |index| {
        let entry = entry_at(dump, index);
        let before = if index < cur { "before cur_entry: " } else { "" };
        let meaning = format!("{before}{}", entry_meaning(entry));
        Field::at(8 + 8 * usize::from(index), format!("entry {index}"), format!("{:#x}", entry.0), meaning)
    })
}

/// The bytes that a descriptor can have.
pub(super) fn is_size(bytes: usize) -> bool {
    (16..=MAX_DESCRIPTOR).contains(&bytes) && bytes % 8 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        Input { name: "bytes".into(), bytes: bytes.to_vec(), is_text: false }
    }

    fn descriptor_of(cur: u16, end: u16, entries: &[Entry]) -> Vec<u8> {
        let mut bytes = [cur.to_le_bytes(), end.to_le_bytes(), [0; 2], [0; 2]].concat();
        bytes.extend(entries.iter().flat_map(|entry| entry.0.to_le_bytes()));
        bytes
    }

    #[test]
    fn an_entry_is_read_with_its_reserved_bits() {
        let entry = |value: u64| entry(&format!("{value:#x}")).unwrap();
        let good = entry(Entry::new(0x200, operation::PRIVATE, true).0);
        assert_eq!(good.title, "make private [0x200000-0x3fffff]");
        assert!(good.reserved.is_empty());
        assert!(entry(Entry::new(0x201, 1, true).0).title.contains("not aligned to 2 MiB"));
        assert_eq!(entry(1 << 57 | Entry::new(1, 2, false).0).reserved.len(), 1);
    }

    #[test]
    fn a_descriptor_lists_every_entry_and_what_is_left() {
        let entries = [Entry::new(1, 1, false), Entry::new(2, 2, false), Entry::new(0x201, 1, true)];
        let explanation = descriptor(&input(&descriptor_of(1, 2, &entries))).unwrap();
        assert_eq!(explanation.title, "2 of 3 entries to do");
        let meanings: Vec<_> =
            explanation.fields.iter().skip(3).map(|field| field.meaning.as_str()).collect();
        assert_eq!(meanings[0], "before cur_entry: make private [0x1000-0x1fff]");
        assert_eq!(meanings[1], "make shared [0x2000-0x2fff]");
        assert!(meanings[2].starts_with("INVALID_ENTRY"));
    }

    #[test]
    fn a_header_that_kvm_refuses_is_explained_and_a_cut_one_is_an_error() {
        let refused = descriptor(&input(&descriptor_of(0, 253, &[]))).unwrap();
        assert!(refused.title.starts_with("INVALID_HDR"));
        let cut = descriptor(&input(&descriptor_of(0, 2, &[Entry(0)]))).unwrap_err();
        assert_eq!(cut, "bytes: end_entry at 0x2 is 2, so 32 bytes are needed, and they end at 0x10");
        assert!(descriptor(&input(&[0; 7])).unwrap_err().contains("which has 8"));
        assert!(descriptor(&input(&[0; 4097])).unwrap_err().contains("more than the page"));
    }
}
