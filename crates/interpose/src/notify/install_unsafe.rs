//! Installing a filter in the child that becomes the VMM, and handing its listener to the parent.

use super::bpf::Instruction;
use super::filter::Filter;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The parent's end of the way that the listener takes.
#[derive(Debug)]
pub struct Handover {
    socket: OwnedFd,
}

/// Lets a command start with the filter. It must be the last of the command's `pre_exec` closures, because nobody
/// answers before the program itself runs.
///
/// The filter stays with the process and its children for good; and so does `no_new_privs`, without which the kernel lets
/// only the superuser have filters: a helper with the set-user-id bit runs as the user.
///
/// # Errors
///
/// No socket could be made.
pub fn install_in_child(command: &mut Command, filter: &Filter) -> io::Result<Handover> {
    let (socket, of_child) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let program: Box<[Instruction]> = filter.program().into();
    let flags = filter.flags();
    let closure = move || {
        let listener = install(&program, flags)?;
        hand_over(&of_child, &listener)?;
        // The number is given back when the program starts. A `close` would wait for an answer.
        std::mem::forget(listener);
        Ok(())
    };
    // SAFETY: Between fork and exec the closure makes system calls only. It allocates nothing, takes no lock and does not
    // panic: the filter was copied before.
    unsafe { command.pre_exec(closure) };
    Ok(Handover { socket })
}

impl Handover {
    /// Takes the listener, after the command has been started.
    ///
    /// # Errors
    ///
    /// The child was gone before it had one.
    pub fn listener(self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        // The command holds the other end for as long as it lives, so that nothing says that no listener comes.
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(&self.socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let rights = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        rights.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Installs the filter.
fn install(program: &[Instruction], flags: u64) -> io::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: The request takes numbers and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let plain = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let mut result = set_filter(plain | flags, &program);
    if result < 0 && flags != 0 {
        // A kernel that does not know the flags.
        result = set_filter(plain, &program);
    }
    let listener = i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The kernel has just made it, and only this function has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn set_filter(flags: libc::c_ulong, program: &libc::sock_fprog) -> libc::c_long {
    let program: *const libc::sock_fprog = program;
    // SAFETY: The kernel reads the program, as many instructions as its length says, and keeps no pointer to it.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) }
}

fn hand_over(socket: &OwnedFd, listener: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let listener = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&listener)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}
