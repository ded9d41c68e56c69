//! What the first process of a machine does.

use std::ffi::CStr;
use std::fs::{self, File};

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where the machine's modules are, in the order in which they are loaded.
const MODULES: &str = "/modules";

/// Makes `/dev/kvm` appear.
///
/// # Errors
///
/// What failed.
pub(crate) fn set_up() -> Result<(), String> {
    let none: Option<&CStr> = None;
    // A kernel that mounts it by itself refuses the second time.
    let _ = mount("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), none);
    let Ok(folder) = fs::read_dir(MODULES) else { return Ok(()) };
    let mut modules: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for path in modules {
        let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        finit_module(file, c"", 0).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Ends the machine.
pub(crate) fn power_off() -> ! {
    // QEMU with `-no-reboot` ends when the machine restarts. A kernel without ACPI could not switch it off.
    let _ = reboot(RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}
