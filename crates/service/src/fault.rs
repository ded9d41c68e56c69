//! Memory faults: which of them are conversions in disguise.

use crate::policy::{FaultPolicy, Policy};
use crate::stop::{FaultCause, Stop};
use exeunt_abi::PAGE_SIZE;
use exeunt_proto::conversion::{Conversion, PageRange, PageState};
use exeunt_proto::exit::MemoryFault;

/// Turns a fault into the conversion that lets the access through, if the policy allows implicit conversion. `None` if
/// the page is already what the access wants: another vCPU converted it meanwhile, or KVM could not get its memory, and
/// it is enough to enter again.
///
/// The checks come in the order of their weight: what makes the fault unusable first, the policy last.
pub(crate) fn conversion_for(fault: MemoryFault, policy: &Policy) -> Result<Option<Conversion>, Stop> {
    let stop = |why| Err(Stop::MemoryFault { fault, why });
    if fault.poisoned {
        return stop(FaultCause::Poisoned);
    }
    if fault.unknown_flags != 0 {
        return stop(FaultCause::UnknownFlags { bits: fault.unknown_flags });
    }
    let aligned = fault.gpa.is_page_aligned() && fault.size & (PAGE_SIZE - 1) == 0;
    let range = PageRange::new(fault.gpa.gfn(), fault.size / PAGE_SIZE).filter(|_| aligned);
    let Some(range) = range else { return stop(FaultCause::BadRange) };
    let to = if fault.private { PageState::Private } else { PageState::Shared };
    let conversion = Conversion { range, to };
    let memory = policy.memory();
    if !memory.covers(range) || !memory.allows(conversion) {
        return stop(FaultCause::NoSlot);
    }
    if memory.state_of(range) == Some(to) {
        return Ok(None);
    }
    match policy.memory_faults {
        FaultPolicy::Convert => Ok(Some(conversion)),
        FaultPolicy::Stop => stop(FaultCause::NotAllowed),
    }
}
