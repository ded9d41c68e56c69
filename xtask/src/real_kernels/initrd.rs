//! The archive that a kernel unpacks and runs `/init` of.
//!
//! Source: Linux v6.12 `Documentation/driver-api/early-userspace/buffer-format.rst`, the format "newc".

use std::path::{Path, PathBuf};

/// A folder that everybody may read.
const FOLDER: u32 = 0o4_0755;
/// A program.
const PROGRAM: u32 = 0o10_0755;
/// A character device.
const DEVICE: u32 = 0o2_0600;

/// The client as `/init`, and the modules in the order of loading.
///
/// # Errors
///
/// A file could not be read.
pub(super) fn of_client(client: &Path, modules: &[PathBuf]) -> Result<Vec<u8>, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut archive = Archive::default();
    archive.add("dev", FOLDER, (0, 0), &[]);
    // `/dev/console`, which the kernel opens for the first process.
    archive.add("dev/console", DEVICE, (5, 1), &[]);
    archive.add("modules", FOLDER, (0, 0), &[]);
    for (index, module) in modules.iter().enumerate() {
        archive.add(&format!("modules/{index:02}.ko"), PROGRAM, (0, 0), &read(module)?);
    }
    archive.add("init", PROGRAM, (0, 0), &read(client)?);
    Ok(archive.end())
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (major, minor) = device;
        let fields =
            [self.entries, mode, 0, 0, 1, 0, size(data.len()), 0, 0, major, minor, size(name.len() + 1), 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    /// Names and data begin at multiples of 4.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_and_its_data_begin_at_a_multiple_of_4() {
        let mut archive = Archive::default();
        archive.add("dev/console", DEVICE, (5, 1), &[]);
        archive.add("init", PROGRAM, (0, 0), b"hello");
        let bytes = archive.end();
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        // 110 bytes of header, the name with its end, padding, then the data.
        let data = text.find("hello").unwrap();
        assert_eq!(data, (starts[1] + 110 + 5).next_multiple_of(4));
        assert_eq!(text[starts[1] + 54..starts[1] + 62], *"00000005");
        assert_eq!(text[starts[0] + 78..starts[0] + 94], *"0000000500000001");
    }
}
