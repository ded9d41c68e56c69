//! The certificate table that a VMM under judgement is given: in a file that nobody else changes.

use super::ForeignError;
use crate::judge::certificate_table;
use exeunt_abi::PAGE_SIZE;
use exeunt_linux::image::ImageFile;
use std::path::PathBuf;

/// A file that is gone with this value.
pub(super) struct TableFile(ImageFile);

impl TableFile {
    pub(super) fn path(&self) -> PathBuf {
        self.0.path()
    }
}

/// The table in a file.
///
/// # Errors
///
/// It cannot be written.
pub(super) fn file() -> Result<TableFile, ForeignError> {
    let failed = |error: std::io::Error| ForeignError::Certificates { why: error.to_string() };
    ImageFile::with_bytes("certificates", &certificate_table()).map(TableFile).map_err(failed)
}

/// Pages of the table.
pub(super) fn pages() -> u64 {
    (certificate_table().len() as u64).div_ceil(PAGE_SIZE)
}
