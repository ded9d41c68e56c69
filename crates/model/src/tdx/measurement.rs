//! `MRTD`: the measurement of a TD's initial memory.

use super::Digest;
use crate::state::PAGE;
use exeunt_abi::Gpa;
use sha2::{Digest as _, Sha384};

/// Bytes that one `TDH.MR.EXTEND` measures.
const CHUNK_BYTES: usize = 256;

/// The measurement under way: one SHA-384 over records of 128 bytes.
///
/// Source: Intel 344425 "Architecture Specification: Intel Trust Domain Extensions Module", section 12.2.1 "MRTD: Build-Time
/// Measurement Register"; Intel 348551 version 1.5, `TDH.MEM.PAGE.ADD` and `TDH.MR.EXTEND`.
#[derive(Clone, Debug, Default)]
pub(super) struct Mrtd(Sha384);

impl Mrtd {
    /// `TDH.MEM.PAGE.ADD`: a page is there. Its contents do not count.
    pub(super) fn page_add(&mut self, gpa: Gpa) {
        self.0.update(record(b"MEM.PAGE.ADD", gpa.0));
    }

    /// `TDH.MR.EXTEND` for each 256 bytes of a page.
    pub(super) fn extend(&mut self, gpa: Gpa, page: &[u8; PAGE]) {
        for (chunk, start) in page.chunks_exact(CHUNK_BYTES).zip((0u64..).step_by(CHUNK_BYTES)) {
            self.0.update(record(b"MR.EXTEND", gpa.0.saturating_add(start)));
            self.0.update(chunk);
        }
    }

    /// `TDH.MR.FINALIZE`, and reading before it.
    pub(super) fn digest(&self) -> Digest {
        self.0.clone().finalize().into()
    }
}

/// The name of the call in bytes 15:0, the address in bytes 23:16, zeroes.
fn record(name: &[u8], gpa: u64) -> [u8; 128] {
    let mut record = [0; 128];
    record.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    record.iter_mut().skip(16).zip(gpa.to_le_bytes()).for_each(|(to, from)| *to = from);
    record
}

/// `TDG.MR.RTMR.EXTEND`: the register and the digest together make the register anew.
pub(super) fn extend_rtmr(register: &mut Digest, with: &Digest) {
    *register = Sha384::new().chain_update(*register).chain_update(with).finalize().into();
}

/// SHA-384.
pub(super) fn sha384(bytes: &[u8]) -> Digest {
    Sha384::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same records, each made from its parts.
    fn by_hand(pages: &[(u64, Option<&[u8; PAGE]>)]) -> Digest {
        let mut all = Vec::new();
        for (gpa, contents) in pages {
            put(&mut all, "MEM.PAGE.ADD", *gpa);
            for (chunk, bytes) in (0u64..).zip(contents.iter().flat_map(|page| page.chunks(256))) {
                put(&mut all, "MR.EXTEND", gpa + chunk * 256);
                all.extend_from_slice(bytes);
            }
        }
        sha384(&all)
    }

    fn put(all: &mut Vec<u8>, name: &str, gpa: u64) {
        let start = all.len();
        all.extend_from_slice(name.as_bytes());
        all.resize(start + 16, 0);
        all.extend_from_slice(&gpa.to_le_bytes());
        all.resize(start + 128, 0);
    }

    #[test]
    fn mrtd_is_one_digest_over_the_records_of_all_pages_in_their_order() {
        let page: [u8; PAGE] = std::array::from_fn(|index| (index / 7).to_le_bytes()[0]);
        let mut mrtd = Mrtd::default();
        assert_eq!(mrtd.digest(), sha384(b""), "nothing yet");
        mrtd.page_add(Gpa(0xffff_f000));
        mrtd.extend(Gpa(0xffff_f000), &page);
        mrtd.page_add(Gpa(0x1000));
        assert_eq!(mrtd.digest(), by_hand(&[(0xffff_f000, Some(&page)), (0x1000, None)]));
        let mut other = Mrtd::default();
        other.page_add(Gpa(0x1000));
        other.page_add(Gpa(0xffff_f000));
        other.extend(Gpa(0xffff_f000), &page);
        assert_ne!(mrtd.digest(), other.digest(), "the order counts");
    }

    #[test]
    fn an_rtmr_is_the_digest_of_what_it_was_and_of_what_is_added() {
        let (mut register, event) = ([0; 48], sha384(b"event"));
        extend_rtmr(&mut register, &event);
        assert_eq!(register, sha384(&[[0; 48], event].concat()));
        let first = register;
        extend_rtmr(&mut register, &event);
        assert_eq!(register, sha384(&[first, event].concat()));
    }
}
