//! Processors that an SNP guest starts with a VMSA of its own making.

use crate::vcpu::{MpState, Step, Vcpu, low};
use exeunt_abi::ghcb::exit_code::ap_creation;
use exeunt_abi::ghcb::page::malformed;
use exeunt_abi::vmsa::{self, sev_features};
use exeunt_abi::{Gpa, PAGE_SIZE, PAGES_PER_2M};
use std::sync::Arc;

/// What another vCPU asked for, until the target takes it over. It is a part of [`crate::vcpu::peer::Waiting`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PendingVmsa {
    /// `snp_vmsa_gpa`; `None` for `INVALID_PAGE`, which destroys.
    gpa: Option<Gpa>,
    /// `snp_ap_waiting_for_reset`.
    waits: bool,
}

/// Which VMSA a vCPU runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vmsa {
    /// KVM's own page, which was measured at the launch.
    #[default]
    Boot,
    /// A page of the guest.
    Guest(Gpa),
    /// `INVALID_PAGE`: the vCPU cannot be entered.
    Invalid,
}

/// The VMSA of a vCPU and the requests that are about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApState {
    pub(crate) vmsa: Vmsa,
    /// `KVM_REQ_UPDATE_PROTECTED_GUEST_STATE`.
    pub(crate) update: bool,
}

/// Modes in which events are injected: `SVM_SEV_FEAT_INT_INJ_MODES`.
const INJECTION_MODES: u64 = sev_features::RESTRICTED_INJECTION | sev_features::ALTERNATE_INJECTION;

impl Vcpu {
    /// Answers at once; the target does the work when it runs next.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_snp_ap_creation`.
    pub(super) fn ap_creation(&mut self) -> Step {
        if !self.create_ap() {
            self.ghcb.refuse(&mut self.vm.lock().memory, malformed::INVALID_INPUT);
        }
        Step::Resume
    }

    /// `false` if the request is malformed.
    fn create_ap(&mut self) -> bool {
        let [info_1, info_2] = self.ghcb.info;
        let (request, apic_id) = (low(info_1), info_1 >> 32);
        let (target, features) = {
            let state = self.vm.lock();
            let Some(target) = state.peers.get(&apic_id) else { return false };
            (Arc::clone(target), state.sev.vmsa_features)
        };
        let gpa = match request {
            ap_creation::CREATE | ap_creation::CREATE_ON_INIT => {
                let differs = self.regs.rax ^ features;
                let counts =
                    if self.kernel.dialect.compares_all_sev_features() { u64::MAX } else { INJECTION_MODES };
                if differs & counts != 0 || !self.is_vmsa_address(Gpa(info_2)) {
                    return false;
                }
                Some(Gpa(info_2))
            }
            ap_creation::DESTROY => None,
            _ => return false,
        };
        self.did(|| format!("asks for vCPU {apic_id} to get the VMSA {gpa:x?}"));
        let at_once = request != ap_creation::CREATE_ON_INIT;
        target.change(|waiting| waiting.vmsa = PendingVmsa { gpa, waits: true });
        if at_once {
            target.knock(|inbox| inbox.update_vmsa = true);
        }
        true
    }

    /// Page-aligned, within the guest's addresses, and, for an erratum of the hardware, not the first page of 2 MiB.
    fn is_vmsa_address(&self, gpa: Gpa) -> bool {
        let is_legal = gpa.0 & self.cpuid.reserved_guest_address_bits() == 0;
        gpa.is_page_aligned() && is_legal && gpa.0 & (PAGES_PER_2M * PAGE_SIZE - 1) != 0
    }

    /// Takes over the VMSA that another vCPU asked for, as a part of an INIT.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_snp_init_protected_guest_state`.
    pub(crate) fn update_vmsa(&mut self) {
        let pending = self.peer.change(|waiting| std::mem::take(&mut waiting.vmsa));
        if !pending.waits {
            return;
        }
        self.peer.set_mp_state(MpState::Halted);
        self.ap.vmsa = Vmsa::Invalid;
        self.shut_down = false;
        self.vm.lock().memory.vmsas.watch(self.id(), None);
        let Some(gpa) = pending.gpa else { return };
        if self.install_vmsa(gpa) || self.kernel.dialect.runs_after_a_failed_ap_creation() {
            self.peer.set_mp_state(MpState::Runnable);
        }
    }

    /// Looks the page up, which has to be in a `guest_memfd`. Whether it is a VMSA is the processor's to judge.
    fn install_vmsa(&mut self, gpa: Gpa) -> bool {
        let mut level = [0];
        {
            let memory = &mut self.vm.lock().memory;
            memory.vmsas.watch(self.id(), Some(gpa.gfn()));
            if memory.private_pfn(gpa.gfn()).is_err() {
                return false;
            }
            memory.read_private(gpa.gfn(), usize::from(vmsa::VMPL.offset), &mut level);
        }
        self.ap.vmsa = Vmsa::Guest(gpa);
        let [level] = level;
        self.set_vmpl(level);
        self.switch_program(gpa);
        true
    }

    /// Looks the page of the VMSA up again, after it was taken away.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/sev.c`, `sev_gmem_invalidate_range` and what serves its request.
    pub(crate) fn reload_vmsa(&mut self) {
        if let Vmsa::Guest(gpa) = self.ap.vmsa {
            let is_requested = self.vm.lock().memory.vmsas.take_reload(self.id());
            if is_requested {
                self.ap.vmsa = Vmsa::Invalid;
                self.install_vmsa(gpa);
            }
        }
    }

    /// Whether the processor takes the VMSA: one of the guest's has to be marked as such in the reverse map.
    ///
    /// Source: AMD 24593 "APM volume 2", section 15.36.7 "Virtual Machine Privilege Levels".
    pub(crate) fn vmsa_is_valid(&self) -> bool {
        match self.ap.vmsa {
            Vmsa::Boot => true,
            Vmsa::Guest(gpa) => self.vm.lock().memory.rmp_entry(gpa.gfn()).is_vmsa(),
            Vmsa::Invalid => false,
        }
    }
}
