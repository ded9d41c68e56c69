//! Giving a snapshot to another VM.

use super::error::Refusal;
use super::events::SnapshotError;
use super::section::{self, Contents, Need, Origin, VcpuState};
use super::{SavedEvents, Snapshot};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Errno, Gfn};
use exeunt_proto::conversion::PageState;
use exeunt_proto::events::unknown_flags;
use exeunt_proto::host::{Action, Host};
use exeunt_proto::state::{Area, State};
use thiserror::Error;

/// What has to be known of a target before it is touched.
pub trait Target {
    /// Its architecture.
    fn arch(&self) -> Arch;

    /// `KVM_CHECK_EXTENSION` for VMs of the snapshot's type: what a capability says, 0 where it is absent.
    fn offers(&self, cap: Cap) -> u64;
}

/// Why a VM could not be given a snapshot. It is not to be run: a part may have been taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Memory attributes could not be set.
    #[error("the attributes of frame {gfn:#x} cannot be set: {errno}")]
    Attributes {
        /// The first frame of the run.
        gfn: u64,
        /// The error.
        errno: Errno,
    },
    /// A page could not be written.
    #[error("frame {gfn:#x} cannot be written: {errno}")]
    Memory {
        /// The frame.
        gfn: u64,
        /// The error.
        errno: Errno,
    },
    /// The vCPU is another than the one that was saved.
    #[error("vCPU {found} is not vCPU {saved}")]
    Vcpu {
        /// The id in the snapshot.
        saved: u64,
        /// The id of the vCPU.
        found: u64,
    },
    /// Registers were refused.
    #[error("vCPU {vcpu}: KVM_SET_{area} failed with {errno}")]
    Area {
        /// The vCPU.
        vcpu: u64,
        /// Which.
        area: Area,
        /// The error.
        errno: Errno,
    },
    /// State of a kind that is not known here.
    #[error("vCPU {vcpu}: state of kind {kind:#x} is not known here")]
    UnknownState {
        /// The vCPU.
        vcpu: u64,
        /// The kind.
        kind: u32,
    },
    /// The `mp_state` was refused.
    #[error("vCPU {vcpu}: KVM_SET_MP_STATE of {mp_state} failed with {errno}")]
    MpState {
        /// The vCPU.
        vcpu: u64,
        /// The number.
        mp_state: u32,
        /// The error.
        errno: Errno,
    },
    /// The events were refused.
    #[error("vCPU {vcpu}: {error}")]
    Events {
        /// The vCPU.
        vcpu: u64,
        /// Why.
        error: SnapshotError,
    },
}

impl Snapshot {
    /// Whether a target can take this snapshot and lose nothing. The target is only asked.
    ///
    /// # Errors
    ///
    /// The first reason why not, in the order of the variants.
    pub fn check(&self, target: &impl Target) -> Result<(), Refusal> {
        check_head(&self.origin, &self.needs, target)?;
        let bits = self.attributes.iter().fold(0, |bits, run| bits | run.attributes);
        if bits & !MEMORY_ATTRIBUTE_PRIVATE != 0 {
            return Err(Refusal::Attributes { bits: bits & !MEMORY_ATTRIBUTE_PRIVATE });
        }
        for VcpuState { id, events, areas, .. } in &self.vcpus {
            if let Some(unknown) = areas.iter().find(|area| area.area().is_none()) {
                return Err(Refusal::UnknownState { vcpu: *id, kind: unknown.kind });
            }
            let bits = unknown_flags(events);
            if bits != 0 {
                return Err(Refusal::UnknownEvents { vcpu: *id, bits });
            }
        }
        Ok(())
    }

    /// Gives attributes and pages to a new VM that has the slots of [`Snapshot::slots`].
    ///
    /// # Errors
    ///
    /// The first effect that failed.
    pub fn restore_memory(&self, host: &mut impl Host) -> Result<(), RestoreError> {
        for run in self.attributes.iter().filter(|run| run.is_private()) {
            let gfn = run.range.gfn().0;
            host.apply(&Action::SetAttributes { range: run.range, to: PageState::Private })
                .map_err(|errno| RestoreError::Attributes { gfn, errno })?;
        }
        for (&gfn, page) in &self.pages {
            host.apply(&Action::WriteGuest { gpa: Gfn(gfn).gpa(), bytes: page.as_slice() })
                .map_err(|errno| RestoreError::Memory { gfn, errno })?;
        }
        Ok(())
    }
}

/// What [`Snapshot::check`] asks that the first two sections can say, which a source offers before it sends the rest.
///
/// # Errors
///
/// As for [`Snapshot::check`].
pub fn check_head(origin: &Origin, needs: &[Need], target: &impl Target) -> Result<(), Refusal> {
    let vm_type = origin.vm_type_name();
    if origin.contents == Contents::OutsideOnly {
        return Err(Refusal::OutsideOnly { vm_type });
    }
    let target_arch = section::arch_number(target.arch());
    if origin.arch != target_arch {
        let [source_arch, target_arch] = [origin.arch, target_arch].map(section::arch_name);
        return Err(Refusal::Arch { source_arch, target_arch });
    }
    // The capability is younger than the default type.
    let offered = target.offers(Cap::VM_TYPES) | 1 << VmType::Default.number();
    let mask = u32::try_from(origin.vm_type).ok().and_then(|number| 1u64.checked_shl(number));
    if mask.is_none_or(|mask| offered & mask == 0) {
        return Err(Refusal::VmType { vm_type });
    }
    for need in needs {
        let offered = target.offers(need.cap);
        // A capability that takes any argument says 1.
        let enough = offered & need.value == need.value || need.value > 0 && offered == 1;
        if offered == 0 || !enough {
            let (cap, value, why) = (need.cap, need.value, need.why.to_string());
            return Err(Refusal::Capability { cap, value, offered, why });
        }
    }
    Ok(())
}

/// Gives a vCPU's state to a new vCPU: the areas in their order, `mp_state` as it came, the events last.
///
/// # Errors
///
/// The first ioctl that failed.
pub fn restore_vcpu(saved: &VcpuState, vcpu: &mut impl State) -> Result<(), RestoreError> {
    let id = saved.id;
    if vcpu.vcpu_id() != id {
        return Err(RestoreError::Vcpu { saved: id, found: vcpu.vcpu_id() });
    }
    for state in &saved.areas {
        let area = state.area().ok_or(RestoreError::UnknownState { vcpu: id, kind: state.kind })?;
        vcpu.set_area(area, &state.bytes).map_err(|errno| RestoreError::Area { vcpu: id, area, errno })?;
    }
    let mp_state = saved.mp_state;
    vcpu.set_mp_state(mp_state).map_err(|errno| RestoreError::MpState { vcpu: id, mp_state, errno })?;
    SavedEvents::from(saved.events).restore(vcpu).map_err(|error| RestoreError::Events { vcpu: id, error })
}
