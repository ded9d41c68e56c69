//! Attestation reports.
//!
//! Source: AMD 56860 "SEV Secure Nested Paging Firmware ABI" revision 1.58, section 7.3 "Attestation".

use super::guest::SnpGuest;
use super::identity::to_wire;
use super::platform::{Endorser, Platform, Version};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::psp::message::key_sel;
use exeunt_abi::report::{AttestationReport, SIGNED_BYTES, flags, signature_algo, signing_key};
use p384::ecdsa::Signature;
use p384::ecdsa::signature::Signer as _;
use zerocopy::{FromZeros, IntoBytes, transmute};

/// Which key a request names, or the status of its response.
pub(crate) fn endorser(platform: &Platform, guest: &SnpGuest, key: u32) -> Result<Endorser, u32> {
    let vcek = if guest.vcek_disabled { Err(firmware::INVALID_KEY) } else { Ok(Endorser::Vcek) };
    match key {
        key_sel::VLEK_OR_VCEK | key_sel::VLEK if platform.vlek.is_some() => Ok(Endorser::Vlek),
        key_sel::VLEK_OR_VCEK | key_sel::VCEK => vcek,
        key_sel::VLEK => Err(firmware::INVALID_KEY),
        _ => Err(firmware::INVALID_PARAM),
    }
}

impl Platform {
    /// The report of a guest, signed unless the host has it not signed.
    pub(crate) fn report(
        &mut self,
        guest: &SnpGuest,
        vmpl: u32,
        report_data: [u8; 64],
        endorser: Endorser,
    ) -> Result<AttestationReport, u32> {
        let mut report = self.unsigned_report(guest);
        report.vmpl = vmpl;
        report.report_data = report_data;
        let key_number = match endorser {
            _ if self.mask_chip_key => signing_key::NONE,
            Endorser::Vcek => signing_key::VCEK,
            Endorser::Vlek => signing_key::VLEK,
        };
        report.flags |= key_number << flags::SIGNING_KEY_SHIFT;
        if self.mask_chip_key {
            report.flags |= flags::MASK_CHIP_KEY;
            return Ok(report);
        }
        report.signature_algo = signature_algo::ECDSA_P384_SHA384;
        let key = self.endorsement_key(endorser).ok_or(firmware::INVALID_KEY)?;
        let signature: Signature = key.sign(report.as_bytes().get(..SIGNED_BYTES).unwrap_or_default());
        report.signature = transmute!(to_wire(&signature));
        Ok(report)
    }

    fn unsigned_report(&self, guest: &SnpGuest) -> AttestationReport {
        let mut report = AttestationReport::new_zeroed();
        report.version = self.config.report_version;
        report.policy = guest.policy;
        report.platform_info = self.info();
        report.measurement = guest.digest.bytes();
        report.host_data = guest.host_data;
        report.report_id = guest.report_id;
        // No migration agent.
        report.report_id_ma = [0xff; 32];
        if let Some(identity) = &guest.identity {
            report.guest_svn = identity.guest_svn;
            report.family_id = identity.family_id;
            report.image_id = identity.image_id;
            report.id_key_digest = identity.id_key_digest;
            if let Some(digest) = identity.author_key_digest {
                report.author_key_digest = digest;
                report.flags |= flags::AUTHOR_KEY_EN;
            }
        }
        if report.version >= 3 {
            let [family, model, stepping] = self.config.product.cpuid();
            (report.cpuid_fam_id, report.cpuid_mod_id, report.cpuid_step) = (family, model, stepping);
        }
        if !self.mask_chip_id {
            report.chip_id = self.chip_id();
        }
        let Version { major, minor, build, tcb } = self.current;
        (report.current_major, report.current_minor, report.current_build) = (major, minor, build);
        report.current_tcb = tcb;
        let Version { major, minor, build, tcb } = self.committed;
        (report.committed_major, report.committed_minor, report.committed_build) = (major, minor, build);
        report.committed_tcb = tcb;
        report.reported_tcb = self.reported_tcb;
        report.launch_tcb = guest.launch.tcb;
        report
    }
}
