//! All chance of the secure processor: derivations from one seed, each under a name of its own.

use hkdf::Hkdf;
use p384::ecdsa::SigningKey;
use rand_core::{CryptoRng, Error, RngCore};
use sha2::Sha384;
use std::fmt;

/// The root of all keys of a simulated processor. What is derived depends on the name alone and not on the order.
#[derive(Clone)]
pub(crate) struct Seed(Hkdf<Sha384>);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

impl Seed {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Hkdf::new(Some(b"exeunt SIMULATED secure processor"), &seed.to_le_bytes()))
    }

    /// The bytes with this name.
    pub(crate) fn derive<const N: usize>(&self, name: &str, context: &[&[u8]]) -> [u8; N] {
        let mut bytes = [0; N];
        let parts = [&[name.as_bytes(), &[0]], context].concat();
        // It fails above 255 blocks of SHA-384 only, and no key is that long.
        let expanded = self.0.expand_multi_info(&parts, &mut bytes);
        debug_assert!(expanded.is_ok(), "{N} bytes of {name}");
        bytes
    }

    /// The P-384 key with this name. A number that is no key has a chance of 2^-190; the next one is taken then.
    pub(crate) fn signing_key(&self, name: &str, context: &[&[u8]]) -> Option<SigningKey> {
        (0..8u8).find_map(|attempt| {
            let attempt = [attempt];
            let parts = [context, &[&attempt]].concat();
            SigningKey::from_slice(&self.derive::<48>(name, &parts)).ok()
        })
    }

    /// A stream of numbers, for what takes its chance from a generator.
    pub(crate) fn stream(&self, name: &'static str, context: &[&[u8]]) -> Stream {
        Stream {
            seed: Self(Hkdf::new(None, &self.derive::<48>(name, context))),
            block: 0,
            bytes: [0; 64],
            used: 64,
        }
    }
}

/// Numbers that a [`Seed`] decides.
pub(crate) struct Stream {
    seed: Seed,
    block: u64,
    bytes: [u8; 64],
    used: usize,
}

impl Stream {
    fn next_byte(&mut self) -> u8 {
        if self.used >= self.bytes.len() {
            self.bytes = self.seed.derive("block", &[&self.block.to_le_bytes()]);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        let byte = self.bytes.get(self.used).copied().unwrap_or_default();
        self.used = self.used.saturating_add(1);
        byte
    }
}

impl RngCore for Stream {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill_with(|| self.next_byte());
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Stream {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_the_name_and_the_context_decide_the_bytes() {
        let derive = |seed, name, context: &[&[u8]]| Seed::new(seed).derive::<32>(name, context);
        let first = derive(1, "vmpck", &[&[0]]);
        assert_eq!(first, derive(1, "vmpck", &[&[0]]));
        for other in [derive(2, "vmpck", &[&[0]]), derive(1, "vmrk", &[&[0]]), derive(1, "vmpck", &[&[1]])] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_read() {
        let seed = Seed::new(3);
        let (mut whole, mut parts) = ([0; 200], [0; 200]);
        seed.stream("salt", &[]).fill_bytes(&mut whole);
        let mut stream = seed.stream("salt", &[]);
        for chunk in parts.chunks_mut(7) {
            stream.fill_bytes(chunk);
        }
        assert_eq!(whole, parts);
        assert_ne!(whole[..64], whole[64..128]);
    }
}
