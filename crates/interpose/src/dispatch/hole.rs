//! A page of the guest's memory that the process does not map, as far as the kernel half can see.

use exeunt_abi::Errno;
use exeunt_model::UserMemory;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The memory of the process that opened the model first, with a hole in it once there is one.
#[derive(Debug, Default)]
pub(super) struct Hole {
    seen: OnceLock<Seen>,
}

#[derive(Debug)]
struct Seen {
    inner: Arc<dyn UserMemory>,
    /// The same that `holey` is: the kernel half tells processes apart by it.
    outer: Arc<dyn UserMemory>,
    holey: Arc<Holey>,
}

impl Hole {
    /// The memory with the hole, of the process that came first; of any other the memory as it is.
    pub(super) fn of<'a>(&'a self, memory: &'a Arc<dyn UserMemory>) -> &'a Arc<dyn UserMemory> {
        let seen = self.seen.get_or_init(|| {
            let holey = Arc::new(Holey { inner: Arc::clone(memory), hole: OnceLock::new() });
            Seen { inner: Arc::clone(memory), outer: Arc::<Holey>::clone(&holey), holey }
        });
        if Arc::ptr_eq(&seen.inner, memory) { &seen.outer } else { memory }
    }

    /// Makes the hole, once.
    pub(super) fn set(&self, addresses: Range<u64>) {
        if let Some(seen) = self.seen.get() {
            // There is one hole, and it stays where it is.
            let _ = seen.holey.hole.set(addresses);
        }
    }
}

#[derive(Debug)]
struct Holey {
    inner: Arc<dyn UserMemory>,
    hole: OnceLock<Range<u64>>,
}

impl Holey {
    fn check(&self, uaddr: u64, bytes: usize) -> Result<(), Errno> {
        let end = uaddr.saturating_add(bytes as u64);
        let meets = self.hole.get().is_some_and(|hole| uaddr < hole.end && hole.start < end);
        if meets { Err(Errno::EFAULT) } else { Ok(()) }
    }
}

impl UserMemory for Holey {
    fn read(&self, uaddr: u64, to: &mut [u8]) -> Result<(), Errno> {
        self.check(uaddr, to.len())?;
        self.inner.read(uaddr, to)
    }

    fn write(&self, uaddr: u64, from: &[u8]) -> Result<(), Errno> {
        self.check(uaddr, from.len())?;
        self.inner.write(uaddr, from)
    }

    fn discard(&self, uaddr: u64, bytes: u64) {
        self.inner.discard(uaddr, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_model::SparseMemory;

    #[test]
    fn the_hole_is_in_the_first_memory_alone_and_nothing_beside_it_is_missing() {
        let hole = Hole::default();
        let [first, other]: [Arc<dyn UserMemory>; 2] =
            [Arc::new(SparseMemory::new()), Arc::new(SparseMemory::new())];
        let holey = hole.of(&first);
        assert!(Arc::ptr_eq(holey, hole.of(&first)) && Arc::ptr_eq(&other, hole.of(&other)));
        assert_eq!(holey.write(0x1fff, &[1, 2]), Ok(()));
        hole.set(0x2000..0x3000);
        for (at, bytes, expected) in [
            (0x1fff, 1, Ok(())),
            (0x1fff, 2, Err(Errno::EFAULT)),
            (0x2fff, 1, Err(Errno::EFAULT)),
            (0x3000, 1, Ok(())),
            (0x1000, 0x4000, Err(Errno::EFAULT)),
        ] {
            assert_eq!(holey.read(at, &mut vec![0; bytes]), expected, "{at:#x}");
            assert_eq!(holey.write(at, &vec![0; bytes]), expected, "{at:#x}");
        }
    }
}
