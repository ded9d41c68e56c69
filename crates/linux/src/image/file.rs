//! An image as a file that a VMM can open by its name, and that is gone with this process.

use super::{ImageKind, ImageOptions};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// A guest image in memory, with a name in the file system for as long as this value lives.
#[derive(Debug)]
pub struct ImageFile {
    file: OwnedFd,
}

impl ImageFile {
    /// Makes the file of an image. Nobody can write to it afterwards.
    ///
    /// # Errors
    ///
    /// The kernel gives no memory or no descriptor.
    pub fn make(kind: ImageKind, options: ImageOptions) -> io::Result<Self> {
        Self::with_bytes(kind.name(), &kind.build(options))
    }

    /// Makes a file of any bytes that a VMM is to read: what configures it, for one.
    ///
    /// # Errors
    ///
    /// The kernel gives no memory or no descriptor, or the name is too long.
    pub fn with_bytes(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let name = format!("exeunt-{name}");
        let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(bytes)?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self { file: file.into() })
    }

    /// Its name for other processes of the same user.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}
