//! What a TD's kernel does at the boundary: `TDCALL`, and what is made of it.

use super::GuestFault;
use super::cpu::{Act, Cpu};
use super::mailbox::{Op, Outcome};
use exeunt_abi::ghci::{self, Status};
use exeunt_abi::tdx::{CompletionStatus, gpr, leaf};
use exeunt_abi::{Gpa, PAGE_SIZE};

/// The registers of a `TDCALL`, before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TdRegs {
    /// The leaf, and the status.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// The first operand; for `TDG.VP.VMCALL` the registers that are passed.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8.
    pub r8: u64,
    /// R9.
    pub r9: u64,
    /// 0 for a call of the GHCI, and its status.
    pub r10: u64,
    /// The leaf of a call of the GHCI, and its result.
    pub r11: u64,
    /// R12.
    pub r12: u64,
    /// R13.
    pub r13: u64,
    /// R14.
    pub r14: u64,
    /// R15.
    pub r15: u64,
}

impl TdRegs {
    /// A `TDG.VP.VMCALL` of the GHCI with a leaf and its arguments in R12 to R15.
    #[must_use]
    pub const fn vmcall(leaf: u64, [r12, r13, r14, r15]: [u64; 4]) -> Self {
        let zero = Self {
            rax: leaf::VP_VMCALL,
            rbx: 0,
            rcx: gpr::R10_TO_R15,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
        };
        Self { r11: leaf, r12, r13, r14, r15, ..zero }
    }

    /// R10 after a `TDG.VP.VMCALL`.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status(self.r10)
    }

    /// RAX after a `TDCALL`.
    #[must_use]
    pub const fn completion(&self) -> CompletionStatus {
        CompletionStatus(self.rax)
    }

    /// R10 to R15.
    pub(crate) const fn r10_to_r15(&self) -> [u64; 6] {
        [self.r10, self.r11, self.r12, self.r13, self.r14, self.r15]
    }

    /// The registers that can be passed to the host, with their bits of RCX.
    fn passable(&mut self) -> [(u64, &mut u64); 12] {
        [
            (gpr::RDX, &mut self.rdx),
            (gpr::RBX, &mut self.rbx),
            (gpr::RSI, &mut self.rsi),
            (gpr::RDI, &mut self.rdi),
            (1 << 8, &mut self.r8),
            (1 << 9, &mut self.r9),
            (1 << 10, &mut self.r10),
            (1 << 11, &mut self.r11),
            (1 << 12, &mut self.r12),
            (1 << 13, &mut self.r13),
            (1 << 14, &mut self.r14),
            (1 << 15, &mut self.r15),
        ]
    }

    /// Takes over the registers that a mask selects.
    pub(crate) fn take(&mut self, mut from: Self, mask: u64) {
        for ((bit, to), (_, from)) in self.passable().into_iter().zip(from.passable()) {
            if mask & bit != 0 {
                *to = *from;
            }
        }
    }
}

/// What `TDG.VP.INFO` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdInfo {
    /// The bits of an address: 48 or 52. The highest one makes it shared.
    pub gpa_width: u32,
    /// As in [`exeunt_abi::tdx::attributes`].
    pub attributes: u64,
    /// vCPUs that there are.
    pub vcpus: u64,
    /// vCPUs that there can be.
    pub max_vcpus: u64,
    /// Which of them this is.
    pub index: u64,
}

impl TdInfo {
    /// The address with the shared bit.
    #[must_use]
    pub const fn shared(&self, gpa: Gpa) -> u64 {
        gpa.0 | 1u64.wrapping_shl(self.gpa_width.wrapping_sub(1))
    }
}

/// The size of a page, for `TDG.MEM.PAGE.ACCEPT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptSize {
    /// 4 KiB, level 0.
    Size4K,
    /// 2 MiB, level 1.
    Size2M,
}

impl Cpu {
    /// `TDCALL` with these registers: RAX is the leaf. Returns them as they are afterwards.
    ///
    /// # Errors
    ///
    /// `#UD` outside of TDs, and the exception of an access to memory that the call makes.
    pub fn tdcall(&self, regs: TdRegs) -> Act<TdRegs> {
        Act::new(Op::Tdcall(Box::new(regs)), registers)
    }

    /// `TDG.VP.VMCALL` of the GHCI: a leaf with R12 to R15. Returns the registers: the status is in R10.
    ///
    /// # Errors
    ///
    /// `#UD` outside of TDs.
    pub fn tdvmcall(&self, leaf: u64, args: [u64; 4]) -> Act<TdRegs> {
        self.tdcall(TdRegs::vmcall(leaf, args))
    }

    /// `TDG.VP.INFO`.
    ///
    /// # Errors
    ///
    /// `#UD` outside of TDs.
    pub async fn tdg_vp_info(&self) -> Result<TdInfo, GuestFault> {
        let regs = self.tdcall(TdRegs { rax: leaf::VP_INFO, ..TdRegs::default() }).await?;
        Ok(TdInfo {
            gpa_width: u32::try_from(regs.rcx & 0x3f).unwrap_or(0),
            attributes: regs.rdx,
            vcpus: regs.r8 & 0xffff_ffff,
            max_vcpus: regs.r8 >> 32,
            index: regs.r9,
        })
    }

    /// `TDG.MEM.PAGE.ACCEPT` of one page. It becomes zero.
    ///
    /// # Errors
    ///
    /// `#UD` outside of TDs.
    pub async fn tdg_mem_page_accept(
        &self,
        gpa: Gpa,
        size: AcceptSize,
    ) -> Result<CompletionStatus, GuestFault> {
        let level = u64::from(size == AcceptSize::Size2M);
        let regs = TdRegs { rax: leaf::MEM_PAGE_ACCEPT, rcx: gpa.0 | level, ..TdRegs::default() };
        Ok(self.tdcall(regs).await?.completion())
    }

    /// `TDG.MR.REPORT`: writes a report to `report`, with the 64 bytes at `data` in it. Both addresses may be shared ones.
    ///
    /// # Errors
    ///
    /// `#UD` outside of TDs, and the exception of the accesses.
    pub async fn tdg_mr_report(&self, report: u64, data: u64) -> Result<CompletionStatus, GuestFault> {
        let regs = TdRegs { rax: leaf::MR_REPORT, rcx: report, rdx: data, ..TdRegs::default() };
        Ok(self.tdcall(regs).await?.completion())
    }

    /// `TDG.MR.RTMR.EXTEND`: extends a register with the 48 bytes at an address.
    ///
    /// # Errors
    ///
    /// `#UD` outside of TDs, and the exception of the access.
    pub async fn tdg_mr_rtmr_extend(&self, data: Gpa, index: u64) -> Result<CompletionStatus, GuestFault> {
        let regs = TdRegs { rax: leaf::MR_RTMR_EXTEND, rcx: data.0, rdx: index, ..TdRegs::default() };
        Ok(self.tdcall(regs).await?.completion())
    }

    /// RCX as the vCPU of a TD starts with it, which the VMM chose; 0 elsewhere.
    pub async fn initial_rcx(&self) -> u64 {
        Act::new(Op::InitialRcx, super::cpu::value).await.unwrap_or(0)
    }
}

fn registers(outcome: Outcome) -> Result<TdRegs, GuestFault> {
    match outcome {
        Outcome::Tdcall(regs) => Ok(*regs),
        Outcome::Fault(fault) => Err(fault),
        _ => Ok(TdRegs::default()),
    }
}

/// How often a Linux guest asks again at the same address before it gives up.
const MAX_RETRIES: u32 = 3;

/// `MapGPA` as a Linux guest makes it: `RETRY` goes on at the address in R11. Returns the last status.
///
/// `gpa` has the shared bit if the range is to be shared.
///
/// Source: Linux v7.2 `arch/x86/coco/tdx/tdx.c`, `tdx_map_gpa`.
///
/// # Errors
///
/// `#UD` outside of TDs.
pub async fn map_gpa(cpu: &Cpu, gpa: u64, bytes: u64) -> Result<Status, GuestFault> {
    let (mut start, end) = (gpa, gpa.wrapping_add(bytes));
    let mut retries = 0;
    while retries < MAX_RETRIES {
        let regs = cpu.tdvmcall(ghci::leaf::MAP_GPA, [start, end.wrapping_sub(start), 0, 0]).await?;
        let (status, next) = (regs.status(), regs.r11);
        if status != Status::RETRY {
            return Ok(status);
        }
        if next < start || next >= end {
            return Ok(Status::INVALID_OPERAND);
        }
        retries = if next == start { retries.saturating_add(1) } else { 0 };
        start = next;
    }
    Ok(Status::RETRY)
}

/// Accepts a range page by page, 2 MiB at once where the host maps so, as a Linux guest does. Returns the first status that
/// is not a success.
///
/// # Errors
///
/// `#UD` outside of TDs.
pub async fn accept_range(cpu: &Cpu, gpa: Gpa, bytes: u64) -> Result<CompletionStatus, GuestFault> {
    const LARGE: u64 = 2 << 20;
    let end = gpa.0.saturating_add(bytes);
    let mut at = gpa.0;
    while at < end {
        let fits = at & (LARGE - 1) == 0 && end.saturating_sub(at) >= LARGE;
        if fits && cpu.tdg_mem_page_accept(Gpa(at), AcceptSize::Size2M).await? == CompletionStatus::SUCCESS {
            at = at.saturating_add(LARGE);
            continue;
        }
        let status = cpu.tdg_mem_page_accept(Gpa(at), AcceptSize::Size4K).await?;
        if status != CompletionStatus::SUCCESS {
            return Ok(status);
        }
        at = at.saturating_add(PAGE_SIZE);
    }
    Ok(CompletionStatus::SUCCESS)
}

/// `ReportFatalError` with a text of up to 64 bytes.
///
/// # Errors
///
/// `#UD` outside of TDs.
pub async fn report_fatal_error(cpu: &Cpu, error: u64, text: &[u8]) -> Result<(), GuestFault> {
    let mut message = [0u8; 64];
    message.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    let mut words =
        message.chunks_exact(8).map(|chunk| chunk.first_chunk().copied().map_or(0, u64::from_le_bytes));
    let mut next = || words.next().unwrap_or(0);
    let [r14, r15, rbx, rdi, rsi, r8, r9, rdx] = std::array::from_fn(|_| next());
    let call = TdRegs::vmcall(ghci::leaf::REPORT_FATAL_ERROR, [error, 0, r14, r15]);
    cpu.tdcall(TdRegs { rcx: gpr::ALL, rbx, rdi, rsi, r8, r9, rdx, ..call }).await.map(|_| ())
}
