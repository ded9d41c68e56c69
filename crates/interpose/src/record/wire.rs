//! The bytes of a record.

use super::{File, Memory, Record, Run, What};
use exeunt_abi::Errno;
use exeunt_abi::kvm::run::RunPage;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the longest record: what a VMM wrote into the largest buffer that is looked at, and its head.
pub const MAX_BYTES: usize = 300 << 10;

/// The bytes of a record.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(64));
    to.u32(record.pid);
    to.what(&record.what);
    to.0
}

/// The record that these bytes are, all of them.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Record> {
    let mut from = Reader(bytes);
    let record = Record { pid: from.u32()?, what: from.what()? };
    from.0.is_empty().then_some(record)
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // A longer one does not fit into a record, and is cut there.
        let bytes = bytes.get(..MAX_BYTES / 2).unwrap_or(bytes);
        self.u32(u32::try_from(bytes.len()).unwrap_or(0));
        self.0.extend_from_slice(bytes);
    }

    fn result(&mut self, result: Result<u32, Errno>) {
        match result {
            Ok(value) => {
                self.u8(0);
                self.u32(value);
            }
            Err(errno) => {
                self.u8(1);
                self.u32(errno.0.unsigned_abs());
            }
        }
    }

    fn file(&mut self, file: File) {
        let (kind, vm, number) = match file {
            File::System => (0, 0, 0),
            File::Vm(vm) => (1, vm, 0),
            File::Vcpu(vm, vcpu) => (2, vm, vcpu),
            File::Gmem(vm, number) => (3, vm, number),
            File::Device(vm) => (4, vm, 0),
            File::Sev => (5, 0, 0),
        };
        self.u8(kind);
        self.u32(vm);
        self.u32(number);
    }

    fn what(&mut self, what: &What) {
        match what {
            What::Opened { file, result } => {
                self.u8(0);
                self.file(*file);
                self.result(*result);
            }
            What::Ioctl { on, request, arg, before, after, result, made } => {
                self.u8(1);
                self.file(*on);
                self.u32(*request);
                self.u64(*arg);
                self.bytes(before);
                self.bytes(after);
                self.result(*result);
                self.u8(u8::from(made.is_some()));
                if let Some(made) = made {
                    self.file(*made);
                }
            }
            What::Run(run) => {
                self.u8(2);
                self.run(run);
            }
            What::Inside { vm, vcpu, immediate, before } => {
                self.u8(9);
                self.u32(*vm);
                self.u32(*vcpu);
                self.u8(u8::from(*immediate));
                self.0.extend_from_slice(before.as_bytes());
            }
            What::PlainRuns { on, count } => {
                self.u8(3);
                self.file(*on);
                self.u64(*count);
            }
            What::Discard { memory, result } => {
                self.u8(4);
                self.memory(*memory);
                self.result(result.map(|()| 0));
            }
            What::Wrote { vm, gpa, bytes } => {
                self.u8(5);
                self.u32(*vm);
                self.u64(*gpa);
                self.bytes(bytes);
            }
            What::SceneOver => self.u8(6),
            What::Hung => self.u8(7),
            What::Trouble { why } => {
                self.u8(8);
                self.bytes(why.as_bytes());
            }
        }
    }

    fn run(&mut self, run: &Run) {
        self.u32(run.vm);
        self.u32(run.vcpu);
        self.u8(u8::from(run.immediate) | u8::from(run.injected) << 1);
        self.0.extend_from_slice(run.before.as_bytes());
        self.result(run.result.map(|()| 0));
        self.0.extend_from_slice(run.after.as_bytes());
    }

    fn memory(&mut self, memory: Memory) {
        match memory {
            Memory::Private { file, offset_bytes, bytes } => {
                self.u8(0);
                self.file(file);
                self.u64(offset_bytes);
                self.u64(bytes);
            }
            Memory::Shared { uaddr, bytes } => {
                self.u8(1);
                self.u64(uaddr);
                self.u64(bytes);
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<T: FromBytes>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take::<[u8; 4]>().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take::<[u8; 8]>().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn result(&mut self) -> Option<Result<u32, Errno>> {
        match (self.u8()?, self.u32()?) {
            (0, value) => Some(Ok(value)),
            (1, errno) => Some(Err(Errno(i32::try_from(errno).ok()?))),
            _ => None,
        }
    }

    fn file(&mut self) -> Option<File> {
        Some(match (self.u8()?, self.u32()?, self.u32()?) {
            (0, 0, 0) => File::System,
            (1, vm, 0) => File::Vm(vm),
            (2, vm, vcpu) => File::Vcpu(vm, vcpu),
            (3, vm, number) => File::Gmem(vm, number),
            (4, vm, 0) => File::Device(vm),
            (5, 0, 0) => File::Sev,
            _ => return None,
        })
    }

    fn what(&mut self) -> Option<What> {
        Some(match self.u8()? {
            0 => What::Opened { file: self.file()?, result: self.result()? },
            1 => {
                let (on, request, arg) = (self.file()?, self.u32()?, self.u64()?);
                let (before, after, result) = (self.bytes()?, self.bytes()?, self.result()?);
                let made = match self.u8()? {
                    0 => None,
                    1 => Some(self.file()?),
                    _ => return None,
                };
                What::Ioctl { on, request, arg, before, after, result, made }
            }
            2 => What::Run(Box::new(self.run()?)),
            3 => What::PlainRuns { on: self.file()?, count: self.u64()? },
            4 => What::Discard { memory: self.memory()?, result: nothing(self.result()?)? },
            5 => What::Wrote { vm: self.u32()?, gpa: self.u64()?, bytes: self.bytes()? },
            6 => What::SceneOver,
            7 => What::Hung,
            9 => {
                let (vm, vcpu) = (self.u32()?, self.u32()?);
                let immediate = match self.u8()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                What::Inside { vm, vcpu, immediate, before: Box::new(self.take()?) }
            }
            8 => What::Trouble { why: String::from_utf8(self.bytes()?).ok()? },
            _ => return None,
        })
    }

    fn run(&mut self) -> Option<Run> {
        let (vm, vcpu, flags) = (self.u32()?, self.u32()?, self.u8()?);
        if flags > 3 {
            return None;
        }
        let before: RunPage = self.take()?;
        let result = nothing(self.result()?)?;
        let after: RunPage = self.take()?;
        let (immediate, injected) = (flags & 1 != 0, flags & 2 != 0);
        Some(Run { vm, vcpu, immediate, injected, before, result, after })
    }

    fn memory(&mut self) -> Option<Memory> {
        Some(match self.u8()? {
            0 => Memory::Private { file: self.file()?, offset_bytes: self.u64()?, bytes: self.u64()? },
            1 => Memory::Shared { uaddr: self.u64()?, bytes: self.u64()? },
            _ => return None,
        })
    }
}

/// A result that has no value.
fn nothing(result: Result<u32, Errno>) -> Option<Result<(), Errno>> {
    match result {
        Ok(0) => Some(Ok(())),
        Ok(_) => None,
        Err(errno) => Some(Err(errno)),
    }
}

#[cfg(test)]
mod tests;
