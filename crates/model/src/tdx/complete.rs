//! Completions of `TDG.VP.VMCALL`.

use super::MapGpa;
use super::map_gpa::ChunkAnswer;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::{Hypercall, Mmio, Tdx, TdxGetTdVmCallInfo};

/// What an exit of a TD waits for. No answer but that to `MapGPA` is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TdCompletion {
    /// `hypercall.ret` goes to R10.
    Hypercall,
    /// The answer to a chunk.
    MapGpa(MapGpa),
    /// `ret` goes to R10.
    Simple,
    /// `ret` goes to R10, the other fields to R11 to R14.
    GetTdVmCallInfo,
    /// The port page goes to R11.
    PortIn {
        /// Bytes.
        size: u8,
    },
    /// The data goes to R11.
    MmioRead {
        /// Bytes.
        size: u8,
    },
}

impl Vcpu {
    /// # Errors
    ///
    /// `EINVAL` for an answer to `MapGPA` that is none: the guest finds R10 = 0, which is success, when it is entered the
    /// next time.
    pub(crate) fn complete_td(&mut self, completion: TdCompletion) -> Result<Step, Errno> {
        match completion {
            TdCompletion::Hypercall => self.td.args.r10 = self.page.payload::<Hypercall>().ret,
            TdCompletion::MapGpa(map) => {
                let answer = self.chunk_answer()?;
                return Ok(self.complete_map_gpa(map, answer));
            }
            TdCompletion::Simple => self.td.args.r10 = self.page.payload::<Tdx>().ret,
            TdCompletion::GetTdVmCallInfo => {
                let answer: TdxGetTdVmCallInfo = self.page.payload();
                let args = &mut self.td.args;
                [args.r10, args.r11] = [answer.ret, answer.r11];
                [args.r12, args.r13, args.r14] = [answer.r12, answer.r13, answer.r14];
            }
            TdCompletion::PortIn { size } => {
                let data = self.port_data.first_chunk().copied().unwrap_or_default();
                self.td.args.r11 = low_bytes(u64::from_le_bytes(data), size);
            }
            TdCompletion::MmioRead { size } => {
                let data = self.page.payload::<Mmio>().data;
                self.td.args.r11 = low_bytes(u64::from_le_bytes(data), size);
            }
        }
        Ok(Step::Resume)
    }

    /// Linux before 7.1 took every answer but 0 for an error.
    fn chunk_answer(&self) -> Result<ChunkAnswer, Errno> {
        let ret = self.page.payload::<Hypercall>().ret;
        let is = |errno: Errno| u64::try_from(errno.0) == Ok(ret);
        if ret == 0 {
            Ok(ChunkAnswer::Done)
        } else if !self.kernel.dialect.checks_conversion_ret() || is(Errno::EINVAL) {
            Ok(ChunkAnswer::Invalid)
        } else if is(Errno::EAGAIN) {
            Ok(ChunkAnswer::Retry)
        } else {
            Err(Errno::EINVAL)
        }
    }
}

/// The low bytes of a word; the rest is zero.
fn low_bytes(word: u64, size: u8) -> u64 {
    let unused = 64u32.saturating_sub(u32::from(size).saturating_mul(8));
    word & u64::MAX.checked_shr(unused).unwrap_or(0)
}
