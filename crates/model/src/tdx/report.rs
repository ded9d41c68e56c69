//! `TDG.MR.REPORT`: the report of a TD, and the CPU's MAC over it.

use super::measurement::sha384;
use super::{Digest, Td};
use exeunt_abi::tdx::report::{DIGEST_BYTES, ReportMac, TD_REPORT_TYPE, TdInfo, TdReport, TeeTcbInfo};
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zerocopy::IntoBytes;

/// The part of a simulated CPU that vouches for reports: what `SEAMREPORT` uses and `EVERIFYREPORT2` checks with.
///
/// The key comes from a seed, so nothing that it signs is worth anything outside of the model, and each report says
/// so: its `CPUSVN` reads "simulated CPUSVN", and the signer of its TDX module is not Intel.
#[derive(Clone, PartialEq, Eq)]
pub struct TdxPlatform {
    mac_key: [u8; 32],
}

/// [`ReportMac::cpu_svn`] of every simulated report.
const CPU_SVN: [u8; 16] = *b"simulated CPUSVN";

impl Default for TdxPlatform {
    fn default() -> Self {
        Self::simulated(0)
    }
}

impl TdxPlatform {
    /// A CPU whose key the seed decides.
    #[must_use]
    pub fn simulated(seed: u64) -> Self {
        let key =
            Sha256::new().chain_update(b"exeunt: simulated TDX report key").chain_update(seed.to_le_bytes());
        Self { mac_key: key.finalize().into() }
    }

    /// `EVERIFYREPORT2`: whether this CPU made the report, and its parts are those that the MAC covers.
    #[must_use]
    pub fn verify(&self, report: &TdReport) -> bool {
        let hashes = (sha384(report.tee_tcb_info.as_bytes()), sha384(report.td_info.as_bytes()));
        (report.mac.tee_tcb_info_hash, report.mac.tee_info_hash) == hashes
            && self.mac(&report.mac) == report.mac.mac
    }

    /// `SEAMREPORT`.
    pub(super) fn report(&self, td: &Td, report_data: [u8; 64]) -> TdReport {
        let (tee_tcb_info, td_info) = (tee_tcb_info(), td.info());
        let mut mac = ReportMac {
            report_type: TD_REPORT_TYPE,
            reserved0: [0; 12],
            cpu_svn: CPU_SVN,
            tee_tcb_info_hash: sha384(tee_tcb_info.as_bytes()),
            tee_info_hash: sha384(td_info.as_bytes()),
            report_data,
            reserved1: [0; 32],
            mac: [0; 32],
        };
        mac.mac = self.mac(&mac);
        TdReport { mac, tee_tcb_info, reserved: [0; 17], td_info }
    }

    /// HMAC-SHA-256 over what stands before the MAC. Which MAC a CPU uses is its own affair.
    fn mac(&self, over: &ReportMac) -> [u8; 32] {
        let covered = over.as_bytes().len().saturating_sub(over.mac.len());
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.mac_key) else { return [0; 32] };
        mac.update(over.as_bytes().get(..covered).unwrap_or_default());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for TdxPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TdxPlatform").finish_non_exhaustive()
    }
}

/// The module of the model.
fn tee_tcb_info() -> TeeTcbInfo {
    TeeTcbInfo {
        valid: TeeTcbInfo::VALID.to_le_bytes(),
        tee_tcb_svn: [0; 16],
        mrseam: sha384(b"exeunt: simulated TDX module"),
        mrsignerseam: sha384(b"exeunt: simulated signer"),
        attributes: [0; 8],
        tee_tcb_svn2: [0; 16],
        reserved: [0; 95],
    }
}

impl Td {
    /// `TDINFO`.
    fn info(&self) -> TdInfo {
        TdInfo {
            attributes: self.attributes.to_le_bytes(),
            xfam: self.xfam.to_le_bytes(),
            mrtd: self.mrtd.digest(),
            mrconfigid: self.mrconfigid,
            mrowner: self.mrowner,
            mrownerconfig: self.mrownerconfig,
            rtmr: self.rtmr,
            servtd_hash: [0; DIGEST_BYTES],
            reserved: [0; 64],
        }
    }

    /// The digest that the words of a command hold.
    pub(super) fn digest_of(words: &[u64; 6]) -> Digest {
        let mut digest = [0; DIGEST_BYTES];
        digest.iter_mut().zip(words.as_bytes()).for_each(|(to, from)| *to = *from);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_verified_by_its_own_platform_only_and_not_after_any_byte_of_it_changed() {
        let platform = TdxPlatform::simulated(7);
        let report = platform.report(&Td::default(), [5; 64]);
        assert!(platform.verify(&report));
        assert!(!TdxPlatform::simulated(8).verify(&report));
        for at in (0..1024).filter(|at| !(495..512).contains(at)) {
            let mut changed = report;
            changed.as_mut_bytes()[at] ^= 1;
            assert!(!platform.verify(&changed), "byte {at}");
        }
        assert_eq!(&report.mac.cpu_svn, b"simulated CPUSVN");
        assert_ne!(report.tee_tcb_info.mrsignerseam, [0; 48], "0 is Intel");
    }
}
