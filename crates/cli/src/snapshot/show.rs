//! What is in a snapshot, section by section. It reads what [`exeunt::snapshot::Snapshot`] would refuse, as far as the checksums are right.

use crate::{Failure, print};
use exeunt::snapshot::container::MUST_UNDERSTAND;
use exeunt::snapshot::section;
use exeunt::snapshot::{AreaState, FormatError, Limits, Reader, Said, Section, VcpuState, area_name};
use exeunt_abi::kvm::mp_state;
use exeunt_proto::events::triple_fault;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Read;
use std::process::ExitCode;
use zerocopy::IntoBytes;

/// Bytes of a section that are printed; the rest is counted.
const MAX_SHOWN: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A line for each thing
    Text,
    /// One JSON document
    Json,
}

/// A section as it is printed.
#[derive(Serialize)]
struct Shown {
    id: u32,
    name: &'static str,
    must_understand: bool,
    bytes: usize,
    /// What it says, line by line.
    says: Vec<String>,
    /// Its first bytes, where nothing here can say what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// The whole.
#[derive(Serialize)]
struct Document {
    sections: Vec<Shown>,
    /// SHA-256 over all before the end, once that was right.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn show(from: impl Read, format: Format) -> Result<ExitCode, Failure> {
    let document = read(from);
    let code = if document.error.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&document).map_err(|error| error.to_string())? + "\n",
        Format::Text => text(&document),
    };
    print(&text).map(|()| code)
}

fn read(from: impl Read) -> Document {
    let mut document = Document { sections: Vec::new(), digest: None, error: None };
    let read = || -> Result<(), FormatError> {
        let mut reader = Reader::new(from, Limits::default())?;
        while let Some(section) = reader.section()? {
            document.sections.push(shown(&section));
        }
        document.digest = reader.digest().map(|digest| hex(&digest));
        Ok(())
    };
    if let Err(error) = read() {
        document.error = Some(error.to_string());
    }
    document
}

fn shown(section: &Section) -> Shown {
    let Section { id, flags, payload } = section;
    let (says, is_known) = match section.says() {
        Ok(Some(said)) => (lines(&said), true),
        Ok(None) => (Vec::new(), false),
        Err(error) => (vec![error.to_string()], false),
    };
    let first = payload.get(..MAX_SHOWN).unwrap_or(payload);
    let more = payload.len().saturating_sub(first.len());
    let tail = if more > 0 { format!(" and {more} bytes more") } else { String::new() };
    Shown {
        id: *id,
        name: section::name(*id).unwrap_or("unknown"),
        must_understand: flags & MUST_UNDERSTAND != 0,
        bytes: payload.len(),
        says,
        hex: (!is_known && !payload.is_empty()).then(|| hex(first) + &tail),
    }
}

fn lines(said: &Said) -> Vec<String> {
    match said {
        Said::Origin(origin) => {
            let mut lines = vec![format!(
                "a {} VM of {}, on {}, {:?}",
                origin.vm_type_name(),
                origin.arch_name(),
                origin.dialect,
                origin.contents
            )];
            lines.extend(origin.enabled.iter().map(|(cap, value)| format!("enabled {cap} with {value:#x}")));
            lines
        }
        Said::Needs(needs) => needs
            .iter()
            .map(|need| format!("needs {} with {:#x}: {}", need.cap, need.value, need.why))
            .collect(),
        Said::Slots(slots) => slots
            .iter()
            .map(|slot| {
                let private = if slot.has_private { ", with a private half" } else { "" };
                format!("memory at {}{private}", slot.range)
            })
            .collect(),
        Said::Attributes(runs) => {
            runs.iter().map(|run| format!("{} has attributes {:#x}", run.range, run.attributes)).collect()
        }
        Said::Device(device) => {
            vec![format!("device {}: {} bytes", device.name, device.bytes.len()), hex(first(&device.bytes))]
        }
        Said::Vcpu(vcpu) => vcpu_lines(vcpu),
        Said::Pages(range) => vec![format!("content of {range}")],
        _ => Vec::new(),
    }
}

fn vcpu_lines(vcpu: &VcpuState) -> Vec<String> {
    let state = mp_state::name(vcpu.mp_state).unwrap_or("unknown");
    let fault = match triple_fault(&vcpu.events) {
        Some(true) => "a triple fault is pending",
        Some(false) => "no triple fault is pending",
        None => "nothing is said of a triple fault, and one that was pending is lost (TF-1)",
    };
    let mut lines = vec![
        format!("vCPU {}: mp_state {} ({state})", vcpu.id, vcpu.mp_state),
        format!("events with flags {:#x}: {fault}", vcpu.events.flags),
        hex(vcpu.events.as_bytes()),
    ];
    for AreaState { kind, bytes } in &vcpu.areas {
        let name = area_name(*kind).unwrap_or("unknown");
        lines.push(format!("area {kind} ({name}): {} bytes", bytes.len()));
    }
    lines
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    for section in &document.sections {
        let must = if section.must_understand { "" } else { ", may be skipped" };
        let Shown { id, name, bytes, .. } = section;
        let _ = writeln!(text, "section {id:#x} {name}: {bytes} bytes{must}");
        for line in section.says.iter().chain(&section.hex) {
            let _ = writeln!(text, "  {}", crate::one_line(line));
        }
    }
    if let Some(digest) = &document.digest {
        let _ = writeln!(text, "complete: {digest}");
    }
    if let Some(error) = &document.error {
        let _ = writeln!(text, "damaged: {error}");
    }
    text
}

fn first(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_SHOWN).unwrap_or(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt::snapshot::Writer;

    #[test]
    fn a_name_in_a_snapshot_says_no_more_than_a_line() {
        let name = b"disk\ncomplete: 00\x1b[2J";
        let payload = [&[u8::try_from(name.len()).unwrap(), 0, 0, 0][..], name].concat();
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.section(section::id::DEVICE, MUST_UNDERSTAND, &payload).unwrap();
        let (bytes, _) = writer.finish().unwrap();
        let text = text(&read(bytes.as_slice()));
        assert!(text.contains("device disk\\ncomplete: 00\\u{1b}[2J: 0 bytes\n"), "{text}");
    }
}
