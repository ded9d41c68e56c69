//! What holds for every exported function.

use std::ffi::c_int;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use exeunt_abi::Errno;

/// Runs the body of an exported function. A panic, which is a bug, becomes `failed` and goes no further.
pub(crate) fn guarded<T>(failed: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(failed)
}

/// A result as C functions return it: 0 or a negative errno. A panic is `-EIO`.
pub(crate) fn status(body: impl FnOnce() -> Result<(), Errno>) -> c_int {
    guarded(-Errno::EIO.0, || body().map_or_else(|errno| -errno.0, |()| 0))
}

/// What a callback returned: 0, or an errno of either sign.
pub(crate) fn returned(code: c_int) -> Result<(), Errno> {
    match code {
        0 => Ok(()),
        code => Err(Errno(code.saturating_abs())),
    }
}

/// Writes text that ends with a null byte into a buffer, as `snprintf` does: cut where the buffer ends, and the length
/// of the whole as the result.
pub(crate) struct Text<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Text<'a> {
    /// The text of a value, and its length in bytes without the null.
    pub(crate) fn print(buffer: &'a mut [u8], text: impl FnOnce(&mut Self) -> fmt::Result) -> usize {
        let mut to = Self { buffer, length: 0 };
        // Writing does not fail: what does not fit is counted.
        let _ = text(&mut to);
        let end = to.length.min(to.buffer.len().saturating_sub(1));
        if let Some(null) = to.buffer.get_mut(end) {
            *null = 0;
        }
        to.length
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer.get_mut(self.length..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.length = self.length.saturating_add(text.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn text_is_cut_at_the_end_of_the_buffer_and_always_ends_with_a_null() {
        for room in 0..12 {
            let mut buffer = vec![0xff; room];
            let length = Text::print(&mut buffer, |to| {
                to.write_str("ab")?;
                to.write_str("cdefgh")
            });
            assert_eq!(length, 8);
            let kept = room.saturating_sub(1).min(8);
            assert_eq!(&buffer[..kept], &b"abcdefgh"[..kept], "{room}");
            assert!(room == 0 || buffer[kept] == 0, "{room}");
        }
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let got = status(|| panic!("a bug"));
        std::panic::set_hook(quiet);
        assert_eq!(got, -5);
    }

    #[test]
    fn a_callback_may_return_an_errno_of_either_sign() {
        assert_eq!(returned(0), Ok(()));
        assert_eq!(returned(-12), Err(Errno::ENOMEM));
        assert_eq!(returned(12), Err(Errno::ENOMEM));
        assert_eq!(returned(c_int::MIN), Err(Errno(c_int::MAX)));
    }
}
