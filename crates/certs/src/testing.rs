//! What tests of this crate share.

use std::path::{Path, PathBuf};

/// A folder for one test's files, gone when the test is. No two tests take the same name.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exeunt-certs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// All files in it and below.
    #[cfg(feature = "kds")]
    pub(crate) fn walk(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { &mut folders } else { &mut files }.push(path);
            }
        }
        files
    }

    /// The names of all that is in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left for the system to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the model issues on a host with the seed 57230. The tests of `exeunt-check` hold these files to it.
pub(crate) mod data {
    macro_rules! files {
        ($($name:ident = $file:literal;)*) => {
            $(pub(crate) const $name: &[u8] = include_bytes!(concat!("../tests/data/", $file));)*
        };
    }
    files! {
        MILAN_ARK = "milan-ark.der";
        MILAN_ASK = "milan-ask.der";
        MILAN_VCEK = "milan-vcek.der";
        MILAN_NEXT_VCEK = "milan-next-vcek.der";
        MILAN_REPORT = "milan-report.bin";
        MILAN_ASVK = "milan-asvk.der";
        MILAN_VLEK = "milan-vlek.der";
        MILAN_VLEK_REPORT = "milan-vlek-report.bin";
        TURIN_ARK = "turin-ark.der";
        TURIN_ASK = "turin-ask.der";
        TURIN_VCEK = "turin-vcek.der";
        TURIN_REPORT = "turin-report.bin";
    }

    pub(crate) const MILAN: [&[u8]; 3] = [MILAN_VCEK, MILAN_ASK, MILAN_ARK];
    /// The same chip after an update of all parts of its TCB.
    pub(crate) const MILAN_NEXT: [&[u8]; 3] = [MILAN_NEXT_VCEK, MILAN_ASK, MILAN_ARK];
    pub(crate) const TURIN: [&[u8]; 3] = [TURIN_VCEK, TURIN_ASK, TURIN_ARK];
    pub(crate) const VLEK: [&[u8]; 3] = [MILAN_VLEK, MILAN_ASVK, MILAN_ARK];
}

/// The table of these certificates.
pub(crate) fn table_of(certificates: &[&[u8]]) -> exeunt::certs::CheckedTable {
    let mut bundle = crate::chain::Bundle::default();
    for der in certificates {
        bundle.add(der).unwrap();
    }
    bundle.table().unwrap()
}

/// These certificates as PEM.
pub(crate) fn pem(certificates: &[&[u8]]) -> String {
    use x509_cert::der::{Decode as _, EncodePem as _, pem::LineEnding};
    let pem = |der: &&[u8]| x509_cert::Certificate::from_der(der).unwrap().to_pem(LineEnding::LF).unwrap();
    certificates.iter().map(pem).collect()
}
