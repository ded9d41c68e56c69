//! Taking a snapshot of a VM.

use super::events::SnapshotError;
use super::section::{self, AreaState, AttributeRun, Contents, DeviceState, Origin, SlotLayout, VcpuState};
use super::{PAGE_BYTES, Page, SavedEvents, Snapshot, is_private};
use crate::memory::GuestMemory;
use crate::policy::Policy;
use crate::run::drain;
use crate::stop::Stop;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Errno, Gfn};
use exeunt_proto::conversion::{PageRange, PageState};
use exeunt_proto::host::{Host, Vcpu};
use exeunt_proto::state::{Area, State};
use std::collections::BTreeMap;
use thiserror::Error;

/// A vCPU with nothing pending: every answer has been handed over, and what they led to has been answered in turn. A
/// completion is invisible to every ioctl that reads, so that a vCPU with one cannot be saved.
#[derive(Debug)]
pub struct Drained<'v, V> {
    vcpu: &'v mut V,
    /// `kvm_run.flags` of the last entry.
    flags: u16,
}

/// `KVM_RUN_X86_GUEST_MODE`: a guest of the guest was running. Linux 6.11 is the first to say so.
///
/// Source: Linux v7.2 `arch/x86/include/uapi/asm/kvm.h`.
const RUN_X86_GUEST_MODE: u16 = 1 << 2;

impl<'v, V: Vcpu> Drained<'v, V> {
    /// Drains a vCPU. It must not be entered again while this lives, which the borrow sees to.
    ///
    /// # Errors
    ///
    /// An exit of a chain ended the run: the vCPU cannot be saved.
    pub fn drain(vcpu: &'v mut V, host: &mut impl Host, policy: &Policy) -> Result<Self, Stop> {
        drain(vcpu, host, policy)?;
        let flags = vcpu.page().flags;
        Ok(Self { vcpu, flags })
    }
}

#[cfg(test)]
impl<'v, V> Drained<'v, V> {
    /// One that is not entered at all.
    pub(super) fn assume(vcpu: &'v mut V, flags: u16) -> Self {
        Self { vcpu, flags }
    }
}

/// What a VMM knows about the memory of its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The slots, by their frames.
    pub slots: Vec<SlotLayout>,
    /// The attributes that are not 0, by their frames.
    pub attributes: Vec<AttributeRun>,
}

impl Layout {
    /// What is known of the memory of a VM with these slots.
    #[must_use]
    pub fn of(slots: Vec<SlotLayout>, memory: &GuestMemory) -> Self {
        let private = memory.runs().into_iter().filter(|(_, info)| info.state == PageState::Private);
        let mut attributes: Vec<AttributeRun> = Vec::new();
        for (range, _) in private {
            match attributes.last_mut() {
                // Runs that differ in what else is known of them are one here.
                Some(last) if last.range.end() == range.gfn() => {
                    let pages = last.range.pages().saturating_add(range.pages());
                    last.range = PageRange::new(last.range.gfn(), pages).unwrap_or(last.range);
                }
                _ => attributes.push(AttributeRun { range, attributes: MEMORY_ATTRIBUTE_PRIVATE }),
            }
        }
        Self { slots, attributes }
    }
}

/// What becomes of private pages, which a VMM cannot read: `guest_memfd` gives them to the guest alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivatePages {
    /// There must be none.
    #[default]
    Refuse,
    /// The guest is known to need nothing of what is in them. The target's are private, too, and hold zeros.
    LeaveBehind,
}

/// Why no snapshot was taken. The VM is as it was, and drained.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The VMM can read neither the memory nor the registers of such a VM.
    #[error("a {} VM cannot be saved: its memory and registers are not for its VMM to read", vm_type.name())]
    Confidential {
        /// The type.
        vm_type: VmType,
    },
    /// Private pages would be lost.
    #[error("{pages} pages from frame {gfn:#x} on are private, and only the guest can read them")]
    Private {
        /// The first frame of the first run.
        gfn: u64,
        /// The pages of the run.
        pages: u64,
    },
    /// A page cannot be read.
    #[error("frame {gfn:#x} cannot be read: {errno}")]
    Memory {
        /// The frame.
        gfn: u64,
        /// The error.
        errno: Errno,
    },
    /// Two vCPUs have the same id, or they are not in the order of their ids.
    #[error("vCPU {vcpu} is out of order")]
    Order {
        /// The id.
        vcpu: u64,
    },
    /// The vCPU runs a guest of the guest, whose state is not carried.
    #[error("vCPU {vcpu} is inside of a nested guest, which no snapshot carries: run it until it is out")]
    Nested {
        /// The id.
        vcpu: u64,
    },
    /// The `mp_state` of a vCPU cannot be read.
    #[error("vCPU {vcpu}: KVM_GET_MP_STATE failed with {errno}")]
    MpState {
        /// The id.
        vcpu: u64,
        /// The error.
        errno: Errno,
    },
    /// Registers of a vCPU cannot be read.
    #[error("vCPU {vcpu}: KVM_GET_{area} failed with {errno}")]
    Area {
        /// The id.
        vcpu: u64,
        /// Which.
        area: Area,
        /// The error.
        errno: Errno,
    },
    /// The events of a vCPU cannot be read.
    #[error("vCPU {vcpu}: {error}")]
    Events {
        /// The id.
        vcpu: u64,
        /// The error.
        error: SnapshotError,
    },
}

/// Takes a snapshot of a VM. All of its vCPUs are drained before the first byte of memory is read, because what is
/// handed over may write memory.
///
/// `vm_type` decides what can be read. Of a VM that the VMM cannot read, [`save_outside`] takes what it sees.
///
/// # Errors
///
/// The first thing that cannot be read.
pub fn save<V: State>(
    origin: Origin,
    layout: Layout,
    private: PrivatePages,
    host: &mut impl Host,
    vcpus: &mut [Drained<'_, V>],
    devices: Vec<DeviceState>,
) -> Result<Snapshot, SaveError> {
    let vm_type = VmType::from_number(origin.vm_type).unwrap_or_default();
    if !section::is_readable(vm_type) {
        return Err(SaveError::Confidential { vm_type });
    }
    let lost = layout.attributes.iter().find(|run| run.is_private());
    if let (PrivatePages::Refuse, Some(run)) = (private, lost) {
        return Err(SaveError::Private { gfn: run.range.gfn().0, pages: run.range.pages() });
    }
    let mut snapshot = outline(Origin { contents: Contents::Complete, ..origin }, layout, devices);
    for vcpu in vcpus {
        let state = save_vcpu(vcpu)?;
        push(&mut snapshot.vcpus, state)?;
    }
    snapshot.pages = read_pages(&snapshot, host)?;
    snapshot.needs = snapshot.needs();
    Ok(snapshot)
}

/// Takes what the VMM sees of a VM that it cannot read: events, `mp_state`, memory attributes. No target runs it.
///
/// # Errors
///
/// The first thing that cannot be read.
pub fn save_outside<V: State>(
    origin: Origin,
    layout: Layout,
    vcpus: &mut [Drained<'_, V>],
    devices: Vec<DeviceState>,
) -> Result<Snapshot, SaveError> {
    let mut snapshot = outline(Origin { contents: Contents::OutsideOnly, ..origin }, layout, devices);
    for vcpu in vcpus {
        let state = outside(vcpu.vcpu)?;
        push(&mut snapshot.vcpus, state)?;
    }
    snapshot.needs = snapshot.needs();
    Ok(snapshot)
}

/// The state of one vCPU.
///
/// # Errors
///
/// The first thing that cannot be read.
pub fn save_vcpu<V: State>(vcpu: &mut Drained<'_, V>) -> Result<VcpuState, SaveError> {
    let Drained { vcpu, flags } = vcpu;
    let mut state = outside(*vcpu)?;
    let id = state.id;
    if *flags & RUN_X86_GUEST_MODE != 0 {
        return Err(SaveError::Nested { vcpu: id });
    }
    for area in Area::ALL {
        let Some(kind) = section::area_number(area) else { continue };
        let mut bytes = vec![0; area.max_bytes()];
        let failed = |errno| SaveError::Area { vcpu: id, area, errno };
        if let Some(length) = vcpu.area(area, &mut bytes).map_err(failed)? {
            bytes.truncate(length);
            state.areas.push(AreaState { kind, bytes });
        }
    }
    Ok(state)
}

/// What can be read of the vCPU of any VM. `mp_state` comes first: reading it lets a local APIC's events in.
fn outside(vcpu: &mut impl State) -> Result<VcpuState, SaveError> {
    let id = vcpu.vcpu_id();
    let mp_state = vcpu.mp_state().map_err(|errno| SaveError::MpState { vcpu: id, errno })?;
    let events = SavedEvents::save(vcpu).map_err(|error| SaveError::Events { vcpu: id, error })?;
    Ok(VcpuState { id, mp_state, events: *events.events(), areas: Vec::new() })
}

fn outline(origin: Origin, layout: Layout, mut devices: Vec<DeviceState>) -> Snapshot {
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    let Layout { slots, attributes } = layout;
    let (needs, vcpus, pages, unknown) = Default::default();
    Snapshot { origin, needs, slots, attributes, devices, vcpus, pages, unknown }
}

fn push(vcpus: &mut Vec<VcpuState>, vcpu: VcpuState) -> Result<(), SaveError> {
    if vcpus.last().is_some_and(|last| last.id >= vcpu.id) {
        return Err(SaveError::Order { vcpu: vcpu.id });
    }
    vcpus.push(vcpu);
    Ok(())
}

/// The shared pages that are not zero.
fn read_pages(snapshot: &Snapshot, host: &mut impl Host) -> Result<BTreeMap<u64, Page>, SaveError> {
    let mut pages = BTreeMap::new();
    let mut page: Page = Box::new([0; PAGE_BYTES]);
    for slot in &snapshot.slots {
        for gfn in slot.range.gfn().0..slot.range.end().0 {
            if is_private(&snapshot.attributes, gfn) {
                continue;
            }
            host.read_guest(Gfn(gfn).gpa(), page.as_mut_slice())
                .map_err(|errno| SaveError::Memory { gfn, errno })?;
            if page.iter().any(|byte| *byte != 0) {
                pages.insert(gfn, page.clone());
            }
        }
    }
    Ok(pages)
}
