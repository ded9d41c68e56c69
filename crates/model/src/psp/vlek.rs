//! Loading a VLEK. On real hosts AMD's key server wraps it for the chip; here the host's own processor does.

use super::Status;
use super::platform::Platform;
use aes_gcm::{AeadInPlace as _, Aes256Gcm, KeyInit as _, Tag};
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::platform::VLEK_HASHSTICK_BYTES;

/// Bytes of the identity of a cloud service provider.
const CSP_BYTES: usize = 16;

impl Platform {
    fn wrapping_key(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.seed.derive::<32>("vlek wrapping", &[]).into())
    }

    /// The wrapped key of a provider: identity, tag, padding.
    pub(crate) fn wrap_vlek(&self, csp_id: [u8; CSP_BYTES]) -> [u8; VLEK_HASHSTICK_BYTES] {
        let mut blob = [0; VLEK_HASHSTICK_BYTES];
        let (body, tag) = blob.split_at_mut(VLEK_HASHSTICK_BYTES.saturating_sub(16));
        body.iter_mut().zip(csp_id).for_each(|(to, from)| *to = from);
        if let Ok(made) = self.wrapping_key().encrypt_in_place_detached(&[0; 12].into(), b"", body) {
            tag.copy_from_slice(&made);
        }
        blob
    }

    /// `SNP_VLEK_LOAD`.
    pub(crate) fn load_vlek(&mut self, blob: &[u8; VLEK_HASHSTICK_BYTES]) -> Result<(), Status> {
        let mut blob = *blob;
        let (body, tag) = blob.split_last_chunk_mut::<16>().ok_or(firmware::INVALID_LEN)?;
        self.wrapping_key()
            .decrypt_in_place_detached(&[0; 12].into(), b"", body, &Tag::from(*tag))
            .map_err(|_| firmware::BAD_MEASUREMENT)?;
        self.vlek = body.first_chunk().copied();
        Ok(())
    }
}
