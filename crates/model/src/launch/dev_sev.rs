//! `/dev/sev`: commands for the platform.
//!
//! Source: Linux v7.2 `drivers/crypto/ccp/sev-dev.c`, `sev_ioctl` and the function that each of these names.

use super::SevHost;
use super::call::BLOB_BYTES_MAX;
use crate::memory::UserMemory;
use crate::psp::{CommandError, Platform, Status};
use exeunt_abi::Errno;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::platform::{
    Buffer, SevIssueCmd, SnpConfig, SnpVlekLoad, TwoBuffers, VLEK_HASHSTICK_BYTES, command,
};
use std::mem::size_of;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// The largest identity that a caller can have room for: what the model allocates for it.
const ID_BYTES_MAX: u32 = 1 << 20;

/// A command on its way.
struct Call<'a> {
    host: &'a SevHost,
    user: &'a dyn UserMemory,
    data: u64,
    error: u32,
    writable: bool,
}

impl SevHost {
    /// `SEV_ISSUE_CMD` on an open `/dev/sev`, with its argument in the memory of a process.
    ///
    /// # Errors
    ///
    /// `EBADF` for a file that is none, `EFAULT` where the argument is not, `EINVAL` without such a command, `EPERM` for one
    /// that changes the platform through a file that is not open for writing; else what the command fails with. The
    /// struct is copied back, with what the firmware said in `error`, unless there is no such command.
    pub fn issue_cmd(&self, file: u32, arg: u64, user: &dyn UserMemory) -> Result<(), Errno> {
        let writable = self.is_writable(file)?;
        let mut cmd = SevIssueCmd::new_zeroed();
        user.read(arg, cmd.as_mut_bytes())?;
        if command::name(cmd.cmd.get()).is_none() {
            return Err(Errno::EINVAL);
        }
        let mut call = Call { host: self, user, data: cmd.data.get(), error: cmd.error.get(), writable };
        let result = call.run(cmd.cmd.get());
        cmd.error = call.error.into();
        user.write(arg, cmd.as_bytes()).and(result)
    }
}

impl Call<'_> {
    fn run(&mut self, number: u32) -> Result<(), Errno> {
        match number {
            command::FACTORY_RESET => {
                self.check_writable()?;
                if self.issue(|platform| Ok(platform.sev.count()))? > 0 {
                    return Err(Errno::EBUSY);
                }
                self.issue(Platform::factory_reset)
            }
            command::PLATFORM_STATUS => {
                let status = self.issue(|platform| Ok(platform.sev_status()))?;
                self.put(&status)
            }
            command::PEK_GEN => {
                self.check_writable()?;
                self.issue(Platform::pek_gen)
            }
            command::PDH_GEN => {
                self.check_writable()?;
                self.issue(|platform| {
                    platform.pdh_gen();
                    Ok(())
                })
            }
            command::PEK_CSR => {
                self.check_writable()?;
                self.answer(BLOB_BYTES_MAX, Errno::EFAULT, Platform::pek_csr)
            }
            command::GET_ID2 => {
                self.answer(ID_BYTES_MAX, Errno::ENOMEM, |platform| Ok(platform.socket_ids()))
            }
            command::GET_ID => {
                let ids = self.issue(|platform| Ok(platform.socket_ids()))?;
                self.user.write(self.data, &ids)
            }
            command::PDH_CERT_EXPORT => self.export(),
            command::PEK_CERT_IMPORT => {
                self.check_writable()?;
                let input: TwoBuffers = self.get()?;
                let pek = self.blob(input.cert_address.get(), input.cert_len.get())?;
                let oca = self.blob(input.other_address.get(), input.other_len.get())?;
                self.issue(|platform| platform.pek_import(&pek, &oca))
            }
            command::SNP_COMMIT => self.issue(|platform| {
                platform.commit();
                Ok(())
            }),
            // The three that are left look for their struct first.
            _ if self.data == 0 => Err(Errno::EINVAL),
            command::SNP_PLATFORM_STATUS => {
                let status = self.issue(|platform| Ok(platform.snp_status()))?;
                self.put(&status)
            }
            command::SNP_SET_CONFIG => {
                self.check_writable()?;
                let config: SnpConfig = self.get()?;
                self.issue(|platform| platform.set_config(&config))
            }
            _ => self.vlek_load(),
        }
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.writable { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn issue<T>(&mut self, run: impl FnOnce(&mut Platform) -> Result<T, Status>) -> Result<T, Errno> {
        let result = self.host.psp().command(run);
        self.error = result.as_ref().err().map_or(0, |failed| failed.error);
        result.map_err(|CommandError { errno, .. }| errno)
    }

    fn get<T: FromZeros + FromBytes + IntoBytes>(&self) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.user.read(self.data, value.as_mut_bytes())?;
        Ok(value)
    }

    fn put<T: IntoBytes + Immutable>(&self, value: &T) -> Result<(), Errno> {
        self.user.write(self.data, value.as_bytes())
    }

    /// `psp_copy_user_blob`.
    fn blob(&self, uaddr: u64, len: u32) -> Result<Vec<u8>, Errno> {
        if uaddr == 0 || len == 0 || len > BLOB_BYTES_MAX {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.user.read(uaddr, &mut bytes)?;
        Ok(bytes)
    }

    /// A command with one buffer for its answer: `sev_ioctl_do_pek_csr`, `sev_ioctl_do_get_id2`. The length that is needed
    /// is written back, and what fits of the answer, even if the firmware refuses the length.
    fn answer(
        &mut self,
        limit: u32,
        too_long: Errno,
        run: impl FnOnce(&Platform) -> Result<Vec<u8>, Status>,
    ) -> Result<(), Errno> {
        let mut input: Buffer = self.get()?;
        let (uaddr, len) = (input.address.get(), input.length.get());
        let asks = uaddr == 0 || len == 0;
        if !asks && len > limit {
            return Err(too_long);
        }
        let room = if asks { 0 } else { usize::try_from(len).unwrap_or_default() };
        let mut needed = 0;
        let result = self.issue(|platform| {
            let bytes = run(platform)?;
            needed = bytes.len();
            if room < needed { Err(firmware::INVALID_LEN) } else { Ok(bytes) }
        });
        input.length = u32::try_from(needed).unwrap_or_default().into();
        self.put(&input)?;
        match result {
            Ok(bytes) => self.user.write(uaddr, &bytes),
            Err(errno) if asks => Err(errno),
            Err(errno) => {
                // The buffer was zeroed, and is copied as far as the length says that came back, but not past its end.
                let bytes = vec![0; room.min(needed)];
                self.user.write(uaddr, &bytes).and(Err(errno))
            }
        }
    }

    /// `sev_ioctl_do_pdh_export`.
    fn export(&mut self) -> Result<(), Errno> {
        if !self.host.psp().peek(|platform| platform.sev.initialised) {
            self.check_writable()?;
            self.issue(Platform::sev_init)?;
        }
        let mut input: TwoBuffers = self.get()?;
        let [(cert, cert_len), (chain, chain_len)] = [
            (input.cert_address.get(), input.cert_len.get()),
            (input.other_address.get(), input.other_len.get()),
        ];
        let asks = cert == 0 || cert_len == 0 || chain == 0;
        if !asks && (cert_len > BLOB_BYTES_MAX || chain_len > BLOB_BYTES_MAX) {
            return Err(Errno::EFAULT);
        }
        let mut needed = (0, 0);
        let result = self.issue(|platform| {
            let (certificate, rest) = platform.pdh_chain()?;
            needed = (certificate.len(), rest.len());
            let has_room =
                |len: u32, bytes: &Vec<u8>| usize::try_from(len).is_ok_and(|len| len >= bytes.len());
            if asks || !has_room(cert_len, &certificate) || !has_room(chain_len, &rest) {
                return Err(firmware::INVALID_LEN);
            }
            Ok((certificate, rest))
        });
        input.cert_len = u32::try_from(needed.0).unwrap_or_default().into();
        input.other_len = u32::try_from(needed.1).unwrap_or_default().into();
        self.put(&input)?;
        let (certificate, rest) = result?;
        self.user.write(cert, &certificate)?;
        self.user.write(chain, &rest)
    }

    /// `sev_ioctl_do_snp_vlek_load`.
    fn vlek_load(&mut self) -> Result<(), Errno> {
        self.check_writable()?;
        let input: SnpVlekLoad = self.get()?;
        let is_struct = usize::try_from(input.len.get()) == Ok(size_of::<SnpVlekLoad>());
        if !is_struct || input.vlek_wrapped_version != 0 {
            return Err(Errno::EINVAL);
        }
        let len = u32::try_from(VLEK_HASHSTICK_BYTES).unwrap_or_default();
        let blob = self.blob(input.vlek_wrapped_address.get(), len)?;
        let blob = <[u8; VLEK_HASHSTICK_BYTES]>::try_from(blob.as_slice()).map_err(|_| Errno::EINVAL)?;
        self.issue(|platform| platform.load_vlek(&blob))
    }
}
