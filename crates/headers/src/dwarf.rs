//! Structs, enumerators and constants of an object file.
//!
//! The file comes from a compiler and its text from headers that may be anybody's, so every walk is bounded.

use crate::flatten::{self, Node, Shape};
use crate::target::Target;
use crate::tree::Layout;
use gimli::{AttributeValue, DebuggingInformationEntry, DwTag, Reader, RunTimeEndian, UnitOffset};
use object::read::RelocationMap;
use object::{Architecture, Object, ObjectSection, ObjectSymbol};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why an object file is not understood.
#[derive(Debug, Error)]
pub enum DwarfError {
    /// It is no object file, or one that breaks the rules of its format.
    #[error("object file: {0}")]
    Object(#[from] object::Error),
    /// Its debug information breaks the rules of DWARF.
    #[error("debug information: {0}")]
    Dwarf(#[from] gimli::Error),
    /// It is larger or deeper than any uapi header.
    #[error("debug information is larger than {0}")]
    TooLarge(&'static str),
    /// A type or member without what it must have.
    #[error("debug information: a {0} is missing")]
    Missing(&'static str),
}

/// Structs and enumerators.
pub(crate) struct Found {
    pub(crate) layouts: BTreeMap<String, Layout>,
    pub(crate) constants: BTreeMap<String, u64>,
}

const MAX_BYTES: usize = 64 << 20;
const MAX_DEPTH: usize = 16;
const MAX_NODES: usize = 200_000;

type Slice<'d> = gimli::RelocateReader<gimli::EndianSlice<'d, RunTimeEndian>, Relocations<'d>>;
type Entry<'a, 'd> = DebuggingInformationEntry<'a, 'a, Slice<'d>, usize>;

/// An object file that is not linked leaves references between its sections to the linker.
#[derive(Clone, Copy, Debug)]
struct Relocations<'d>(&'d RelocationMap);

impl gimli::Relocate<usize> for Relocations<'_> {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        Ok(self.0.relocate(offset as u64, value))
    }

    fn relocate_offset(&self, offset: usize, value: usize) -> gimli::Result<usize> {
        let relocated = self.0.relocate(offset as u64, value as u64);
        usize::try_from(relocated).map_err(|_| gimli::Error::UnsupportedOffset)
    }
}

/// True if the object file is for this target.
pub(crate) fn is_for(bytes: &[u8], target: Target) -> bool {
    let wanted = match target {
        Target::X86_64 => Architecture::X86_64,
        Target::I386 => Architecture::I386,
        Target::X32 => Architecture::X86_64_X32,
        Target::Aarch64 => Architecture::Aarch64,
        Target::Arm => Architecture::Arm,
        Target::Riscv64 => Architecture::Riscv64,
    };
    object::File::parse(bytes).is_ok_and(|file| file.architecture() == wanted)
}

/// The values of the 64-bit constants whose symbols start with `prefix`, by the rest of their names.
pub(crate) fn symbols(bytes: &[u8], prefix: &str) -> Result<BTreeMap<String, u64>, DwarfError> {
    let file = object::File::parse(bytes)?;
    let mut found = BTreeMap::new();
    for symbol in file.symbols() {
        let Some(name) = symbol.name()?.strip_prefix(prefix) else { continue };
        let section = symbol.section_index().ok_or(DwarfError::Missing("symbol's section"))?;
        let section = file.section_by_index(section)?;
        let data = section.data()?;
        let start = symbol.address().saturating_sub(section.address());
        let value = if data.is_empty() {
            // A section without bytes in the file is all zero.
            0
        } else {
            let rest = usize::try_from(start).ok().and_then(|start| data.get(start..));
            let bytes = *rest.and_then(<[u8]>::first_chunk).ok_or(DwarfError::Missing("symbol's value"))?;
            if file.is_little_endian() { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
        };
        found.insert(name.to_string(), value);
    }
    Ok(found)
}

/// Reads every named struct and union and every enumerator.
pub(crate) fn read(bytes: &[u8]) -> Result<Found, DwarfError> {
    if bytes.len() > MAX_BYTES {
        return Err(DwarfError::TooLarge("64 MiB"));
    }
    let file = object::File::parse(bytes)?;
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let empty = RelocationMap::default();
    let mut relocations = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?;
        if name.starts_with(".debug_") {
            // Sections that are not read may be relocated in ways that this reader has no need to know.
            relocations.insert(name.to_string(), section.relocation_map().unwrap_or_default());
        }
    }
    let dwarf = gimli::Dwarf::load(|id| -> Result<Slice<'_>, DwarfError> {
        let data = match file.section_by_name(id.name()) {
            Some(section) => section.data()?,
            None => &[],
        };
        let relocations = Relocations(relocations.get(id.name()).unwrap_or(&empty));
        Ok(gimli::RelocateReader::new(gimli::EndianSlice::new(data, endian), relocations))
    })?;
    let mut found = Found { layouts: BTreeMap::new(), constants: BTreeMap::new() };
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let mut walk = Walk { dwarf: &dwarf, unit: &unit, nodes: 0 };
        let mut entries = unit.entries();
        while let Some((_, entry)) = entries.next_dfs()? {
            walk.add(entry, &mut found)?;
        }
    }
    Ok(found)
}

/// One unit, and how much of it has been turned into nodes.
struct Walk<'a, 'd> {
    dwarf: &'a gimli::Dwarf<Slice<'d>>,
    unit: &'a gimli::Unit<Slice<'d>>,
    nodes: usize,
}

/// A type, resolved.
struct Resolved {
    name: String,
    size: u64,
    /// For structs and unions.
    members: Option<Vec<Node>>,
}

impl<'d> Walk<'_, 'd> {
    fn add(&mut self, entry: &Entry<'_, 'd>, found: &mut Found) -> Result<(), DwarfError> {
        if entry.tag() == gimli::DW_TAG_enumerator {
            let (Some(name), Some(value)) = (self.name(entry)?, entry.attr_value(gimli::DW_AT_const_value)?)
            else {
                return Ok(());
            };
            if let Some(value) = number(&value) {
                found.constants.insert(name, value);
            }
        }
        if is_group(entry.tag()) && entry.attr_value(gimli::DW_AT_declaration)?.is_none() {
            if let Some(name) = self.name(entry)? {
                let resolved = self.resolve(entry.offset(), 0)?;
                flatten::add(&mut found.layouts, &name, resolved.size, &resolved.members.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// What a type is. `depth` bounds types that contain themselves.
    fn resolve(&mut self, offset: UnitOffset, depth: usize) -> Result<Resolved, DwarfError> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(DwarfError::TooLarge("any header of the uapi"));
        }
        let unit = self.unit;
        let entry = unit.entry(offset)?;
        let name = self.name(&entry)?;
        let own_size = attribute(&entry, gimli::DW_AT_byte_size)?;
        let resolved = match entry.tag() {
            gimli::DW_TAG_pointer_type => {
                let size = own_size.unwrap_or_else(|| u64::from(unit.encoding().address_size));
                Resolved { name: "pointer".into(), size, members: None }
            }
            gimli::DW_TAG_typedef => {
                let inner = self.inner(&entry, depth)?;
                let name = name.map_or(inner.name, |name| name.trim_start_matches('_').to_string());
                Resolved { name, ..inner }
            }
            gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type => self.inner(&entry, depth)?,
            gimli::DW_TAG_array_type => {
                let element = self.inner(&entry, depth)?;
                let count = self.count(offset)?;
                let name = match count {
                    Some(count) => format!("{}[{count}]", element.name),
                    None => format!("{}[]", element.name),
                };
                let size = element.size.saturating_mul(count.unwrap_or(0));
                Resolved { name, size, members: None }
            }
            tag if is_group(tag) => {
                let kind = if tag == gimli::DW_TAG_union_type { "union" } else { "struct" };
                let name = name.map_or_else(|| kind.to_string(), |name| format!("{kind} {name}"));
                let members = self.members(offset, depth)?;
                Resolved { name, size: own_size.unwrap_or(0), members: Some(members) }
            }
            gimli::DW_TAG_enumeration_type => {
                let name = name.map_or_else(|| "enum".to_string(), |name| format!("enum {name}"));
                Resolved { name, size: own_size.unwrap_or(0), members: None }
            }
            _ => {
                let name = name.map_or_else(String::new, |name| as_clang_spells(&name).to_string());
                Resolved { name, size: own_size.unwrap_or(0), members: None }
            }
        };
        Ok(resolved)
    }

    /// The type that an entry refers to.
    fn inner(&mut self, entry: &Entry<'_, 'd>, depth: usize) -> Result<Resolved, DwarfError> {
        match entry.attr_value(gimli::DW_AT_type)? {
            Some(AttributeValue::UnitRef(offset)) => self.resolve(offset, depth + 1),
            Some(_) => Err(DwarfError::Missing("type in this unit")),
            None => Ok(Resolved { name: "void".into(), size: 0, members: None }),
        }
    }

    fn members(&mut self, offset: UnitOffset, depth: usize) -> Result<Vec<Node>, DwarfError> {
        let unit = self.unit;
        let mut tree = unit.entries_tree(Some(offset))?;
        let mut children = tree.root()?.children();
        let mut members = Vec::new();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_member {
                continue;
            }
            let name = self.name(entry)?.unwrap_or_default();
            let resolved = self.inner(entry, depth)?;
            let offset = attribute(entry, gimli::DW_AT_data_member_location)?.unwrap_or(0);
            let shape = match (bits(entry, resolved.size)?, resolved.members) {
                (Some((low, width)), _) => Shape::Bits { type_name: resolved.name, low, width },
                (None, Some(members)) => Shape::Group(members),
                (None, None) => Shape::Scalar { type_name: resolved.name },
            };
            members.push(Node { name, offset, size: resolved.size, shape });
        }
        Ok(members)
    }

    /// How many elements an array has, all its dimensions together; `None` for a flexible one.
    fn count(&self, offset: UnitOffset) -> Result<Option<u64>, DwarfError> {
        let mut tree = self.unit.entries_tree(Some(offset))?;
        let mut children = tree.root()?.children();
        let mut count: Option<u64> = None;
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_subrange_type {
                continue;
            }
            let bound = attribute(entry, gimli::DW_AT_upper_bound)?;
            let own = attribute(entry, gimli::DW_AT_count)?.or(bound.map(|bound| bound.wrapping_add(1)));
            match own {
                // GCC writes an array of no elements with the upper bound -1.
                Some(0) | None => return Ok(None),
                Some(own) => count = Some(count.unwrap_or(1).saturating_mul(own)),
            }
        }
        Ok(count)
    }

    fn name(&self, entry: &Entry<'_, 'd>) -> Result<Option<String>, DwarfError> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name)? else { return Ok(None) };
        let text = self.dwarf.attr_string(self.unit, value)?;
        let text = text.to_string_lossy()?.into_owned();
        Ok(Some(text))
    }
}

/// GCC and clang name the same base type differently.
fn as_clang_spells(name: &str) -> &str {
    match name {
        "long unsigned int" => "unsigned long",
        "long int" => "long",
        "long long unsigned int" => "unsigned long long",
        "long long int" => "long long",
        "short unsigned int" => "unsigned short",
        "short int" => "short",
        other => other,
    }
}

fn is_group(tag: DwTag) -> bool {
    tag == gimli::DW_TAG_structure_type || tag == gimli::DW_TAG_union_type
}

/// The bits of a bit-field from its member location: the lowest, and how many.
fn bits(entry: &Entry<'_, '_>, storage_bytes: u64) -> Result<Option<(u64, u64)>, DwarfError> {
    let Some(width) = attribute(entry, gimli::DW_AT_bit_size)? else { return Ok(None) };
    if let Some(low) = attribute(entry, gimli::DW_AT_data_bit_offset)? {
        return Ok(Some((low, width)));
    }
    // Up to DWARF 3 the count is from the most significant bit of the storage unit, and negative where a packed bit-field
    // reaches out of it.
    let from_top = attribute(entry, gimli::DW_AT_bit_offset)?.unwrap_or(0);
    let storage = attribute(entry, gimli::DW_AT_byte_size)?.unwrap_or(storage_bytes).saturating_mul(8);
    Ok(Some((storage.wrapping_sub(from_top).wrapping_sub(width), width)))
}

fn attribute(entry: &Entry<'_, '_>, name: gimli::DwAt) -> Result<Option<u64>, DwarfError> {
    Ok(entry.attr_value(name)?.as_ref().and_then(number))
}

/// A constant as 64 bits; a negative one is extended.
fn number<R: Reader>(value: &AttributeValue<R>) -> Option<u64> {
    value.udata_value().or_else(|| value.sdata_value().map(|signed| u64::from_ne_bytes(signed.to_ne_bytes())))
}

#[cfg(test)]
mod tests;
