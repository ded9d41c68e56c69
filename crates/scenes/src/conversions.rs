//! How a guest asks for conversions, whatever kind of guest it is: by `VMMCALL`, or through its GHCB where that raises
//! `#VC`. So one program plays in VMs of several types.

use exeunt_abi::ghcb::{exit_code, page};
use exeunt_abi::kvm::run::MAP_GPA_RANGE;
use exeunt_abi::{Gpa, PAGE_SIZE};
use exeunt_model::guest::snp::Ghcb;
use exeunt_model::guest::{Access, Cpu, GuestFault};

/// The GHCB of the first vCPU; those of the others follow.
const GHCB: Gpa = Gpa(0x2000);

/// The way to the host.
#[derive(Debug, Default)]
pub(crate) struct Converter {
    /// Known from the first hypercall that raised `#VC`.
    ghcb: Option<Ghcb>,
}

impl Converter {
    /// `KVM_HC_MAP_GPA_RANGE`. Returns RAX.
    pub(crate) async fn map_gpa_range(
        &mut self,
        cpu: &Cpu,
        gpa: u64,
        pages: u64,
        attributes: u64,
    ) -> Result<u64, GuestFault> {
        let args = [gpa, pages, attributes, 0];
        if self.ghcb.is_none() {
            match cpu.vmmcall(MAP_GPA_RANGE, args).await {
                Err(GuestFault::VmmCommunication) => {
                    let own = Gpa(GHCB.0.wrapping_add(cpu.id().wrapping_mul(PAGE_SIZE)));
                    self.ghcb = Some(Ghcb::set_up(cpu, own).await?);
                }
                result => return result,
            }
        }
        let Some(ghcb) = self.ghcb else { return Err(GuestFault::VmmCommunication) };
        let [rbx, rcx, rdx, rsi] = args;
        let fields = [
            (page::RAX, MAP_GPA_RANGE),
            (page::RBX, rbx),
            (page::RCX, rcx),
            (page::RDX, rdx),
            (page::RSI, rsi),
            // Ring 0.
            (page::CPL, 0),
        ];
        ghcb.request(cpu, exit_code::VMMCALL, [0, 0], &fields).await.map(|answer| answer.rax)
    }
}

/// Writes to a page that the guest may have to validate first.
pub(crate) async fn touch(cpu: &Cpu, gpa: Gpa, bytes: &[u8], access: Access) -> Result<(), GuestFault> {
    match cpu.write(gpa, bytes, access).await {
        Err(GuestFault::NotValidated { .. }) => {
            cpu.pvalidate(gpa, true).await?;
            cpu.write(gpa, bytes, access).await
        }
        result => result,
    }
}
