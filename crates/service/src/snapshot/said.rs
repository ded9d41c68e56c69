//! What one section says, for whoever shows a snapshot section by section.

use super::container::Section;
use super::error::FormatError;
use super::section::{
    self, AttributeRun, DeviceState, Need, Origin, SlotLayout, VcpuState, arch_name, area_number, id,
};
use super::take_pages;
use super::wire::Cursor;
use exeunt_proto::conversion::PageRange;
use exeunt_proto::state::Area;

/// What a section says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// Where the snapshot comes from.
    Origin(Origin),
    /// What a target must offer.
    Needs(Vec<Need>),
    /// The slots.
    Slots(Vec<SlotLayout>),
    /// The attributes that are not 0.
    Attributes(Vec<AttributeRun>),
    /// A device.
    Device(DeviceState),
    /// A vCPU.
    Vcpu(VcpuState),
    /// Pages with content.
    Pages(PageRange),
}

impl Section {
    /// What the section says; `None` if its number is not known here.
    ///
    /// # Errors
    ///
    /// Its bytes have no meaning.
    pub fn says(&self) -> Result<Option<Said>, FormatError> {
        let from = Cursor::new(self.id, &self.payload);
        Ok(Some(match self.id {
            id::ORIGIN => Said::Origin(section::take_origin(from)?.0),
            id::NEEDS => Said::Needs(section::take_needs(from)?),
            id::SLOTS => Said::Slots(section::take_slots(from)?),
            id::ATTRIBUTES => Said::Attributes(section::take_attributes(from)?),
            id::DEVICE => Said::Device(section::take_device(from)?),
            id::VCPU => Said::Vcpu(section::take_vcpu(from)?),
            id::PAGES => Said::Pages(take_pages(from)?.0),
            _ => return Ok(None),
        }))
    }
}

impl Origin {
    /// The architecture by name, or its number.
    #[must_use]
    pub fn arch_name(&self) -> String {
        arch_name(self.arch)
    }
}

/// The name of an area of a vCPU by its number in snapshots.
#[must_use]
pub fn area_name(kind: u32) -> Option<&'static str> {
    Area::ALL.into_iter().find(|area| area_number(*area) == Some(kind)).map(Area::name)
}
