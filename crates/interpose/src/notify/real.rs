//! Calls that the real kernel answers.
//!
//! Only the process itself can make them, because KVM refuses another one's memory. So they are let through, and what
//! became of them is seen later, at the next call of the thread: of a `KVM_RUN` in the page, together with what the VMM has
//! answered by then, and of a call that makes a file in the table of the process's descriptors.

use super::descriptors::{Caller, fetch};
use super::foreign_unsafe;
use super::listener_unsafe::{Answer, Notification};
use super::numbers::{int, unsigned_int};
use super::process::Process;
use super::supervisor::{Member, Supervisor};
use crate::dispatch::{Before, Dispatcher, Pending, Process as _};
use crate::pages_unsafe::VcpuPages;
use crate::record::File;
use exeunt_abi::Errno;
use exeunt_abi::kvm::caps::Cap;
use exeunt_abi::kvm::ioctl as nr;
use exeunt_abi::kvm::ioctl::Ioctl;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_model::UserMemory;
use exeunt_model::device::LivePages;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What is known of a process's real descriptors.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Copies of the descriptors, by number: what a number leads to is told by them.
    copies: BTreeMap<i32, OwnedFd>,
    /// vCPUs that have been entered.
    vcpus: BTreeMap<i32, Entered>,
    /// Calls that make a file, by thread.
    making: BTreeMap<i32, Making>,
    memory: Option<Arc<dyn UserMemory>>,
}

#[derive(Debug)]
struct Entered {
    pages: VcpuPages,
    /// The page when the vCPU was entered, and the entry that nothing is known of yet.
    pending: Option<(Head, Pending)>,
    /// The thread that entered it last, with the file that it should be.
    thread: i32,
    /// Entries of that thread until the file is looked at again.
    trusted: u32,
}

impl Entered {
    /// Tells what the entry brought that nothing is known of yet.
    fn tell(&mut self, dispatcher: &Dispatcher, memory: &Arc<dyn UserMemory>) {
        if let Some((before, pending)) = self.pending.take() {
            dispatcher.after(pending, outcome(&before, &Head::of(&self.pages)), memory);
        }
    }
}

/// How often a number is taken to lead where it led to. A vCPU is told apart when it is made; what else is put behind
/// its number cannot be entered.
const TRUSTED: u32 = 64;

/// What an exit changes in a run page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head([u8; HEAD_BYTES]);

/// Up to the end of the union.
const HEAD_BYTES: usize = 288;

impl Head {
    fn of(pages: &VcpuPages) -> Self {
        let mut bytes = [0; HEAD_BYTES];
        pages.load(0, &mut bytes);
        Self(bytes)
    }

    fn immediate_exit(&self) -> bool {
        let [_, immediate_exit, ..] = self.0;
        immediate_exit != 0
    }

    fn reason(&self) -> ExitReason {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = self.0;
        ExitReason(u32::from_le_bytes([a, b, c, d]))
    }
}

#[derive(Debug)]
struct Making {
    pending: Pending,
    what: Made,
}

/// A file that a call makes.
#[derive(Clone, Copy, Debug)]
enum Made {
    Vm,
    Vcpu(u64),
    Gmem,
}

impl Made {
    fn by(request: Ioctl, arg: u64) -> Option<Self> {
        match request {
            nr::KVM_CREATE_VM => Some(Self::Vm),
            nr::KVM_CREATE_VCPU => Some(Self::Vcpu(arg)),
            nr::KVM_CREATE_GUEST_MEMFD => Some(Self::Gmem),
            _ => None,
        }
    }

    /// What `/proc` says of such a file. Source: Linux v7.2 `virt/kvm/kvm_main.c` and `guest_memfd.c`.
    fn is(self, link: &str) -> bool {
        match self {
            Self::Vm => link == "anon_inode:kvm-vm",
            Self::Vcpu(id) => link.strip_prefix("anon_inode:kvm-vcpu:") == Some(&id.to_string()),
            Self::Gmem => link.contains("kvm-gmem") || link.contains("guest_memfd"),
        }
    }
}

impl Supervisor {
    /// What becomes of a call.
    pub(super) fn real(&mut self, call: &Notification, process: &Process) -> Option<Answer> {
        let [fd, request, arg, ..] = call.args;
        match libc::c_long::from(call.nr) {
            libc::SYS_ioctl => {}
            libc::SYS_madvise => return Some(self.madvise(call, process)),
            libc::SYS_fallocate => return Some(self.fallocate(call, process)),
            _ => return Some(Answer::Continue),
        }
        let fd = int(fd);
        let request = Ioctl(unsigned_int(request));
        let member = self.member(process.pid)?;
        member.entries.memory.get_or_insert_with(|| Arc::clone(&process.memory));
        member.settle(call.tid, process);
        if !member.recognize(process, fd) {
            return Some(Answer::Continue);
        }
        member.handed.set_caller(Caller { checked: None, ..Caller::on(call.id, fd) });
        if request == nr::KVM_RUN {
            return Some(member.enter(call, process, fd));
        }
        Some(match member.dispatcher.before(fd, request.0, arg, &process.memory) {
            Before::NotOurs => Answer::Continue,
            Before::Done(result) => Answer::Return(result.map(i64::from)),
            Before::Call(pending) => {
                if let Some(what) = Made::by(request, arg) {
                    member.entries.making.insert(call.tid, Making { pending, what });
                } else {
                    // The kernel tells the process alone. It is taken to say yes, but for what can be asked again.
                    let result = member.ask_again(request, arg, process.memory.as_ref()).unwrap_or(Ok(0));
                    member.dispatcher.after(pending, result, &process.memory);
                }
                Answer::Continue
            }
        })
    }
}

impl Member {
    /// Tells what became of earlier calls: of the thread's own, which have come back, and of those that made files, as
    /// far as their files are there.
    fn settle(&mut self, tid: i32, process: &Process) {
        for entered in self.entries.vcpus.values_mut().filter(|entered| entered.thread == tid) {
            entered.tell(&self.dispatcher, &process.memory);
        }
        for (thread, Making { pending, what }) in std::mem::take(&mut self.entries.making) {
            match self.new_file(process.pid, what) {
                Some(fd) => {
                    self.copy(process.pid, fd);
                    self.entries.vcpus.remove(&fd);
                    let result = Ok(fd.unsigned_abs());
                    self.dispatcher.after(pending, result, &process.memory);
                }
                None if thread == tid => {
                    self.dispatcher.after(pending, Err(Errno::EINVAL), &process.memory);
                }
                None => {
                    self.entries.making.insert(thread, Making { pending, what });
                }
            }
        }
    }

    /// The lowest number with such a file that is not known.
    fn new_file(&self, pid: i32, what: Made) -> Option<i32> {
        let numbers = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_new = |fd: &i32| link(pid, *fd).is_some_and(|link| what.is(&link)) && !self.is_known(pid, *fd);
        numbers.filter(is_new).min()
    }

    /// Whether a number leads to what it led to.
    fn is_known(&self, pid: i32, fd: i32) -> bool {
        let copy = self.entries.copies.get(&fd);
        copy.is_some_and(|copy| foreign_unsafe::is_same_file(copy.as_fd(), pid, fd).unwrap_or(true))
    }

    fn copy(&mut self, pid: i32, fd: i32) {
        if let Ok(copy) = fetch(pid, fd) {
            self.entries.copies.insert(fd, copy);
        }
    }

    /// Whether a number leads to a file that the dispatcher knows, perhaps since now.
    fn recognize(&mut self, process: &Process, fd: i32) -> bool {
        if self.is_known(process.pid, fd) {
            return self.dispatcher.knows(fd);
        }
        self.entries.vcpus.remove(&fd);
        self.entries.copies.remove(&fd);
        self.dispatcher.close(fd);
        let pid = process.pid;
        let is_copy_of =
            |(_, copy): &(&i32, &OwnedFd)| foreign_unsafe::is_same_file(copy.as_fd(), pid, fd) == Some(true);
        if let Some((original, _)) = self.entries.copies.iter().find(is_copy_of) {
            self.dispatcher.duplicated(*original, fd);
        } else if link(pid, fd).as_deref() == Some("/dev/kvm") {
            self.dispatcher.opened(b"/dev/kvm", Ok(fd));
        } else {
            return false;
        }
        self.copy(pid, fd);
        self.dispatcher.knows(fd)
    }

    /// `KVM_RUN` of a thread on a vCPU that was entered before, if that is what its number leads to.
    pub(super) fn enter_again(&mut self, call: &Notification, process: &Process, fd: i32) -> Option<Answer> {
        let Entries { copies, vcpus, making, .. } = &mut self.entries;
        let entered = vcpus.get_mut(&fd).filter(|_| making.is_empty())?;
        if entered.thread == call.tid && entered.trusted != 0 {
            entered.trusted = entered.trusted.saturating_sub(1);
        } else {
            if foreign_unsafe::is_same_file(copies.get(&fd)?.as_fd(), call.tid, fd) != Some(true) {
                return None;
            }
            (entered.thread, entered.trusted) = (call.tid, TRUSTED);
        }
        Some(self.enter(call, process, fd))
    }

    /// `KVM_RUN`: what the entry before it brought is known now.
    fn enter(&mut self, call: &Notification, process: &Process, fd: i32) -> Answer {
        let Self { dispatcher, handed, entries, .. } = self;
        let entered = match entries.vcpus.entry(fd) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let Ok(pages) = handed.pages(fd) else { return Answer::Continue };
                entry.insert(Entered { pages, pending: None, thread: call.tid, trusted: 0 })
            }
        };
        entered.tell(dispatcher, &process.memory);
        let [_, _, arg, ..] = call.args;
        match dispatcher.before(fd, nr::KVM_RUN.0, arg, &process.memory) {
            Before::NotOurs => Answer::Continue,
            Before::Done(result) => Answer::Return(result.map(i64::from)),
            Before::Call(pending) => {
                entered.pending = Some((Head::of(&entered.pages), pending));
                entered.thread = call.tid;
                Answer::Continue
            }
        }
    }

    /// What a call returns that says whether the kernel can do something, as far as `/dev/kvm` says so to anybody.
    fn ask_again(&self, request: Ioctl, arg: u64, memory: &dyn UserMemory) -> Option<Result<u32, Errno>> {
        let (cap, refusal) = match request {
            nr::KVM_CHECK_EXTENSION => (arg, None),
            nr::KVM_ENABLE_CAP => {
                let mut cap = [0; 4];
                memory.read(arg, &mut cap).ok()?;
                (u32::from_le_bytes(cap).into(), Some(Errno::EINVAL))
            }
            nr::KVM_SET_MEMORY_ATTRIBUTES => (Cap::MEMORY_ATTRIBUTES.0.into(), Some(Errno::ENOTTY)),
            _ => return None,
        };
        let is_system = |(fd, _): &(&i32, &OwnedFd)| self.dispatcher.file(**fd) == Some(File::System);
        let (_, system) = self.entries.copies.iter().find(is_system)?;
        let offered = foreign_unsafe::check_extension(system, cap);
        match refusal {
            None => Some(offered),
            Some(errno) if offered == Ok(0) => Some(Err(errno)),
            Some(_) => Some(Ok(0)),
        }
    }

    /// Tells of the last exits, which no entry followed.
    pub(super) fn finish(&mut self) {
        let Entries { vcpus, memory: Some(memory), .. } = std::mem::take(&mut self.entries) else { return };
        for (_, mut entered) in vcpus {
            let now = Head::of(&entered.pages);
            // A process that was ended inside of `KVM_RUN` left the page as it was.
            if entered.pending.as_ref().is_some_and(|(before, _)| *before != now || before.immediate_exit()) {
                entered.tell(&self.dispatcher, &memory);
            }
        }
    }
}

/// What `KVM_RUN` returned, as far as the page says.
fn outcome(before: &Head, now: &Head) -> Result<u32, Errno> {
    let reason = now.reason();
    let is_plain = matches!(reason, ExitReason::IO | ExitReason::MMIO);
    match reason {
        // The page is not written then.
        _ if before.immediate_exit() => Err(Errno::EINTR),
        ExitReason::INTR => Err(Errno::EINTR),
        ExitReason::MEMORY_FAULT => Err(Errno::EFAULT),
        // Nothing came: the vCPU was not started, or KVM refused to enter it.
        _ if reason.0 == 0 || (now == before && !is_plain) => Err(Errno::EAGAIN),
        _ => Ok(0),
    }
}

fn link(pid: i32, fd: i32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.into_os_string().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(immediate_exit: u8, reason: ExitReason) -> Head {
        let mut bytes = [0; HEAD_BYTES];
        bytes[1] = immediate_exit;
        bytes[8..12].copy_from_slice(&reason.0.to_le_bytes());
        Head(bytes)
    }

    #[test]
    fn the_page_says_how_an_entry_ended() {
        let fresh = head(0, ExitReason(0));
        let asked = head(1, ExitReason(0));
        let shutdown = head(0, ExitReason::SHUTDOWN);
        for (before, now, expected) in [
            (fresh, shutdown, Ok(0)),
            (fresh, head(0, ExitReason::IO), Ok(0)),
            (head(0, ExitReason::IO), head(0, ExitReason::IO), Ok(0)),
            (asked, shutdown, Err(Errno::EINTR)),
            (shutdown, head(0, ExitReason::INTR), Err(Errno::EINTR)),
            (fresh, head(0, ExitReason::MEMORY_FAULT), Err(Errno::EFAULT)),
            (fresh, fresh, Err(Errno::EAGAIN)),
            (shutdown, shutdown, Err(Errno::EAGAIN)),
        ] {
            assert_eq!(outcome(&before, &now), expected, "{:?}", now.reason());
        }
    }

    #[test]
    fn files_of_kvm_are_known_by_their_names() {
        assert!(Made::Vm.is("anon_inode:kvm-vm") && !Made::Vm.is("anon_inode:kvm-vcpu:0"));
        assert!(Made::Vcpu(1).is("anon_inode:kvm-vcpu:1") && !Made::Vcpu(1).is("anon_inode:kvm-vcpu:11"));
        assert!(Made::Gmem.is("anon_inode:[kvm-gmem]") && !Made::Gmem.is("/memfd:x (deleted)"));
    }
}
