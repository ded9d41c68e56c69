//! The host of the guest: memory by `exeunt-linux`, and one serial port.

use exeunt_abi::{Errno, Gpa};
use exeunt_linux::Effects;
use exeunt_proto::host::{Action, Host};
use std::io::Write as _;

/// The first serial port, which is standard output.
const SERIAL: u16 = 0x3f8;

/// Effects on memory, and a console.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    pub(crate) effects: Effects,
}

impl Host for Console {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        self.effects.apply(action)
    }

    fn read_guest(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        self.effects.read_guest(gpa, bytes)
    }

    fn port_out(&mut self, port: u16, _size: u8, data: &[u8]) {
        if port == SERIAL {
            // A console that nobody reads is no reason to end the guest.
            let _ = std::io::stdout().write_all(data);
        }
    }

    fn port_in(&mut self, _port: u16, _size: u8, data: &mut [u8]) {
        data.fill(0xff);
    }
}
