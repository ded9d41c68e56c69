//! Snapshots: as bytes of anyone, and as sections that are right outside and anything inside.

use exeunt::snapshot::container::MUST_UNDERSTAND;
use exeunt::snapshot::{Limits, Snapshot, Writer};

const LIMITS: Limits = Limits { total_bytes: 1 << 20, section_bytes: 1 << 18 };

/// What is read is written again as it was; what is not is refused.
pub(crate) fn snapshot(data: &[u8]) {
    read_and_write(data);
    let mut writer = Writer::new(Vec::new()).expect("a vector takes any bytes");
    let mut rest = data;
    // A section is an id, a length and its payload; the last has what is left.
    while let [id, length, behind @ ..] = rest {
        let (payload, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        writer.section(u32::from(*id % 9), MUST_UNDERSTAND, payload).expect("a vector takes any bytes");
        rest = behind;
    }
    let (bytes, _) = writer.finish().expect("a vector takes any bytes");
    read_and_write(&bytes);
}

fn read_and_write(bytes: &[u8]) {
    let Ok((snapshot, digest)) = Snapshot::read(bytes, LIMITS) else { return };
    let (again, _) = snapshot.write(Vec::new()).expect("a vector takes any bytes");
    let (read, second) = Snapshot::read(again.as_slice(), LIMITS).expect("what is written is read");
    assert_eq!(read, snapshot);
    // Pages may have been cut into other runs, and sections that were skipped may have moved to the end.
    assert!(second == digest || again != bytes);
}
