//! What an SNP guest's kernel does at the boundary, as building blocks for programs.

use super::{Access, Cpu, GuestFault};
use exeunt_abi::ghcb::page::{self, Field};
use exeunt_abi::ghcb::{exit_code, msr, psc};
use exeunt_abi::{Gfn, Gpa, PAGE_SIZE};
use exeunt_proto::ghcb::MsrRequest;

/// What the hypervisor left in the GHCB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `SW_EXITINFO1`.
    pub info_1: u64,
    /// `SW_EXITINFO2`.
    pub info_2: u64,
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
}

/// A GHCB in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Ghcb {
    gpa: Gpa,
}

impl Ghcb {
    /// Makes a page shared by the MSR protocol, registers it as the GHCB, and returns it.
    ///
    /// # Errors
    ///
    /// An exception, which a guest that has no GHCB cannot handle.
    pub async fn set_up(cpu: &Cpu, gpa: Gpa) -> Result<Self, GuestFault> {
        cpu.vmgexit(MsrRequest::psc(gpa.gfn(), psc::operation::SHARED)).await?;
        cpu.vmgexit(gpa.0 | msr::REGISTER_GPA_REQUEST).await?;
        Ok(Self { gpa })
    }

    /// A page that is shared and registered already, or need not be.
    #[must_use]
    pub const fn at(gpa: Gpa) -> Self {
        Self { gpa }
    }

    /// The address of the page.
    #[must_use]
    pub const fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// The first byte of the shared buffer.
    #[must_use]
    pub const fn shared_buffer(&self) -> Gpa {
        Gpa(self.gpa.0.wrapping_add(page::SHARED_BUFFER))
    }

    /// Clears the page, writes the exit and the given fields with their valid bits, executes `VMGEXIT`, and reads
    /// what came back.
    ///
    /// # Errors
    ///
    /// The exception of an access to the page.
    pub async fn request(
        &self,
        cpu: &Cpu,
        code: u64,
        info: [u64; 2],
        fields: &[(Field, u64)],
    ) -> Result<Answer, GuestFault> {
        let [info_1, info_2] = info;
        let exit =
            [(page::SW_EXIT_CODE, code), (page::SW_EXIT_INFO_1, info_1), (page::SW_EXIT_INFO_2, info_2)];
        let mut save_area = vec![0; 0x400];
        let mut valid = 0u128;
        for (field, value) in exit.iter().chain(fields) {
            let at = usize::from(field.offset);
            save_area.splice(at..at.saturating_add(8), value.to_le_bytes());
            valid |= field.mask();
        }
        let bitmap = usize::try_from(page::VALID_BITMAP).unwrap_or_default();
        save_area.splice(bitmap..bitmap.saturating_add(16), valid.to_le_bytes());
        cpu.write(self.gpa, &save_area, Access::Shared).await?;
        cpu.vmgexit(self.gpa.0).await?;
        Ok(Answer {
            info_1: cpu.read_u64(page::SW_EXIT_INFO_1.at(self.gpa), Access::Shared).await?,
            info_2: cpu.read_u64(page::SW_EXIT_INFO_2.at(self.gpa), Access::Shared).await?,
            rax: cpu.read_u64(page::RAX.at(self.gpa), Access::Shared).await?,
            rbx: cpu.read_u64(page::RBX.at(self.gpa), Access::Shared).await?,
            rcx: cpu.read_u64(page::RCX.at(self.gpa), Access::Shared).await?,
            rdx: cpu.read_u64(page::RDX.at(self.gpa), Access::Shared).await?,
        })
    }

    /// One page-state change request with these entries, all of them to be done.
    ///
    /// # Errors
    ///
    /// The exception of an access to the page.
    pub async fn page_state_change(&self, cpu: &Cpu, entries: &[psc::Entry]) -> Result<Answer, GuestFault> {
        let last = entries.len().saturating_sub(1) as u64;
        let mut descriptor = (last << 16).to_le_bytes().to_vec();
        descriptor.extend(entries.iter().flat_map(|entry| entry.0.to_le_bytes()));
        cpu.write(self.shared_buffer(), &descriptor, Access::Shared).await?;
        self.request(cpu, exit_code::PSC, [0, 0], &[(page::SW_SCRATCH, self.shared_buffer().0)]).await
    }

    /// `cur_entry` of the descriptor: the first entry that is not done.
    ///
    /// # Errors
    ///
    /// The exception of an access to the page.
    pub async fn current_entry(&self, cpu: &Cpu) -> Result<u64, GuestFault> {
        Ok(cpu.read_u64(self.shared_buffer(), Access::Shared).await? & 0xffff)
    }
}

/// Makes one page private by the MSR protocol, and validates it.
///
/// # Errors
///
/// An exception, for instance when the host did not do its part.
pub async fn accept_page(cpu: &Cpu, gfn: Gfn) -> Result<u64, GuestFault> {
    let response = cpu.vmgexit(MsrRequest::psc(gfn, psc::operation::PRIVATE)).await?;
    if response == msr::PSC_RESPONSE {
        cpu.pvalidate(gfn.gpa(), true).await?;
    }
    Ok(response)
}

/// The address of the `index`th page from `base` on.
#[must_use]
pub const fn page_at(base: Gpa, index: u64) -> Gpa {
    Gpa(base.0.wrapping_add(index.wrapping_mul(PAGE_SIZE)))
}
