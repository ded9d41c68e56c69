//! The device that the guest speaks to, and the log of what it said.
//!
//! What the guest writes is held back until the checkpoint behind it is durable. It then goes to the log at the position that the
//! checkpoint names: what is there already is compared, so that a release that was cut short is made again.

use super::store::{parent, sync_dir};
use crate::Failure;
use exeunt::snapshot::DeviceState;
use exeunt_abi::{Errno, Gpa};
use exeunt_proto::conversion::Conversion;
use exeunt_proto::host::{Action, Host};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The guest writes its values here, 4 bytes each.
pub(super) const VALUE_PORT: u16 = 0x1e0;
/// The guest reads here how many values were taken.
pub(super) const TAKEN_PORT: u16 = 0x1e4;
/// The name in a snapshot.
const NAME: &str = "console";
/// What stands in the place of a value when the guest was shut down.
const SHUTDOWN: u64 = u64::MAX;
/// A line of the log: ten columns and its end.
const LINE_BYTES: u64 = 11;
/// Values between two checkpoints.
const MAX_HELD: usize = 1 << 16;

/// What the guest said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Console {
    /// Values that are in the log.
    released: u64,
    /// Values that are not.
    held: Vec<u64>,
    /// The guest was shut down, and says nothing any more.
    pub(super) has_ended: bool,
}

impl Console {
    pub(super) fn of_snapshot(device: Option<&[u8]>) -> Result<Self, Failure> {
        let words = device.unwrap_or_default().chunks_exact(8);
        let is_whole = words.remainder().is_empty();
        let mut words = words.map(|word| word.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)));
        match (words.next(), words.next()) {
            (Some(released), Some(ended @ (0 | 1))) if is_whole => {
                Ok(Self { released, has_ended: ended == 1, held: words.take(MAX_HELD).collect() })
            }
            _ => Err("the snapshot has no state of the console".into()),
        }
    }

    pub(super) fn save(&self) -> DeviceState {
        let words = [self.released, u64::from(self.has_ended)].into_iter().chain(self.held.iter().copied());
        DeviceState { name: NAME.into(), bytes: words.flat_map(u64::to_le_bytes).collect() }
    }

    pub(super) fn name() -> &'static str {
        NAME
    }

    /// How many values there are, in the log and not.
    pub(super) fn taken(&self) -> u64 {
        self.released.saturating_add(self.held.len() as u64)
    }

    fn take(&mut self, value: u64) {
        if self.held.len() < MAX_HELD {
            self.held.push(value);
        }
    }

    pub(super) fn shut_down(&mut self) {
        self.take(SHUTDOWN);
        self.has_ended = true;
    }

    /// The values that are not in the log.
    pub(super) fn held(&self) -> impl Iterator<Item = String> + '_ {
        self.held.iter().map(|value| line(*value).trim().to_owned())
    }

    /// Writes what is held back to the log.
    pub(super) fn release(&mut self, log: &Path, middle: &dyn Fn()) -> Result<(), Failure> {
        let failed = |why: String| format!("{}: {why}", log.display());
        let text: String = self.held.iter().map(|value| line(*value)).collect();
        let start = self.released.saturating_mul(LINE_BYTES);
        let write = || -> std::io::Result<Result<(), String>> {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(log)?;
            let there = file.metadata()?.len();
            let end = start.saturating_add(text.len() as u64);
            if there < start {
                return Ok(Err(format!("{there} bytes, and {start} were written: output is lost")));
            }
            if there > end {
                return Ok(Err(format!("{there} bytes, and {end} were to be: somebody else runs the VM")));
            }
            let mut before = vec![0; usize::try_from(there.saturating_sub(start)).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut before, start)?;
            if !text.as_bytes().starts_with(&before) {
                return Ok(Err("somebody else wrote other values".into()));
            }
            let (first, second) = text.as_bytes().split_at(text.len() / 2);
            file.write_all_at(first, start)?;
            middle();
            file.write_all_at(second, start.saturating_add(first.len() as u64))?;
            file.sync_all()?;
            if there == 0 {
                // The name may be as new as the bytes.
                sync_dir(parent(log))?;
            }
            Ok(Ok(()))
        };
        write().map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        self.released = self.taken();
        self.held.clear();
        Ok(())
    }
}

fn line(value: u64) -> String {
    if value == SHUTDOWN { format!("{:>10}\n", "shutdown") } else { format!("{value:>10}\n") }
}

/// A host with the console on its bus.
#[derive(Debug)]
pub(super) struct WithConsole<H> {
    pub(super) inner: H,
    pub(super) console: Console,
}

impl<H: Host> Host for WithConsole<H> {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.inner.apply(action)
    }

    fn before_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        self.inner.before_conversion(conversion)
    }

    fn after_conversion(&mut self, conversion: Conversion) -> Result<(), Errno> {
        self.inner.after_conversion(conversion)
    }

    fn undo_conversion(&mut self, conversion: Conversion) {
        self.inner.undo_conversion(conversion);
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.inner.read_guest(gpa, bytes)
    }

    fn port_out(&mut self, port: u16, size: u8, data: &[u8]) {
        if let (VALUE_PORT, 4) = (port, size) {
            for value in data.chunks_exact(4).filter_map(<[u8]>::first_chunk) {
                self.console.take(u32::from_le_bytes(*value).into());
            }
        }
    }

    fn port_in(&mut self, port: u16, size: u8, data: &mut [u8]) {
        data.fill(0xff);
        if let (TAKEN_PORT, 4) = (port, size) {
            let taken = u32::try_from(self.console.taken()).unwrap_or(u32::MAX).to_le_bytes();
            data.chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&taken));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(released: u64, held: &[u64]) -> Console {
        Console { released, held: held.to_vec(), has_ended: false }
    }

    #[test]
    fn a_release_is_made_again_from_every_byte_at_which_it_was_cut_short() {
        let log = std::env::temp_dir().join(format!("exeunt-console-{}", std::process::id()));
        let whole = "         0\n         1\n         2\n  shutdown\n";
        for length in 11..=whole.len() {
            std::fs::write(&log, &whole[..length]).unwrap();
            console(1, &[1, 2, SHUTDOWN]).release(&log, &|| {}).unwrap();
            assert_eq!(std::fs::read_to_string(&log).unwrap(), whole, "{length}");
        }
        for (there, why) in [
            (&whole[..10], "output is lost"),
            (&format!("{whole}         4\n")[..], "somebody else runs the VM"),
            ("         0\n         7\n", "other values"),
        ] {
            std::fs::write(&log, there).unwrap();
            let error = console(1, &[1, 2, SHUTDOWN]).release(&log, &|| {}).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert_eq!(std::fs::read_to_string(&log).unwrap(), there, "nothing was written");
        }
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn the_state_is_read_as_it_was_saved_and_every_cut_is_refused() {
        let state = Console { has_ended: true, ..console(3, &[3, 4]) };
        let bytes = state.save().bytes;
        assert_eq!(Console::of_snapshot(Some(&bytes)), Ok(state));
        for length in (0..bytes.len()).filter(|length| length % 8 != 0 || *length < 16) {
            assert!(Console::of_snapshot(Some(&bytes[..length])).is_err(), "{length}");
        }
        assert!(Console::of_snapshot(None).is_err());
    }
}
