//! `certs`: the certificate table of an extended guest request.

use super::dump::Dump;
use super::explanation::{Explanation, Field};
use super::input::Input;
use crate::Failure;
use exeunt_proto::certs::{ENTRY_BYTES, Guid, Table};

const SOURCE: &str = "AMD 56421 revision 2.04, section 4.1.8.1 \"SNP Extended Guest Request\"";
/// What a Linux guest has room for, in bytes: `SEV_FW_BLOB_MAX_SIZE`.
const LINUX_BYTES: usize = 0x4000;

/// `certs FILE|HEX`.
pub(super) fn explain(input: &Input) -> Result<Explanation, Failure> {
    let Input { name, bytes, .. } = input;
    let table = Table::parse(bytes).map_err(|error| format!("{name}: {error}"))?;
    let dump = Dump(bytes);
    let certificates: Vec<_> = table.certificates().collect();
    let directory = (certificates.len() + 1) * ENTRY_BYTES;
    let used =
        (0..certificates.len()).map(|index| place(dump, index)).map(|(offset, length)| offset + length);
    let used = used.max().unwrap_or(0).max(directory);
    let names: Vec<_> =
        certificates.iter().map(|it| it.guid.name().map_or(it.guid.to_string(), Into::into)).collect();
    let pages = used.div_ceil(4096);
    let title = match names.len() {
        0 => "an empty table: no certificates".to_string(),
        count => format!("{count} certificates in {used} bytes ({pages} pages): {}", names.join(", ")),
    };
    let mut explanation = Explanation::new("certs", name, title)
        .with_all(certificates.iter().enumerate().map(|(index, it)| entry(dump, index, it.guid, it.bytes)))
        .with(Field::at(directory - ENTRY_BYTES, "terminator", "24 zero bytes", "the end of the directory (RC-7)"))
        .with(Field::new("needed", pages.to_string(), "for npages: exactly so much is asked for (RC-2)").unit("4 KiB pages"))
        .advice(
            "KVM does not look into the table: it is the guest that finds mistakes. Write it into shared memory only \
             (RC-4), hold a lock on its file until KVM_RUN took the answer (RC-5), and see that the certificates fit \
             the reported TCB (RC-9).",
        )
        .source(SOURCE);
    let swapped = certificates.iter().filter_map(|it| Some((it.guid, swapped(it.guid).name()?)));
    explanation.reserved.extend(swapped.map(|(guid, name)| {
        format!(
            "{guid} is {name} in the mixed byte order of other systems; the bytes go in printed order (RC-7)"
        )
    }));
    if used > LINUX_BYTES {
        explanation
            .reserved
            .push(format!("{used} bytes: a Linux guest has room for {LINUX_BYTES} and asks no further"));
    }
    explanation.reserved.extend(dump.not_zero(used, bytes.len() - used, "the rest behind the table"));
    Ok(explanation)
}

fn place(dump: Dump<'_>, index: usize) -> (usize, usize) {
    let at = index * ENTRY_BYTES;
    (dump.u32(at + 16) as usize, dump.u32(at + 20) as usize)
}

fn entry(dump: Dump<'_>, index: usize, guid: Guid, bytes: &[u8]) -> Field {
    let (offset, length) = place(dump, index);
    let about = match guid.name() {
        Some("VCEK") => "versioned chip endorsement key",
        Some("VLEK") => "versioned loaded endorsement key",
        Some("ASK") => "AMD SEV key, which signs the VCEK",
        Some("ARK") => "AMD root key",
        Some("CRL") => "revocation list",
        _ => "a kind that is not known here",
    };
    let form = match bytes {
        [0x30, 0x80..=0xff, ..] => "DER",
        [b'-', b'-', b'-', b'-', b'-', ..] => "PEM, where DER is usual",
        [] => "empty",
        _ => "neither DER nor PEM",
    };
    let name = guid.name().map_or_else(|| format!("entry {index}"), Into::into);
    Field::at(
        index * ENTRY_BYTES,
        name,
        format!("{length} bytes at {offset:#x}"),
        format!("{guid}, {about}; {form}"),
    )
}

/// A GUID with its first three parts turned round.
fn swapped(Guid(mut bytes): Guid) -> Guid {
    for part in [0..4, 4..6, 6..8] {
        if let Some(part) = bytes.get_mut(part) {
            part.reverse();
        }
    }
    Guid(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_proto::certs::{ARK, VCEK};

    fn table(entries: &[(Guid, u32, u32)], length: usize) -> Input {
        let mut bytes = Vec::new();
        for (guid, offset, length) in entries {
            bytes.extend_from_slice(&guid.0);
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.resize(length, 0);
        Input { name: "table".into(), bytes, is_text: false }
    }

    #[test]
    fn certificates_are_listed_with_the_pages_they_need() {
        let explanation = explain(&table(&[(VCEK, 72, 100), (ARK, 172, 4000)], 4172)).unwrap();
        assert_eq!(explanation.title, "2 certificates in 4172 bytes (2 pages): VCEK, ARK");
        assert!(explanation.reserved.is_empty());
        assert!(explain(&table(&[], 24)).unwrap().title.starts_with("an empty table"));
    }

    #[test]
    fn a_guid_in_the_wrong_byte_order_is_recognised() {
        let explanation = explain(&table(&[(swapped(VCEK), 48, 8)], 56)).unwrap();
        assert!(explanation.reserved[0].contains("is VCEK in the mixed byte order"));
    }

    #[test]
    fn a_table_that_is_none_is_an_error_with_an_offset() {
        let unterminated = explain(&table(&[(VCEK, 24, 0)], 24)).unwrap_err();
        assert!(
            unterminated.starts_with("table: ") && unterminated.contains("by offset 0x18"),
            "{unterminated}"
        );
        assert!(explain(&table(&[(VCEK, 48, 9)], 56)).unwrap_err().contains("certificate 0 at 0x30"));
    }
}
