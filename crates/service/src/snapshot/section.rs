//! The sections of a snapshot and their bytes.

use super::error::{Flaw, FormatError};
use super::wire::{Cursor, put_bytes, put_count, put_text};
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::memory::MEMORY_ATTRIBUTE_PRIVATE;
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Arch, Gfn, Kernel};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::state::Area;
use std::fmt;
use zerocopy::{FromBytes, IntoBytes};

/// The numbers of the sections. They stand in the snapshot in this order.
pub mod id {
    /// [`super::Origin`] and what there is to come: exactly one, and the first.
    pub const ORIGIN: u32 = 1;
    /// [`super::Need`]s: exactly one.
    pub const NEEDS: u32 = 2;
    /// [`super::SlotLayout`]s: exactly one.
    pub const SLOTS: u32 = 3;
    /// [`super::AttributeRun`]s: exactly one.
    pub const ATTRIBUTES: u32 = 4;
    /// A [`super::DeviceState`].
    pub const DEVICE: u32 = 5;
    /// A [`super::VcpuState`].
    pub const VCPU: u32 = 6;
    /// A run of pages with content.
    pub const PAGES: u32 = 7;
}

/// The name of a section.
#[must_use]
pub const fn name(id: u32) -> Option<&'static str> {
    match id {
        id::ORIGIN => Some("origin"),
        id::NEEDS => Some("needs"),
        id::SLOTS => Some("slots"),
        id::ATTRIBUTES => Some("attributes"),
        id::DEVICE => Some("device"),
        id::VCPU => Some("vcpu"),
        id::PAGES => Some("pages"),
        _ => None,
    }
}

/// How much of a VM a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All that is needed to run it on.
    Complete,
    /// What the VMM sees of a VM whose memory and registers nobody can read: events, `mp_state`, attributes.
    OutsideOnly,
}

/// Where a snapshot comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// How much of the VM there is.
    pub contents: Contents,
    /// The architecture: 1 x86, 2 arm64, 3 riscv64. Another number is kept.
    pub arch: u32,
    /// The type of the VM, the argument of `KVM_CREATE_VM`. One that is not known is kept.
    pub vm_type: u64,
    /// The dialect of the kernel by name. It informs, and decides nothing.
    pub dialect: String,
    /// The capabilities that the VMM enabled, and with what, in ascending order.
    pub enabled: Vec<(Cap, u64)>,
}

impl Origin {
    /// A VM of this type on this kernel, with nothing enabled.
    #[must_use]
    pub fn new(kernel: Kernel, vm_type: VmType) -> Self {
        let contents = if is_readable(vm_type) { Contents::Complete } else { Contents::OutsideOnly };
        let (vm_type, dialect) = (vm_type.number(), kernel.dialect.name().to_owned());
        Self { contents, arch: arch_number(kernel.arch), vm_type, dialect, enabled: Vec::new() }
    }

    /// The type by name, or its number.
    #[must_use]
    pub fn vm_type_name(&self) -> String {
        VmType::from_number(self.vm_type)
            .map_or_else(|| format!("{:#x}", self.vm_type), |it| it.name().into())
    }
}

/// Whether a VMM reads the memory and the registers of such a VM. Those of an SEV guest read as what the encryption
/// makes of them.
pub(crate) const fn is_readable(vm_type: VmType) -> bool {
    matches!(vm_type, VmType::Default | VmType::SwProtected)
}

/// The number that a snapshot has for an architecture; 0 for one that has none yet.
pub(crate) const fn arch_number(arch: Arch) -> u32 {
    match arch {
        Arch::X86 => 1,
        Arch::Arm64 => 2,
        Arch::Riscv64 => 3,
        _ => 0,
    }
}

/// The architecture by name, or its number.
pub(crate) fn arch_name(number: u32) -> String {
    match number {
        1 => "x86_64".into(),
        2 => "arm64".into(),
        3 => "riscv64".into(),
        other => format!("{other:#x}"),
    }
}

/// What is to come behind the origin: what was cut out shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) devices: u32,
    pub(crate) vcpus: u32,
    pub(crate) pages: u64,
}

/// What a capability is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A triple fault is pending: without the capability the guest would run on as if nothing had happened.
    TripleFault,
    /// An exception with a payload is pending.
    ExceptionPayload,
    /// The source had it enabled, and its guest may count on it.
    Enabled,
    /// Pages are private.
    PrivateMemory,
    /// A reason of a newer writer.
    Other(u32),
}

impl Why {
    const fn number(self) -> u32 {
        match self {
            Self::TripleFault => 1,
            Self::ExceptionPayload => 2,
            Self::Enabled => 3,
            Self::PrivateMemory => 4,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::TripleFault,
            2 => Self::ExceptionPayload,
            3 => Self::Enabled,
            4 => Self::PrivateMemory,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => f.write_str("a triple fault is pending"),
            Self::ExceptionPayload => f.write_str("an exception with a payload is pending"),
            Self::Enabled => f.write_str("the source had it enabled"),
            Self::PrivateMemory => f.write_str("pages are private"),
            Self::Other(number) => write!(f, "reason {number:#x}"),
        }
    }
}

/// A capability that the target must offer before anything is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The capability.
    pub cap: Cap,
    /// What for.
    pub why: Why,
    /// The bits that `KVM_CHECK_EXTENSION` must have.
    pub value: u64,
}

/// A memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLayout {
    /// Its frames.
    pub range: PageRange,
    /// A `guest_memfd` backs its private half.
    pub has_private: bool,
}

/// Frames with the same attributes, which are not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeRun {
    /// The frames.
    pub range: PageRange,
    /// `KVM_MEMORY_ATTRIBUTE_*`.
    pub attributes: u64,
}

impl AttributeRun {
    /// Whether the pages are private.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.attributes & MEMORY_ATTRIBUTE_PRIVATE != 0
    }
}

/// What a device of the VMM has to say for itself. The bytes are the device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Which device.
    pub name: String,
    /// Its state.
    pub bytes: Vec<u8>,
}

/// The bytes of an [`Area`], or of one that is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AreaState {
    /// The number in the snapshot.
    pub kind: u32,
    /// The bytes, as the ioctl gave them.
    pub bytes: Vec<u8>,
}

impl AreaState {
    /// The area, if it is known here.
    #[must_use]
    pub fn area(&self) -> Option<Area> {
        Area::ALL.into_iter().find(|area| area_number(*area) == Some(self.kind))
    }
}

/// The number that a snapshot has for an area. They ascend in the order in which a vCPU takes them.
pub(crate) const fn area_number(area: Area) -> Option<u32> {
    match area {
        Area::Cpuid => Some(1),
        Area::Sregs => Some(2),
        Area::Xcrs => Some(3),
        Area::Xsave => Some(4),
        Area::DebugRegs => Some(5),
        Area::Regs => Some(6),
        _ => None,
    }
}

/// The state of a vCPU. It can be of a vCPU with nothing pending only, see [`super::Drained`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuState {
    /// Its id.
    pub id: u64,
    /// `KVM_MP_STATE_*`, or another number, as it came.
    pub mp_state: u32,
    /// The events as they came.
    pub events: VcpuEvents,
    /// The rest, in ascending order.
    pub areas: Vec<AreaState>,
}

pub(super) fn put_origin(origin: &Origin, counts: Counts) -> Vec<u8> {
    let mut to = Vec::new();
    to.extend(u32::from(origin.contents == Contents::OutsideOnly).to_le_bytes());
    to.extend(origin.arch.to_le_bytes());
    to.extend(origin.vm_type.to_le_bytes());
    to.extend(counts.devices.to_le_bytes());
    to.extend(counts.vcpus.to_le_bytes());
    to.extend(counts.pages.to_le_bytes());
    put_text(&mut to, &origin.dialect);
    put_count(&mut to, origin.enabled.len());
    for (cap, value) in &origin.enabled {
        to.extend(cap.0.to_le_bytes());
        to.extend(value.to_le_bytes());
    }
    to
}

pub(super) fn take_origin(mut from: Cursor<'_>) -> Result<(Origin, Counts), FormatError> {
    let contents = match from.u32()? {
        0 => Contents::Complete,
        1 => Contents::OutsideOnly,
        number => return Err(from.flawed(Flaw::UnknownNumber { number: number.into() })),
    };
    let (arch, vm_type) = (from.u32()?, from.u64()?);
    let counts = Counts { devices: from.u32()?, vcpus: from.u32()?, pages: from.u64()? };
    let dialect = from.text()?;
    let mut enabled = Vec::new();
    for _ in 0..from.count(12)? {
        let (cap, value) = (Cap(from.u32()?), from.u64()?);
        ascends(&from, enabled.last().map(|(cap, _): &(Cap, u64)| cap.0.into()), cap.0.into())?;
        enabled.push((cap, value));
    }
    let readable = VmType::from_number(vm_type).is_none_or(is_readable);
    if contents == Contents::Complete && !readable || contents == Contents::OutsideOnly && counts.pages != 0 {
        return Err(from.flawed(Flaw::UnreadableCarried));
    }
    from.end().map(|()| (Origin { contents, arch, vm_type, dialect, enabled }, counts))
}

pub(super) fn put_needs(needs: &[Need]) -> Vec<u8> {
    let mut to = Vec::new();
    put_count(&mut to, needs.len());
    for need in needs {
        to.extend(need.cap.0.to_le_bytes());
        to.extend(need.why.number().to_le_bytes());
        to.extend(need.value.to_le_bytes());
    }
    to
}

pub(super) fn take_needs(mut from: Cursor<'_>) -> Result<Vec<Need>, FormatError> {
    let mut needs: Vec<Need> = Vec::new();
    for _ in 0..from.count(16)? {
        let (cap, why) = (Cap(from.u32()?), Why::from_number(from.u32()?));
        let need = Need { cap, why, value: from.u64()? };
        if needs.last().is_some_and(|last| (last.cap, last.why.number()) >= (cap, why.number())) {
            return Err(from.flawed(Flaw::Order { number: cap.0.into() }));
        }
        needs.push(need);
    }
    from.end().map(|()| needs)
}

pub(super) fn put_slots(slots: &[SlotLayout]) -> Vec<u8> {
    let mut to = Vec::new();
    put_count(&mut to, slots.len());
    for slot in slots {
        put_range(&mut to, slot.range);
        to.extend(u64::from(slot.has_private).to_le_bytes());
    }
    to
}

pub(super) fn take_slots(mut from: Cursor<'_>) -> Result<Vec<SlotLayout>, FormatError> {
    let mut slots: Vec<SlotLayout> = Vec::new();
    for _ in 0..from.count(24)? {
        let range = take_range(&mut from, slots.last().map(|slot| slot.range))?;
        let has_private = match from.u64()? {
            0 => false,
            1 => true,
            number => return Err(from.flawed(Flaw::UnknownNumber { number })),
        };
        slots.push(SlotLayout { range, has_private });
    }
    from.end().map(|()| slots)
}

pub(super) fn put_attributes(runs: &[AttributeRun]) -> Vec<u8> {
    let mut to = Vec::new();
    put_count(&mut to, runs.len());
    for run in runs {
        put_range(&mut to, run.range);
        to.extend(run.attributes.to_le_bytes());
    }
    to
}

pub(super) fn take_attributes(mut from: Cursor<'_>) -> Result<Vec<AttributeRun>, FormatError> {
    let mut runs: Vec<AttributeRun> = Vec::new();
    for _ in 0..from.count(24)? {
        let range = take_range(&mut from, runs.last().map(|run| run.range))?;
        runs.push(AttributeRun { range, attributes: from.u64()? });
    }
    from.end().map(|()| runs)
}

pub(super) fn put_device(device: &DeviceState) -> Vec<u8> {
    let mut to = Vec::new();
    put_text(&mut to, &device.name);
    to.extend(&device.bytes);
    to
}

pub(super) fn take_device(mut from: Cursor<'_>) -> Result<DeviceState, FormatError> {
    Ok(DeviceState { name: from.text()?, bytes: from.take_rest().to_vec() })
}

pub(super) fn put_vcpu(vcpu: &VcpuState) -> Vec<u8> {
    let mut to = Vec::new();
    to.extend(vcpu.id.to_le_bytes());
    to.extend(vcpu.mp_state.to_le_bytes());
    to.extend(vcpu.events.as_bytes());
    put_count(&mut to, vcpu.areas.len());
    for area in &vcpu.areas {
        to.extend(area.kind.to_le_bytes());
        put_bytes(&mut to, &area.bytes);
    }
    to
}

pub(super) fn take_vcpu(mut from: Cursor<'_>) -> Result<VcpuState, FormatError> {
    let (id, mp_state) = (from.u64()?, from.u32()?);
    let events: [u8; size_of::<VcpuEvents>()] = from.array()?;
    let events = VcpuEvents::read_from_bytes(&events).map_err(|_| from.flawed(Flaw::TooShort))?;
    let mut areas: Vec<AreaState> = Vec::new();
    for _ in 0..from.count(8)? {
        let kind = from.u32()?;
        ascends(&from, areas.last().map(|area| area.kind.into()), kind.into())?;
        let length = from.u32()?;
        areas.push(AreaState { kind, bytes: from.bytes(length)?.to_vec() });
    }
    from.end().map(|()| VcpuState { id, mp_state, events, areas })
}

fn put_range(to: &mut Vec<u8>, range: PageRange) {
    to.extend(range.gfn().0.to_le_bytes());
    to.extend(range.pages().to_le_bytes());
}

/// A run of pages behind the one before it.
fn take_range(from: &mut Cursor<'_>, before: Option<PageRange>) -> Result<PageRange, FormatError> {
    let (gfn, pages) = (from.u64()?, from.u64()?);
    let range = PageRange::new(Gfn(gfn), pages).ok_or_else(|| from.flawed(Flaw::BadRange { gfn, pages }))?;
    if before.is_some_and(|before| before.end() > range.gfn()) {
        return Err(from.flawed(Flaw::Order { number: gfn }));
    }
    Ok(range)
}

fn ascends(from: &Cursor<'_>, before: Option<u64>, number: u64) -> Result<(), FormatError> {
    if before.is_some_and(|before| before >= number) {
        return Err(from.flawed(Flaw::Order { number }));
    }
    Ok(())
}

/// The first two sections by their payloads, which are offered before the rest is sent.
pub(crate) fn read_head(origin: &[u8], needs: &[u8]) -> Result<(Origin, Vec<Need>), FormatError> {
    let (origin, _) = take_origin(Cursor::new(id::ORIGIN, origin))?;
    Ok((origin, take_needs(Cursor::new(id::NEEDS, needs))?))
}
