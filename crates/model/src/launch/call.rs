//! One `KVM_MEMORY_ENCRYPT_OP`: its struct, the process's memory behind its addresses, and the processor.

use crate::launch::SevHost;
use crate::memory::UserMemory;
use crate::psp::{CommandError, Platform, Psp, Status};
use exeunt_abi::Errno;
use exeunt_abi::kvm::sev::SevCmd;
use std::mem::size_of;
use std::sync::{Arc, Mutex, PoisonError};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// A command on its way.
pub(crate) struct Call<'a> {
    pub(crate) cmd: SevCmd,
    pub(crate) user: &'a dyn UserMemory,
    pub(crate) host: SevHost,
}

impl Call<'_> {
    /// Copies the command's own struct in.
    pub(crate) fn params<T: FromZeros + FromBytes + IntoBytes>(&self) -> Result<T, Errno> {
        self.read(self.cmd.data)
    }

    /// Copies the command's own struct back.
    pub(crate) fn set_params<T: IntoBytes + Immutable>(&self, params: &T) -> Result<(), Errno> {
        self.user.write(self.cmd.data, params.as_bytes())
    }

    /// Copies a struct in.
    pub(crate) fn read<T: FromZeros + FromBytes + IntoBytes>(&self, uaddr: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.user.read(uaddr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies at most `limit` bytes in.
    ///
    /// # Errors
    ///
    /// `EINVAL` for none or more than that, as `psp_copy_user_blob` has it; `EFAULT` where nothing is.
    pub(crate) fn blob(&self, uaddr: u64, len: u32, limit: u32) -> Result<Vec<u8>, Errno> {
        if uaddr == 0 || len == 0 || len > limit {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.user.read(uaddr, &mut bytes)?;
        Ok(bytes)
    }

    /// Sends a command to the processor through the file that the struct names; `error` becomes what it said.
    pub(crate) fn issue<T>(
        &mut self,
        run: impl FnOnce(&mut Platform) -> Result<T, Status>,
    ) -> Result<T, Errno> {
        self.issue_by(self.cmd.sev_fd, run)
    }

    /// Sends a command through another file.
    pub(crate) fn issue_by<T>(
        &mut self,
        file: u32,
        run: impl FnOnce(&mut Platform) -> Result<T, Status>,
    ) -> Result<T, Errno> {
        self.host.check_file(file)?;
        let result = Psp::command(self.host.psp(), run);
        self.cmd.error = result.as_ref().err().map_or(0, |failed| failed.error);
        result.map_err(|CommandError { errno, .. }| errno)
    }
}

/// The memory of a process with a buffer of the model's own in it, at an address that no process can map. So a typed
/// call and an ioctl take the same way.
#[derive(Debug)]
pub(crate) struct WithBuffer {
    below: Arc<dyn UserMemory>,
    buffer: Mutex<Vec<u8>>,
}

impl WithBuffer {
    /// Where the buffer is: the start of the kernel's half.
    pub(crate) const AT: u64 = 0xffff_8000_0000_0000;

    pub(crate) fn new(below: Arc<dyn UserMemory>, bytes: &[u8]) -> Self {
        Self { below, buffer: Mutex::new(bytes.to_vec()) }
    }

    pub(crate) fn take(self) -> Vec<u8> {
        self.buffer.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where in the buffer an address is. What does not end in the buffer is a fault.
    fn range(uaddr: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(uaddr.checked_sub(Self::AT)?).ok()?;
        Some(start..start.checked_add(bytes)?)
    }
}

impl UserMemory for WithBuffer {
    fn read(&self, uaddr: u64, to: &mut [u8]) -> Result<(), Errno> {
        let Some(range) = Self::range(uaddr, to.len()) else { return self.below.read(uaddr, to) };
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        to.copy_from_slice(buffer.get(range).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    fn write(&self, uaddr: u64, from: &[u8]) -> Result<(), Errno> {
        let Some(range) = Self::range(uaddr, from.len()) else { return self.below.write(uaddr, from) };
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.get_mut(range).ok_or(Errno::EFAULT)?.copy_from_slice(from);
        Ok(())
    }

    fn discard(&self, uaddr: u64, bytes: u64) {
        self.below.discard(uaddr, bytes);
    }
}

/// `SEV_FW_BLOB_MAX_SIZE`.
pub(crate) const BLOB_BYTES_MAX: u32 = 0x4000;

/// Bytes of a command's struct.
pub(crate) const CMD_BYTES: usize = size_of::<SevCmd>();
