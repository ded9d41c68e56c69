//! A `kvm_run` behind a pointer: mapped by the caller, shared with the kernel and with whoever kicks the vCPU.

use std::fmt;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use exeunt_abi::kvm::run::{ExitReason, RunPage, UNION_BYTES};

use crate::leaf::Live;

/// Offset of `immediate_exit` in `kvm_run`.
const IMMEDIATE_EXIT: usize = 1;
/// The bit of `immediate_exit` that is this crate's. The kernel asks only whether the byte is zero, and whoever kicks
/// writes a 1, so that nobody undoes a kick. Who writes a 0 undoes the hold until the next exit, which brings it back.
const HOLD: u8 = 1 << 6;
/// Offset of the exit union in `kvm_run`.
const UNION: usize = offset_of!(RunPage, exit);
/// Offset of `exit_reason`, before which other threads write.
const REASON: usize = offset_of!(RunPage, exit_reason);

/// Why a pointer is no run page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawPageError {
    /// It is null.
    Null,
    /// It is no multiple of 8, which a mapping is.
    Misaligned,
    /// It ends before the end of the exit union.
    Short {
        /// Bytes that there are.
        bytes: usize,
    },
}

impl fmt::Display for RawPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("the run page is a null pointer"),
            Self::Misaligned => f.write_str("the run page is not aligned to 8 bytes"),
            Self::Short { bytes } => {
                write!(f, "the run page has {bytes} bytes and needs {}", size_of::<RunPage>())
            }
        }
    }
}

impl std::error::Error for RawPageError {}

/// A vCPU's `kvm_run` by its address. Nothing borrows it: bytes are copied in and out.
#[derive(Debug)]
pub struct RawPage {
    run: NonNull<u8>,
}

impl RawPage {
    /// Takes the start of a run page with `bytes` bytes, as `mmap` of the vCPU's descriptor gave it.
    ///
    /// # Errors
    ///
    /// The pointer or the length cannot be that of a run page.
    ///
    /// # Safety
    ///
    /// As long as the value lives, `bytes` bytes at `run` are mapped for reading and writing, no Rust reference to
    /// them exists, and while a method of it runs no thread is in `KVM_RUN` on this vCPU. Other threads may write
    /// the byte `immediate_exit`, with single stores or atomic instructions, and nothing else.
    pub unsafe fn new(run: *mut u8, bytes: usize) -> Result<Self, RawPageError> {
        let run = NonNull::new(run).ok_or(RawPageError::Null)?;
        if !run.cast::<u64>().is_aligned() {
            return Err(RawPageError::Misaligned);
        }
        if bytes < size_of::<RunPage>() {
            return Err(RawPageError::Short { bytes });
        }
        Ok(Self { run })
    }

    /// As [`RawPage::new`], of a pointer that is known to be one.
    ///
    /// # Safety
    ///
    /// As for [`RawPage::new`], and the page has the size and the alignment of a [`RunPage`] at least.
    #[cfg(all(feature = "kvm-ioctls", target_os = "linux"))]
    pub(crate) const unsafe fn from_mapped(run: NonNull<u8>) -> Self {
        Self { run }
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: The byte is inside the page, by `new`.
        let byte = unsafe { self.run.as_ptr().add(IMMEDIATE_EXIT) };
        // SAFETY: It is mapped for as long as this value lives, and who else writes it does so with single stores.
        unsafe { AtomicU8::from_ptr(byte) }
    }

    /// The words of the page from a byte offset on, which is a multiple of 8.
    fn word(&self, offset: usize) -> NonNull<u64> {
        // SAFETY: Callers stay below the size of `RunPage`, and that many bytes are there by `new`.
        unsafe { self.run.add(offset) }.cast()
    }
}

impl Live for RawPage {
    fn reason(&self) -> ExitReason {
        // SAFETY: The four bytes are inside the page and aligned, and the kernel does not write them now. Volatile,
        // because the kernel has written them without the compiler knowing.
        ExitReason(unsafe { self.word(REASON).cast::<u32>().read_volatile() })
    }

    fn take(&self, page: &mut RunPage) {
        let mut bytes = [0; size_of::<RunPage>()];
        for (index, to) in bytes.chunks_exact_mut(8).enumerate().skip(REASON / 8) {
            // SAFETY: As in `reason`; `index * 8` is below the size of `RunPage`.
            let word = unsafe { self.word(index * 8).read_volatile() };
            to.copy_from_slice(&word.to_ne_bytes());
        }
        *page = zerocopy::transmute!(bytes);
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let room = UNION_BYTES.saturating_sub(offset);
        for (index, byte) in bytes.iter().take(room).enumerate() {
            // SAFETY: `offset + index` is inside the union, which is inside the page by `new`.
            let to = unsafe { self.run.add(UNION + offset + index) };
            // SAFETY: No thread is in `KVM_RUN`, and no reference to the byte exists, by `new`.
            unsafe { to.write_volatile(*byte) };
        }
    }

    fn hold(&mut self) {
        self.immediate_exit().fetch_or(HOLD, Ordering::SeqCst);
    }

    fn release(&mut self) {
        self.immediate_exit().fetch_and(!HOLD, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    /// A page that is aligned as a mapping is.
    #[repr(C, align(4096))]
    struct Mapping([u8; 4096]);

    fn raw(mapping: &mut Mapping) -> RawPage {
        // SAFETY: The test's own memory, which it touches through the value alone while that lives.
        unsafe { RawPage::new(mapping.0.as_mut_ptr(), 4096) }.unwrap()
    }

    #[test]
    fn the_page_is_taken_from_the_reason_on_and_the_bytes_of_others_are_not() {
        let mut mapping = Mapping([0; 4096]);
        for (index, byte) in mapping.0.iter_mut().enumerate() {
            *byte = index.to_le_bytes()[0] | 1;
        }
        let expected = mapping.0;
        let page = raw(&mut mapping);
        let mut taken = RunPage::zeroed();
        page.take(&mut taken);
        assert_eq!(taken.user, [0; 8]);
        assert_eq!(taken.as_bytes()[8..], expected[8..288]);
        assert_eq!(page.reason(), taken.reason());
    }

    #[test]
    fn bytes_are_put_into_the_union_and_nowhere_else() {
        let mut mapping = Mapping([0; 4096]);
        let mut page = raw(&mut mapping);
        page.put(56, &[1, 2, 3]);
        page.put(255, &[4, 5]);
        page.put(usize::MAX, &[6]);
        let written: Vec<_> = mapping.0.iter().enumerate().filter(|(_, byte)| **byte != 0).collect();
        assert_eq!(written, [(88, &1), (89, &2), (90, &3), (287, &4)]);
    }

    #[test]
    fn holding_keeps_what_others_asked_for() {
        let mut mapping = Mapping([0; 4096]);
        mapping.0[1] = 1;
        let mut page = raw(&mut mapping);
        page.hold();
        let held = page.immediate_exit().load(Ordering::SeqCst);
        page.release();
        assert_eq!((held, &mapping.0[..3]), (1 | HOLD, &[0, 1, 0][..]));
    }

    #[test]
    fn a_pointer_that_cannot_be_a_run_page_is_refused() {
        let mut mapping = Mapping([0; 4096]);
        let start = mapping.0.as_mut_ptr();
        // SAFETY: None of these is used, because all are refused.
        let new = |run, bytes| unsafe { RawPage::new(run, bytes) }.unwrap_err();
        assert_eq!(new(std::ptr::null_mut(), 4096), RawPageError::Null);
        assert_eq!(new(start.wrapping_add(4), 4000), RawPageError::Misaligned);
        assert_eq!(new(start, 287), RawPageError::Short { bytes: 287 });
    }
}
