//! What asks a VMM to stop, reset or suspend a machine, by architecture.

mod hyperv;
mod psci;
mod sbi;

use crate::vcpu::{MpState, Vcpu};
use exeunt_proto::exit::{Entered, Exit, SystemEvent};

pub(crate) use hyperv::HypervCrash;
pub(crate) use psci::ArmFeatures;
pub(crate) use sbi::SbiState;

impl Vcpu {
    /// Stops every vCPU of the VM and tells userspace, as arm64 and riscv64 do. The others stop before they enter the
    /// guest the next time; a VMM may start them again.
    ///
    /// Source: Linux v7.2 `arch/arm64/kvm/psci.c`, `kvm_prepare_system_event`, and `arch/riscv/kvm/vcpu_sbi.c`,
    /// `kvm_riscv_vcpu_sbi_system_reset`.
    fn stop_all(&mut self, event: SystemEvent) -> Entered {
        for peer in self.vm.lock().peers.values() {
            peer.set_mp_state(MpState::Stopped);
        }
        self.exit(&Exit::SystemEvent(event))
    }
}
