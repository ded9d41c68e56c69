//! Port I/O: of one element through RAX, of strings through memory or through the scratch area of a GHCB.

use crate::guest::GuestFault;
use crate::guest::mailbox::Outcome;
use crate::vcpu::{Completion, OnEntry, Step, Vcpu};
use exeunt_abi::ghcb::exit_code::ioio;
use exeunt_abi::kvm::run::PORT_DATA_BYTES;
use exeunt_abi::{Errno, Gpa, PAGE_SIZE};
use exeunt_proto::exit::{Exit, Io};

/// Bytes that the emulator of plain guests reads ahead for `REP INS`: `struct read_cache`.
const READ_AHEAD_BYTES: u64 = 1024;

/// What is left of a string instruction, the chunk under way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringIo {
    is_out: bool,
    /// Bytes of an element: what the guest wrote into three bits, so 3, 5, 6 and 7 are possible.
    size: u8,
    port: u16,
    data: StringData,
    /// Elements that no exit has been made for.
    left: u64,
    /// Elements of the exit under way.
    now: u64,
}

/// Where the elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StringData {
    /// In the scratch area, from this offset on.
    Scratch(u64),
    /// In the memory of a plain guest.
    Memory(Gpa),
}

impl StringIo {
    fn bytes_of(self, elements: u64) -> u64 {
        elements.saturating_mul(u64::from(self.size))
    }

    /// Elements of the next exit.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_sev_es_outs` and `kvm_sev_es_ins`; `emulate.c`,
    /// `pio_in_emulated` and `em_out`.
    fn chunk(self) -> u64 {
        let size = u64::from(self.size).max(1);
        let most = match self.data {
            StringData::Scratch(_) => PORT_DATA_BYTES as u64 / size,
            // The emulator writes each element before it reads the next.
            StringData::Memory(_) if self.is_out => 1,
            StringData::Memory(at) => {
                let in_page = PAGE_SIZE.saturating_sub(at.offset_in_page());
                (in_page.min(READ_AHEAD_BYTES) / size).max(1)
            }
        };
        self.left.min(most)
    }
}

impl Vcpu {
    /// `OUT` and `IN` of a plain guest.
    pub(crate) fn port_op(&mut self, is_out: bool, port: u16, size: u8, value: u32) -> Step {
        if !self.is_plain_x86() || !matches!(size, 1 | 2 | 4) {
            return Step::Guest(Outcome::Fault(self.not_emulated()));
        }
        self.did(|| {
            if is_out {
                format!("OUT {value:#x} to port {port:#x}, {size} bytes")
            } else {
                format!("IN from port {port:#x}, {size} bytes")
            }
        });
        self.regs.rax = u64::from(value);
        self.on_entry = Some(if is_out { OnEntry::Nothing } else { OnEntry::Rax });
        self.fast_pio(is_out, port, size)
    }

    /// `REP OUTS` and `REP INS` of a plain guest, from or to this address upwards.
    pub(crate) fn string_op(&mut self, is_out: bool, port: u16, size: u8, at: Gpa, elements: u32) -> Step {
        if !self.is_plain_x86() || !matches!(size, 1 | 2 | 4) {
            return Step::Guest(Outcome::Fault(self.not_emulated()));
        }
        self.did(|| {
            let name = if is_out { "OUTS" } else { "INS" };
            format!("REP {name}, {elements} elements of {size} bytes, port {port:#x}, memory at {at}")
        });
        self.on_entry = Some(OnEntry::Nothing);
        let data = StringData::Memory(at);
        self.next_string(StringIo { is_out, size, port, data, left: u64::from(elements), now: 0 })
    }

    /// The `IOIO` exit of a GHCB.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/svm/svm.c`, `io_interception`; `sev.c`, `sev_es_string_io`.
    pub(crate) fn ioio(&mut self) -> Step {
        let [info_1, info_2] = self.ghcb.info;
        let is_out = info_1 & ioio::TYPE_IN == 0;
        let port = u16::try_from(info_1 >> ioio::PORT_SHIFT & 0xffff).unwrap_or_default();
        let size = u8::try_from((info_1 & ioio::SIZE_MASK) >> ioio::SIZE_SHIFT).unwrap_or_default();
        // An access of no size is nothing to do.
        if size == 0 {
            return Step::Resume;
        }
        if info_1 & ioio::STRING == 0 {
            return self.fast_pio(is_out, port, size);
        }
        // Both are signed numbers of 32 bits in the kernel.
        let max = u64::from(i32::MAX.unsigned_abs());
        let bytes = info_2.checked_mul(u64::from(size)).filter(|bytes| info_2 <= max && *bytes <= max);
        let Some(bytes) = bytes else { return Step::Exit(Err(Errno::EINVAL)) };
        if bytes == 0 {
            return Step::Resume;
        }
        if let Err(step) = self.set_up_scratch(bytes, !is_out) {
            return step;
        }
        self.next_string(StringIo { is_out, size, port, data: StringData::Scratch(0), left: info_2, now: 0 })
    }

    /// One element through RAX.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `kvm_fast_pio`.
    fn fast_pio(&mut self, is_out: bool, port: u16, size: u8) -> Step {
        let value = if is_out { self.regs.rax } else { 0 };
        self.put_port_data(&value.to_le_bytes(), usize::from(size));
        if !is_out {
            self.completion = Some(Completion::PortIn { size });
        }
        Step::Exit(self.exit(&Exit::Io(Io { is_out, size, port, count: 1, start: 0 })))
    }

    /// The answer to `IN`: less than 4 bytes leave the rest of RAX alone, 4 and more clear it.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `complete_fast_pio_in`.
    pub(crate) fn complete_port_in(&mut self, size: u8) -> Step {
        let data = self.port_data.first_chunk::<8>().copied().unwrap_or_default();
        let bits = u32::from(size).saturating_mul(8);
        let taken = u64::MAX.checked_shr(64u32.saturating_sub(bits)).unwrap_or(0);
        let kept = if size < 4 { self.regs.rax & !taken } else { 0 };
        self.regs.rax = kept | u64::from_le_bytes(data) & taken;
        Step::Resume
    }

    /// Exits with the next chunk of a string instruction, or goes on when nothing is left.
    fn next_string(&mut self, mut io: StringIo) -> Step {
        if io.left == 0 {
            return Step::Resume;
        }
        io.now = io.chunk();
        let bytes = usize::try_from(io.bytes_of(io.now)).unwrap_or(PORT_DATA_BYTES).min(PORT_DATA_BYTES);
        // What userspace is to fill in begins as zeros.
        let mut data = vec![0; bytes];
        if io.is_out && self.read_string(io.data, &mut data).is_err() {
            return self.end_string(io);
        }
        self.put_port_data(&data, bytes);
        self.completion = Some(Completion::StringIo(io));
        let count = u32::try_from(io.now).unwrap_or(u32::MAX);
        Step::Exit(self.exit(&Exit::Io(Io {
            is_out: io.is_out,
            size: io.size,
            port: io.port,
            count,
            start: 0,
        })))
    }

    /// Userspace did a chunk.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `complete_sev_es_emulated_outs` and `complete_sev_es_emulated_ins`.
    pub(crate) fn complete_string(&mut self, done: StringIo) -> Step {
        let bytes = done.bytes_of(done.now);
        if !done.is_out {
            let page = Box::clone(&self.port_data);
            let data = usize::try_from(bytes).ok().and_then(|bytes| page.get(..bytes)).unwrap_or_default();
            if self.write_string(done.data, data).is_err() {
                return self.end_string(done);
            }
        }
        let data = match done.data {
            StringData::Scratch(at) => StringData::Scratch(at.saturating_add(bytes)),
            StringData::Memory(at) => StringData::Memory(Gpa(at.0.wrapping_add(bytes))),
        };
        self.next_string(StringIo { data, left: done.left.saturating_sub(done.now), ..done })
    }

    /// A plain guest's string left its memory. A scratch area never ends before its string.
    fn end_string(&mut self, io: StringIo) -> Step {
        if let StringData::Memory(Gpa(gpa)) = io.data {
            self.raise(GuestFault::NoMemory { gpa });
        }
        Step::Resume
    }

    fn read_string(&self, from: StringData, to: &mut [u8]) -> Result<(), Errno> {
        let memory = &self.vm.lock().memory;
        match from {
            StringData::Scratch(at) => self.ghcb.read_scratch(memory, at, to),
            StringData::Memory(at) => memory.read_shared(at, to),
        }
    }

    fn write_string(&mut self, to: StringData, from: &[u8]) -> Result<(), Errno> {
        let memory = &mut self.vm.lock().memory;
        match to {
            StringData::Scratch(at) => self.ghcb.write_scratch(memory, at, from),
            StringData::Memory(at) => memory.write_shared(at, from),
        }
    }

    /// Fills the port page from its start. Bytes behind the data stay stale.
    fn put_port_data(&mut self, data: &[u8], bytes: usize) {
        self.port_data.iter_mut().zip(data).take(bytes).for_each(|(to, from)| *to = *from);
    }
}
