//! What an internal error says when the emulator gave up.

use super::{InternalError, Words};
use core::fmt;
use exeunt_abi::kvm::run::{EMULATION_FLAG_INSTRUCTION_BYTES, suberror};

/// The emulator met an instruction that it cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmulationFailure {
    /// `emulation_failure.flags`, with the bits that have no meaning here.
    pub flags: u64,
    /// The instruction, if KVM had fetched it.
    pub instruction: Option<Instruction>,
    /// The vendor's exit information: reason, two words of detail, event and its error code, as far as it goes.
    pub info: Words,
}

/// Bytes of an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// `insn_size` as written.
    pub size_bytes: u8,
    bytes: [u8; 15],
}

impl Instruction {
    /// The bytes, never more than 15.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.size_bytes)).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

impl InternalError {
    /// What the emulator says, if it was the emulator that failed and it says anything.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/x86.c`, `prepare_emulation_failure_exit`. The instruction lies in the second
    /// and third word if the flag for it is set, and these words are missing otherwise.
    #[must_use]
    pub fn emulation(&self) -> Option<EmulationFailure> {
        if self.suberror != suberror::EMULATION {
            return None;
        }
        let (flags, rest) = self.data.as_slice().split_first()?;
        let has_instruction = flags & EMULATION_FLAG_INSTRUCTION_BYTES != 0;
        let (instruction, info) = match rest {
            [first, second, info @ ..] if has_instruction => (Some(instruction(*first, *second)), info),
            // The flag promises words that are not there.
            _ if has_instruction => (None, [].as_slice()),
            info => (None, info),
        };
        Some(EmulationFailure { flags: *flags, instruction, info: Words::from_slice(info) })
    }
}

fn instruction(first: u64, second: u64) -> Instruction {
    let [size_bytes, low @ ..] = first.to_le_bytes();
    let mut bytes = [0; 15];
    for (to, from) in bytes.iter_mut().zip(low.into_iter().chain(second.to_le_bytes())) {
        *to = from;
    }
    Instruction { size_bytes, bytes }
}
