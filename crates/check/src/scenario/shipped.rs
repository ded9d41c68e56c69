//! The scenarios that come with the program.

use super::load::parse_with;
use super::{Scenario, ScenarioError};
use exeunt::certs::{CertsError, CheckedTable};
use std::path::Path;

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// The names of the shipped scenarios: one for each mail, then what a KVM without confidential guests shows.
        pub const NAMES: &[&str] = &[$($name),*];

        fn text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../../scenarios/", $name, ".toml"))),)*
                _ => None,
            }
        }
    };
}

scenarios!(
    "system-event",
    "abi-compat",
    "triple-fault-migration",
    "page-state-change",
    "certificates",
    "memory-fault",
    "tdx",
    "quotes",
    "plain-exits",
);

/// The certificate table that the shipped scenarios use. Its certificates say that they are simulated.
const SIMULATED_CERTS: &[u8] = include_bytes!("../../scenarios/simulated.certs");

/// A shipped scenario.
///
/// # Errors
///
/// [`ScenarioError::Unknown`] if none has the name.
pub fn shipped(name: &str) -> Result<Scenario, ScenarioError> {
    let text = text(name).ok_or_else(|| ScenarioError::Unknown { name: name.into() })?;
    parse_with(name, &format!("{name}.toml"), text, read_certs)
}

fn read_certs(file: &Path) -> Result<CheckedTable, CertsError> {
    if file == Path::new("simulated.certs") {
        return CheckedTable::new(SIMULATED_CERTS.to_vec())
            .map_err(|source| CertsError::Malformed { path: file.into(), source });
    }
    CheckedTable::read(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_proto::certs::{ARK, ASK, Certificate, VCEK};

    #[test]
    fn every_shipped_scenario_loads() {
        for name in NAMES {
            let scenario = shipped(name).unwrap();
            assert_eq!(scenario.name, *name);
            assert!(!scenario.cases.is_empty());
        }
    }

    /// The file is data; this is how it was made. `EXEUNT_WRITE_CERTS` makes it again.
    #[test]
    fn the_simulated_certificates_are_what_they_say() {
        let text = |name: &str, bytes: usize| {
            let mut certificate = format!("SIMULATED {name}: signs nothing, proves nothing. ").into_bytes();
            certificate.resize(bytes, b'.');
            certificate
        };
        let (vcek, ask, ark) = (text("VCEK", 1360), text("ASK", 1677), text("ARK", 6000));
        let table = CheckedTable::build(&[
            Certificate { guid: VCEK, bytes: &vcek },
            Certificate { guid: ASK, bytes: &ask },
            Certificate { guid: ARK, bytes: &ark },
        ])
        .unwrap();
        if std::env::var_os("EXEUNT_WRITE_CERTS").is_some() {
            std::fs::write("scenarios/simulated.certs", table.as_bytes()).unwrap();
        }
        assert!(table.as_bytes() == SIMULATED_CERTS, "simulated.certs is not what this test builds");
        assert_eq!(table.pages(), 3);
    }
}
