//! SEV and SEV-ES guests.

/// The guests.
#[derive(Debug, Default)]
pub(crate) struct SevGuests {
    initialised: bool,
}

impl SevGuests {
    /// `INIT`. The driver does not send it twice.
    pub(crate) fn init(&mut self) {
        self.initialised = true;
    }
}
