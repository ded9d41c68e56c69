//! Where a service listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// The address of a quote generation service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `vsock:PORT` or `vsock:CID:PORT`. Intel's service listens on port 4050.
    Vsock {
        /// Whose port: `None` is the host for who connects, and everyone for who listens.
        cid: Option<u32>,
        /// The port.
        port: u32,
    },
}

/// An address without a meaning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no address; there are unix:PATH, vsock:PORT and vsock:CID:PORT")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError(text.into()))
    }
}

fn parse(text: &str) -> Option<Address> {
    match text.split_once(':')? {
        ("unix", path) if !path.is_empty() => Some(Address::Unix(path.into())),
        ("vsock", numbers) => match numbers.split_once(':') {
            Some((cid, port)) => {
                Some(Address::Vsock { cid: Some(cid.parse().ok()?), port: port.parse().ok()? })
            }
            None => Some(Address::Vsock { cid: None, port: numbers.parse().ok()? }),
        },
        _ => None,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: Some(cid), port } => write!(f, "vsock:{cid}:{port}"),
            Self::Vsock { cid: None, port } => write!(f, "vsock:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_from_its_text_and_nothing_else_is_one() {
        for (text, expected) in [
            ("unix:/run/qgs.socket", Address::Unix("/run/qgs.socket".into())),
            ("unix:a:b", Address::Unix("a:b".into())),
            ("vsock:4050", Address::Vsock { cid: None, port: 4050 }),
            ("vsock:2:4050", Address::Vsock { cid: Some(2), port: 4050 }),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((&address, address.to_string().as_str()), (&expected, text));
        }
        for text in ["", "unix", "unix:", "vsock:", "vsock:x", "vsock:1:2:3", "vsock:4294967296", "tcp:1"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError(text.into())), "{text}");
        }
    }
}
