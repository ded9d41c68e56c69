//! What a VMM half knows of the memory of a VM of the model, and whether it is so.

use exeunt::memory::{GuestMemory, MemoryOptions, MemorySlot, PageInfo};
use exeunt_abi::Gfn;
use exeunt_model::Vm;
use exeunt_proto::conversion::PageRange;

/// The memory of a VM as its VMM knows it after the launch: each page has the state that its attributes say, and
/// either of its memories may hold something, because a launch writes to both.
///
/// # Errors
///
/// Two slots overlap.
pub fn guest_memory(vm: &Vm, options: MemoryOptions) -> Result<GuestMemory, String> {
    let slots = vm.slots();
    let known =
        slots.iter().map(|slot| MemorySlot { range: slot.range, has_private: slot.guest_memfd.is_some() });
    let memory = GuestMemory::with_options(known, options).map_err(|error| error.to_string())?;
    for slot in slots {
        for (run, state) in vm.page_states(slot.range) {
            memory.assume(run, PageInfo { has_shared: true, has_private: true, ..PageInfo::fresh(state) });
        }
    }
    Ok(memory)
}

/// Holds what is known against attributes and backing: a state that is sure is so, and no memory holds something that
/// nobody knows of. Pages of conversions that are `under_way` are left out.
///
/// # Errors
///
/// The first page of which something else is known, in words.
pub fn agree(memory: &GuestMemory, vm: &Vm, under_way: &[PageRange]) -> Result<(), String> {
    for (range, info) in memory.runs() {
        for gfn in (range.gfn().0..range.end().0).map(Gfn) {
            if under_way.iter().any(|part| part.gfn() <= gfn && gfn < part.end()) {
                continue;
            }
            let state = vm.page_state(gfn);
            if info.is_certain && state != info.state {
                return Err(format!("the VMM half takes {gfn} for {}, it is {state}", info.state));
            }
            if !info.has_private && vm.has_private_page(gfn) {
                return Err(format!("{gfn} has a private page that the VMM half does not know of"));
            }
            if !info.has_shared && has_content(vm, gfn) {
                return Err(format!("{gfn} has shared memory in use that the VMM half does not know of"));
            }
        }
    }
    Ok(())
}

/// Whether the shared memory of a frame holds anything but zeroes.
fn has_content(vm: &Vm, gfn: Gfn) -> bool {
    let mut bytes = [0; 4096];
    vm.read_shared(gfn.gpa(), &mut bytes).is_ok() && bytes != [0; 4096]
}
