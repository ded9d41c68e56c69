//! `MapGPA`: a conversion in chunks.

use crate::guest::tdx::TdRegs;
use crate::vcpu::{Step, Vcpu};
use exeunt_abi::PAGE_SIZE;
use exeunt_abi::ghci::Status;
use exeunt_abi::kvm::run::{HYPERCALL_LONG_MODE, MAP_GPA_RANGE, map_gpa_range};
use exeunt_proto::exit::Hypercall;

/// Bytes that one exit converts. Chunks start where the range does, on no border of their own.
const CHUNK_BYTES: u64 = 2 << 20;
/// A conversion under way: `map_gpa_next` and `map_gpa_end`, with the shared bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapGpa {
    next: u64,
    end: u64,
    shared_bit: u64,
}

/// What userspace answers to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkAnswer {
    Done,
    Retry,
    Invalid,
}

impl MapGpa {
    /// The exit for the next chunk.
    ///
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `__tdx_map_gpa`.
    pub(super) fn chunk(&self) -> Hypercall {
        let bytes = self.end.saturating_sub(self.next).min(CHUNK_BYTES);
        let is_private = self.next & self.shared_bit == 0;
        let attributes = if is_private { map_gpa_range::ENCRYPTED } else { 0 };
        let gpa = self.next & !self.shared_bit;
        Hypercall {
            nr: MAP_GPA_RANGE,
            args: [gpa, bytes / PAGE_SIZE, attributes, 0, 0, 0],
            flags: HYPERCALL_LONG_MODE,
        }
    }
}

impl Vcpu {
    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_map_gpa`.
    pub(super) fn map_gpa(&mut self) -> Step {
        let TdRegs { r12: gpa, r13: bytes, .. } = self.td.args;
        match self.check_map_gpa(gpa, bytes) {
            Ok(map) => self.map_gpa_chunk(map),
            Err(status) => {
                self.td.args.r11 = gpa;
                self.answered(status)
            }
        }
    }

    fn check_map_gpa(&self, gpa: u64, bytes: u64) -> Result<MapGpa, Status> {
        if !self.vm.map_gpa_range_exits() {
            return Err(Status::SUBFUNC_UNSUPPORTED);
        }
        let shared_bit = self.vm.lock().td.shared_bit();
        let reserved = self.cpuid.reserved_address_bits();
        let is_legal = |gpa: u64| gpa & reserved == 0;
        let end = gpa.checked_add(bytes).filter(|end| *end > gpa).ok_or(Status::INVALID_OPERAND)?;
        let last = end.saturating_sub(1);
        if !is_legal(gpa) || !is_legal(last) || (gpa ^ last) & shared_bit != 0 {
            return Err(Status::INVALID_OPERAND);
        }
        if (gpa | bytes) & (PAGE_SIZE - 1) != 0 {
            return Err(Status::ALIGN_ERROR);
        }
        Ok(MapGpa { next: gpa, end, shared_bit })
    }

    /// Source: Linux v7.2 `arch/x86/kvm/vmx/tdx.c`, `tdx_complete_vmcall_map_gpa`.
    pub(super) fn complete_map_gpa(&mut self, mut map: MapGpa, answer: ChunkAnswer) -> Step {
        let refused = match answer {
            ChunkAnswer::Done => None,
            ChunkAnswer::Retry => Some(Status::RETRY),
            ChunkAnswer::Invalid => Some(Status::INVALID_OPERAND),
        };
        if let Some(status) = refused {
            self.td.args.r11 = map.next;
            return self.answered(status);
        }
        map.next = map.next.saturating_add(CHUNK_BYTES);
        if map.next >= map.end {
            // R10 is still 0 from the call, which is success.
            return Step::Resume;
        }
        self.take_inbox();
        if self.has_events() {
            self.td.args.r11 = map.next;
            return self.answered(Status::RETRY);
        }
        self.map_gpa_chunk(map)
    }
}
