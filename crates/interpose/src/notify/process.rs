//! The processes that wait for answers: which thread is of which, their memory, and the paths that they name.

use super::foreign_unsafe;
use exeunt_abi::{Errno, PAGE_SIZE};
use exeunt_model::UserMemory;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The memory of another process.
#[derive(Debug)]
pub(super) struct ProcessMemory {
    pid: i32,
}

impl UserMemory for ProcessMemory {
    fn read(&self, uaddr: u64, to: &mut [u8]) -> Result<(), Errno> {
        if to.is_empty() {
            return Ok(());
        }
        // Whatever it is, a caller in the kernel would see that nothing was copied.
        foreign_unsafe::read(self.pid, uaddr, to).map_err(|_| Errno::EFAULT)
    }

    fn write(&self, uaddr: u64, from: &[u8]) -> Result<(), Errno> {
        if from.is_empty() {
            return Ok(());
        }
        foreign_unsafe::write(self.pid, uaddr, from).map_err(|_| Errno::EFAULT)
    }

    /// Nothing: the process's own `madvise` goes on to the kernel.
    fn discard(&self, _uaddr: u64, _bytes: u64) {}
}

/// A process of the tree.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// The same for as long as the process lives: KVM tells the owner of a VM by it.
    pub(super) memory: Arc<dyn UserMemory>,
}

/// Those that have been met.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// By thread.
    threads: BTreeMap<i32, i32>,
    /// By process.
    known: BTreeMap<i32, Process>,
}

/// Threads that are remembered. A tree of processes that makes more begins anew.
const MOST_THREADS: usize = 4096;

impl Processes {
    /// The process of a thread. `None` if the thread is gone.
    pub(super) fn of_thread(&mut self, tid: i32) -> Option<Process> {
        let remembered = self.threads.get(&tid).copied();
        // A number can be given to another thread.
        let pid = match remembered.filter(|pid| foreign_unsafe::is_thread_of(*pid, tid)) {
            Some(pid) => pid,
            None => self.meet(tid)?,
        };
        let fresh = || Process { pid, memory: Arc::new(ProcessMemory { pid }) };
        Some(self.known.entry(pid).or_insert_with(fresh).clone())
    }

    /// The process that a thread was of when it was met. It is to be made sure of by the caller.
    pub(super) fn remembered(&self, tid: i32) -> Option<&Process> {
        self.known.get(self.threads.get(&tid)?)
    }

    fn meet(&mut self, tid: i32) -> Option<i32> {
        let pid = status_field(tid, "Tgid:")?.parse().ok()?;
        if self.threads.len() >= MOST_THREADS {
            self.threads.clear();
        }
        self.threads.insert(tid, pid);
        Some(pid)
    }
}

fn status_field(tid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// Whether a signal waits for this thread, which would end a sleep in the kernel. `blocked` takes the place of the signals
/// that the thread itself waits with.
pub(super) fn has_signal(tid: i32, blocked: Option<u64>) -> bool {
    let mask = |name| status_field(tid, name).and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    let pending = mask("SigPnd:").unwrap_or_default() | mask("ShdPnd:").unwrap_or_default();
    let blocked = blocked.or_else(|| mask("SigBlk:")).unwrap_or_default();
    pending & !blocked != 0
}

/// The longest path that is looked at, its end included: `PATH_MAX`.
const MOST_BYTES: u64 = 4096;

/// Reads a path, up to its end and no further: the page behind it may not be there.
pub(super) fn read_path(memory: &dyn UserMemory, uaddr: u64) -> Result<Vec<u8>, Errno> {
    // Nearly all paths end within a few words, and nearly none is a device's.
    const STEP: u64 = 256;
    let mut path = Vec::new();
    let mut at = uaddr;
    while (path.len() as u64) < MOST_BYTES {
        let to_page_end = PAGE_SIZE - at % PAGE_SIZE;
        let mut step = vec![0; usize::try_from(to_page_end.min(STEP)).map_err(|_| Errno::EFAULT)?];
        memory.read(at, &mut step)?;
        if let Some(end) = step.iter().position(|byte| *byte == 0) {
            step.truncate(end);
            path.append(&mut step);
            return Ok(path);
        }
        at = at.wrapping_add(step.len() as u64);
        path.append(&mut step);
    }
    Err(ENAMETOOLONG)
}

const ENAMETOOLONG: Errno = Errno(36);

/// The device that a path leads to, if it is one of ours: `kvm` or `sev` in `/dev`, from the root, the working
/// directory, or the directory that a descriptor is open on.
pub(super) fn device_of(process: i32, directory: i32, path: &[u8]) -> Option<exeunt_model::device::Path> {
    let text = std::str::from_utf8(path).ok()?;
    let path = Path::new(text);
    let device = match path.file_name()?.to_str()? {
        "kvm" => exeunt_model::device::Path::Kvm,
        "sev" => exeunt_model::device::Path::Sev,
        _ => return None,
    };
    // `/dev/kvm/` is no device.
    if text.ends_with('/') {
        return None;
    }
    let absolute = if path.is_absolute() {
        path.to_owned()
    } else {
        let base = match directory {
            libc::AT_FDCWD => format!("/proc/{process}/cwd"),
            fd => format!("/proc/{process}/fd/{fd}"),
        };
        fs::read_link(base).ok()?.join(path)
    };
    (plain(&absolute).parent()? == Path::new("/dev")).then_some(device)
}

/// The path without `.`, `..` and empty parts, as if there were no links.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeunt_model::SparseMemory;
    use exeunt_model::device::Path as Device;

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn the_devices_are_known_by_each_way_to_write_their_paths() {
        let at = |path: &str| device_of(own(), libc::AT_FDCWD, path.as_bytes());
        for path in
            ["/dev/kvm", "//dev/kvm", "/dev/./kvm", "/dev/../dev/kvm", "/proc/../dev//kvm", "/../dev/kvm"]
        {
            assert_eq!(at(path), Some(Device::Kvm), "{path}");
        }
        assert_eq!(at("/dev/sev"), Some(Device::Sev));
        for path in [
            "",
            "/",
            "/dev",
            "/dev/",
            "/dev/kvm/",
            "/dev/kvm0",
            "/dev/sev-guest",
            "/kvm",
            "/tmp/dev/kvm",
            "kvm",
        ] {
            assert_eq!(at(path), None, "{path}");
        }
        let up = "../".repeat(40);
        assert_eq!(at(&format!("{up}dev/kvm")), Some(Device::Kvm));
        assert_eq!(device_of(own(), libc::AT_FDCWD, b"/dev/\xff/kvm"), None);
    }

    #[test]
    fn a_path_can_start_at_a_descriptor() {
        use std::os::fd::AsRawFd;
        let dev = fs::File::open("/dev").unwrap();
        assert_eq!(device_of(own(), dev.as_raw_fd(), b"kvm"), Some(Device::Kvm));
        assert_eq!(device_of(own(), dev.as_raw_fd(), b"./shm/../sev"), Some(Device::Sev));
        assert_eq!(device_of(own(), dev.as_raw_fd(), b"null"), None);
        assert_eq!(device_of(own(), -1, b"kvm"), None);
    }

    #[test]
    fn a_path_is_read_to_its_end_over_pages_and_no_further_than_a_path_can_be() {
        let memory = SparseMemory::default();
        let long = "x".repeat(600);
        memory.write(0x1ff0, format!("{long}\0rest").as_bytes()).unwrap();
        assert_eq!(read_path(&memory, 0x1ff0), Ok(long.into_bytes()));
        memory.write(0x10000, &[b'y'; 8192]).unwrap();
        assert_eq!(read_path(&memory, 0x10000), Err(ENAMETOOLONG));
        assert_eq!(read_path(&ProcessMemory { pid: own() }, 0), Err(Errno::EFAULT));
    }

    #[test]
    fn memory_that_is_not_all_there_is_not_copied() {
        let memory = ProcessMemory { pid: own() };
        let text = *b"here";
        let mut copy = [0; 4];
        assert_eq!(memory.read(text.as_ptr().addr() as u64, &mut copy), Ok(()));
        assert_eq!(copy, text);
        assert_eq!(memory.read(8, &mut copy), Err(Errno::EFAULT));
        assert_eq!(memory.write(u64::MAX - 1, &copy), Err(Errno::EFAULT));
        assert_eq!(memory.write(8, &[]), Ok(()));
    }

    #[test]
    fn threads_lead_to_their_process_and_those_of_others_do_not() {
        let mut processes = Processes::default();
        let link = fs::read_link("/proc/thread-self").unwrap();
        let tid = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
        for _ in 0..2 {
            assert_eq!(processes.of_thread(tid).map(|process| process.pid), Some(own()));
        }
        assert!(foreign_unsafe::is_thread_of(own(), tid));
        assert!(!foreign_unsafe::is_thread_of(1, tid));
        assert!(processes.of_thread(i32::MAX).is_none());
        let [first, second] = [0; 2].map(|_| processes.of_thread(tid).unwrap().memory);
        assert!(Arc::ptr_eq(&first, &second), "the owner of a VM stays the same");
        assert!(!has_signal(tid, None));
    }
}
