//! Calls that the model answers.

use super::descriptors::{Caller, Place};
use super::filter::{ARCH_X86_64, I386_OPENS, LOOKS, OPENS, X32, number};
use super::foreign_unsafe;
use super::listener_unsafe::{Answer, Notification};
use super::looks;
use super::numbers::{bits, int, long, unsigned_int};
use super::process::{self, Process};
use super::supervisor::{Member, Supervisor};
use crate::dispatch::{Outcome, Process as _};
use crate::record::File;
use exeunt_abi::Errno;
use exeunt_abi::kvm::ioctl::KVM_RUN;
use exeunt_abi::kvm::run::{ExitReason, RunPage};
use exeunt_model::device::Path;

/// An exit that could not be brought, because a signal came.
#[derive(Debug)]
pub(super) struct Kept {
    result: Result<u32, Errno>,
    page: RunPage,
}

impl Supervisor {
    /// What becomes of a call. `None`: it has its answer, or gets it later.
    pub(super) fn scripted(&mut self, call: &Notification, process: &Process) -> Option<Answer> {
        if call.arch != ARCH_X86_64 || call.nr & X32 != 0 {
            return Some(self.open_by_32_bits(call, process));
        }
        let nr = libc::c_long::from(call.nr);
        if nr == libc::SYS_ioctl {
            return self.ioctl(call, process);
        }
        Some(match nr {
            nr if OPENS.contains(&nr) => self.open(call, process),
            nr if LOOKS.contains(&nr) => self.look(call, process),
            libc::SYS_close => self.close(call, process),
            libc::SYS_fallocate => self.fallocate(call, process),
            libc::SYS_madvise => self.madvise(call, process),
            // These put other files behind numbers.
            libc::SYS_dup2 | libc::SYS_dup3 | libc::SYS_close_range => {
                if let Some(member) = self.members.get_mut(&process.pid) {
                    member.trusted = None;
                }
                Answer::Continue
            }
            _ => Answer::Continue,
        })
    }

    /// The device that a path leads to, if the call still waits: only then what was read is of its process.
    fn device(&self, call: &Notification, process: &Process, directory: i32, path: u64) -> Option<Path> {
        let Ok(path) = process::read_path(process.memory.as_ref(), path) else {
            self.tell_if_closed(process, path);
            return None;
        };
        let device = process::device_of(process.pid, directory, &path)?;
        self.listener.is_valid(call.id).then_some(device)
    }

    /// Tells, once, of a process whose memory nobody may look into, as the superuser's or one that is not dumpable: it does
    /// what it does on the host.
    fn tell_if_closed(&self, process: &Process, uaddr: u64) {
        let looked = foreign_unsafe::read(process.pid, uaddr, &mut [0]);
        if looked == Err(Errno::EPERM) && !self.is_closed.replace(true) {
            self.trouble(
                process.pid,
                "a process of the VMM forbids to look into its memory (it has other rights or is not dumpable), so its \
                 paths are not seen: start it with the rights of exeunt",
            );
        }
    }

    /// The model has no entry for 32-bit code, and the host's devices are not to be opened.
    fn open_by_32_bits(&self, call: &Notification, process: &Process) -> Answer {
        let [first, second, ..] = call.args;
        let nr = call.nr & !X32;
        let is_plain_open = match call.arch {
            ARCH_X86_64 => nr == number(libc::SYS_open),
            _ => I386_OPENS.first() == Some(&nr),
        };
        let (directory, path) = if is_plain_open { (libc::AT_FDCWD, first) } else { (int(first), second) };
        // An address of such code has 32 bits.
        match self.device(call, process, directory, path & 0xffff_ffff) {
            Some(_) => Answer::Return(Err(Errno::ENOENT)),
            None => Answer::Continue,
        }
    }

    fn open(&mut self, call: &Notification, process: &Process) -> Answer {
        let [first, second, third, ..] = call.args;
        let (directory, path, flags) = match libc::c_long::from(call.nr) {
            libc::SYS_open => (libc::AT_FDCWD, first, second),
            libc::SYS_openat => (int(first), second, third),
            _ => {
                // `struct open_how` begins with them.
                let mut flags = [0; 8];
                let read = process.memory.read(third, &mut flags);
                (int(first), second, if read.is_ok() { u64::from_le_bytes(flags) } else { 0 })
            }
        };
        let Some(device) = self.device(call, process, directory, path) else { return Answer::Continue };
        let path: &[u8] = match device {
            Path::Kvm => b"/dev/kvm",
            Path::Sev => b"/dev/sev",
        };
        let flags = int(flags);
        let Some(member) = self.member(process.pid) else { return Answer::Continue };
        let close_on_exec = flags & libc::O_CLOEXEC != 0;
        let caller = Caller { id: call.id, close_on_exec, checked: None, inherited: None };
        member.handed.set_caller(caller);
        match member.dispatcher.open(path, flags & libc::O_ACCMODE != libc::O_RDONLY) {
            Some(result) => Answer::Return(result.map(i64::from)),
            None => Answer::Continue,
        }
    }

    /// `access`, `stat` and their like.
    fn look(&self, call: &Notification, process: &Process) -> Answer {
        let [first, second, third, _, fifth, _] = call.args;
        let nr = libc::c_long::from(call.nr);
        let has_directory = !matches!(nr, libc::SYS_access | libc::SYS_stat | libc::SYS_lstat);
        let (directory, path) = if has_directory { (int(first), second) } else { (libc::AT_FDCWD, first) };
        let Some(device) = self.device(call, process, directory, path) else { return Answer::Continue };
        let memory = process.memory.as_ref();
        let result = match nr {
            libc::SYS_stat | libc::SYS_lstat => looks::write_stat(device, memory, second),
            libc::SYS_newfstatat => looks::write_stat(device, memory, third),
            libc::SYS_statx => looks::write_statx(device, memory, fifth),
            _ => Ok(()),
        };
        Answer::Return(result.map(|()| 0))
    }

    /// The kernel closes the number; what it led to is forgotten before. A child that closes what it inherited takes
    /// nothing away from its parent.
    fn close(&mut self, call: &Notification, process: &Process) -> Answer {
        let [fd, ..] = call.args;
        if let Some(member) = self.members.get_mut(&process.pid) {
            member.trusted = None;
            let fd = int(fd);
            if member.dispatcher.knows(fd) && member.handed.holds(fd) {
                member.kept.remove(&fd);
                member.dispatcher.close(fd);
                member.handed.give_back(fd);
            }
        }
        Answer::Continue
    }

    pub(super) fn fallocate(&mut self, call: &Notification, process: &Process) -> Answer {
        let [fd, mode, offset, bytes, ..] = call.args;
        let (fd, mode) = (int(fd), int(mode));
        let (offset, bytes) = (long(offset), long(bytes));
        let Some(member) = self.members.get(&process.pid) else { return Answer::Continue };
        if member.dispatcher.knows(fd) {
            member.handed.set_caller(Caller { checked: None, ..Caller::on(call.id, fd) });
            return answer(member.dispatcher.fallocate(fd, bits(mode), offset, bytes));
        }
        if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 || !member.dispatcher.has_slots() {
            return Answer::Continue;
        }
        // The result is to be recorded, so the call is made here, on the same file.
        let Ok(file) = super::descriptors::fetch(process.pid, fd) else { return Answer::Continue };
        if !self.listener.is_valid(call.id) {
            return Answer::Continue;
        }
        let result = foreign_unsafe::fallocate(&file, mode, offset, bytes);
        member.dispatcher.fallocated(fd, bits(mode), offset, bytes, result);
        Answer::Return(result.map(|()| 0))
    }

    /// The kernel does it, and says only to the process how it ended: it fails where the address is no page's.
    pub(super) fn madvise(&self, call: &Notification, process: &Process) -> Answer {
        let [uaddr, bytes, advice, ..] = call.args;
        if let Some(member) = self.members.get(&process.pid) {
            let result = if uaddr % exeunt_abi::PAGE_SIZE == 0 { Ok(()) } else { Err(Errno::EINVAL) };
            member.dispatcher.madvised(uaddr, bytes, int(advice), result);
        }
        Answer::Continue
    }

    fn ioctl(&mut self, call: &Notification, process: &Process) -> Option<Answer> {
        let [fd, request, arg, ..] = call.args;
        let passed = int(fd);
        let Some(Place { pid, fd }) = self.place(call, process, passed) else {
            return Some(Answer::Continue);
        };
        if pid != process.pid {
            return Some(Answer::Return(Err(Errno::EIO)));
        }
        let member = self.members.get_mut(&pid)?;
        member.handed.set_caller(Caller::on(call.id, fd));
        let request = unsigned_int(request);
        if request == KVM_RUN.0 {
            member.trusted = Some((call.tid, fd)).filter(|_| fd == passed);
            return self.scripted_run(call, process, pid, fd);
        }
        Some(answer(member.dispatcher.ioctl(fd, request, arg, &process.memory)))
    }

    /// The process and the number that a number leads to: its own, unless it is a copy or was inherited.
    fn place(&mut self, call: &Notification, process: &Process, fd: i32) -> Option<Place> {
        if let Some(member) = self.members.get(&process.pid) {
            if member.handed.holds(fd) {
                return Some(Place { pid: process.pid, fd });
            }
        }
        let place = self.places.find(process.pid, fd)?;
        if place.pid == process.pid {
            return Some(place);
        }
        let of_other = self.members.get(&place.pid)?.dispatcher.file(place.fd);
        let path: &[u8] = match of_other {
            Some(File::System) => b"/dev/kvm",
            Some(File::Sev) => b"/dev/sev",
            // KVM lets nobody use the VM of another process.
            _ => return Some(place),
        };
        // These belong to nobody: the process has one of its own from now on, under the number that it inherited.
        let member = self.member(process.pid)?;
        let inherited = Some(fd);
        member.handed.set_caller(Caller { id: call.id, close_on_exec: false, checked: None, inherited });
        let own = member.dispatcher.open(path, true)?.ok()?;
        Some(Place { pid: process.pid, fd: own })
    }
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done(result) => Answer::Return(result.map(i64::from)),
        // Only `KVM_RUN` waits.
        Outcome::NotOurs | Outcome::Blocked => Answer::Continue,
    }
}

impl Member {
    /// Keeps an exit for the next `KVM_RUN`, and leaves the page as a signal leaves it.
    pub(super) fn keep(&mut self, fd: i32, result: Result<u32, Errno>) {
        if result == Err(Errno::EINTR) {
            return;
        }
        let Ok(pages) = self.handed.pages(fd) else { return };
        let page = pages.run();
        pages.set_run(&RunPage { exit_reason: ExitReason::INTR.0, ..page.clone() });
        self.kept.insert(fd, Kept { result, page });
    }

    /// The exit that was kept for a vCPU, unless its thread is not to enter.
    pub(super) fn take_kept(&mut self, fd: i32) -> Option<Result<i64, Errno>> {
        if self.kept.is_empty() || !self.kept.contains_key(&fd) {
            return None;
        }
        let pages = self.handed.pages(fd).ok()?;
        if pages.immediate_exit() {
            return Some(Err(Errno::EINTR));
        }
        let Kept { result, page } = self.kept.remove(&fd)?;
        pages.set_run(&page);
        Some(result.map(i64::from))
    }
}
