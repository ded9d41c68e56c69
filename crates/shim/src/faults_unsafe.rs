//! Copies from and to addresses that may not be mapped.
//!
//! The kernel copies for a process and finds out by a fault what is not there; the same is done here. A fault in the one
//! instruction that copies goes on behind it. Every other fault is the VMM's: its own handler gets it, or it ends the
//! process as it would have without this library.

use exeunt_abi::Errno;
use std::arch::global_asm;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

global_asm!(
    ".pushsection .text.exeunt_copy,\"ax\",@progbits",
    ".hidden exeunt_copy",
    ".globl exeunt_copy",
    ".type exeunt_copy,@function",
    "exeunt_copy:",
    "mov rcx, rdx",
    ".hidden exeunt_copy_at",
    ".globl exeunt_copy_at",
    "exeunt_copy_at:",
    "rep movsb",
    "xor eax, eax",
    "ret",
    ".hidden exeunt_copy_faulted",
    ".globl exeunt_copy_faulted",
    "exeunt_copy_faulted:",
    "mov eax, 1",
    "ret",
    ".size exeunt_copy, .-exeunt_copy",
    ".popsection",
);

unsafe extern "C" {
    fn exeunt_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32;
    fn exeunt_copy_at();
    fn exeunt_copy_faulted();
}

/// Copies from an address of the process, of which nothing is known.
pub(crate) fn read(uaddr: u64, to: &mut [u8]) -> Result<(), Errno> {
    let from = address(uaddr)?;
    check_range(uaddr, to.len())?;
    // SAFETY: The slice can be written, and a fault on the other side ends the copy. What lies there is bytes that
    // somebody may change meanwhile, and any bytes are as good.
    let faulted = unsafe { exeunt_copy(to.as_mut_ptr(), ptr::without_provenance(from), to.len()) };
    if faulted == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies to an address of the process, of which nothing is known.
pub(crate) fn write(uaddr: u64, from: &[u8]) -> Result<(), Errno> {
    let to = address(uaddr)?;
    check_range(uaddr, from.len())?;
    // SAFETY: The slice can be read, and a fault on the other side ends the copy. The VMM handed the address to the
    // kernel half to be written, which a real kernel does without asking what lies there either.
    let faulted = unsafe { exeunt_copy(ptr::without_provenance_mut(to), from.as_ptr(), from.len()) };
    if faulted == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

/// The end of the addresses of a process.
const USER_END: u64 = 1 << 47;

fn address(uaddr: u64) -> Result<usize, Errno> {
    usize::try_from(uaddr).map_err(|_| Errno::EFAULT)
}

/// An address that no process has faults in another way.
fn check_range(uaddr: u64, bytes: usize) -> Result<(), Errno> {
    let end = uaddr.checked_add(bytes as u64).ok_or(Errno::EFAULT)?;
    if end > USER_END { Err(Errno::EFAULT) } else { Ok(()) }
}

/// The signals of a fault.
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

static IS_CAUGHT: AtomicBool = AtomicBool::new(false);

/// What the process itself set for a signal, as far as a handler needs it.
struct Theirs {
    handler: AtomicUsize,
    flags: AtomicUsize,
}

static THEIRS: [Theirs; 2] =
    [const { Theirs { handler: AtomicUsize::new(libc::SIG_DFL), flags: AtomicUsize::new(0) } }; 2];

fn theirs(signal: libc::c_int) -> Option<&'static Theirs> {
    SIGNALS.iter().zip(&THEIRS).find(|(number, _)| **number == signal).map(|(_, theirs)| theirs)
}

/// Catches faults from now on.
pub(crate) fn catch() {
    if IS_CAUGHT.swap(true, Ordering::Relaxed) {
        return;
    }
    for signal in SIGNALS {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        let action = action.write(libc::sigaction {
            sa_sigaction: (on_fault as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void))
                as usize,
            // SAFETY: A set of signals is bits, of which none is set.
            sa_mask: unsafe { mem::zeroed() },
            sa_flags: libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER,
            sa_restorer: None,
        });
        // SAFETY: Both structs are whole, and the handler keeps to what a handler may do.
        let before = unsafe { set_real(signal, Some(action)) };
        if let (Some(theirs), Some(before)) = (theirs(signal), before) {
            remember(theirs, &before);
        }
    }
}

fn remember(theirs: &Theirs, action: &libc::sigaction) {
    theirs.flags.store(action.sa_flags.unsigned_abs() as usize, Ordering::Relaxed);
    theirs.handler.store(action.sa_sigaction, Ordering::Release);
}

/// Whether the VMM's own handler of a signal is kept here instead of in the kernel.
pub(crate) fn keeps(signal: libc::c_int) -> bool {
    IS_CAUGHT.load(Ordering::Relaxed) && SIGNALS.contains(&signal)
}

/// The VMM sets and asks for what it does at a fault.
pub(crate) fn exchange(signal: libc::c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    let theirs = theirs(signal)?;
    // SAFETY: The struct is numbers, an optional function and bits; all of it zero is a value of each.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    before.sa_sigaction = theirs.handler.load(Ordering::Acquire);
    before.sa_flags = i32::try_from(theirs.flags.load(Ordering::Relaxed)).unwrap_or(0);
    if let Some(new) = new {
        remember(theirs, new);
    }
    Some(before)
}

type SetAction =
    unsafe extern "C" fn(libc::c_int, *const libc::sigaction, *mut libc::sigaction) -> libc::c_int;

/// The C library's own `sigaction`, which knows how a handler returns.
fn real_sigaction() -> Option<SetAction> {
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let mut found = FOUND.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: The name is a string that ends.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"sigaction".as_ptr()) }.addr();
        FOUND.store(found, Ordering::Relaxed);
    }
    if found == 0 {
        return None;
    }
    // SAFETY: The function of this name has this type.
    Some(unsafe { mem::transmute::<usize, SetAction>(found) })
}

/// Sets what the kernel does at a signal, and returns what it did before.
///
/// # Safety
///
/// The handler, if there is one, may run at any time.
unsafe fn set_real(signal: libc::c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    // SAFETY: As in `exchange`.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let set = real_sigaction()?;
    // SAFETY: Both structs are whole, and the caller answers for the handler.
    let result = unsafe { set(signal, new, &raw mut before) };
    (result == 0).then_some(before)
}

/// What the VMM asks of the C library for any other signal.
///
/// # Safety
///
/// As `sigaction`.
pub(crate) unsafe fn sigaction(
    signal: libc::c_int,
    new: *const libc::sigaction,
    before: *mut libc::sigaction,
) -> libc::c_int {
    let Some(set) = real_sigaction() else { return -1 };
    // SAFETY: The caller keeps the promises of the same function.
    unsafe { set(signal, new, before) }
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: The kernel hands a handler with `SA_SIGINFO` the registers that the thread goes on with.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let Some(rip) = usize::try_from(libc::REG_RIP).ok().and_then(|index| registers.get_mut(index)) else {
        return;
    };
    if usize::try_from(*rip) == Ok(exeunt_copy_at as *const () as usize) {
        *rip = i64::try_from(exeunt_copy_faulted as *const () as usize).unwrap_or(0);
        return;
    }
    let Some(theirs) = theirs(signal) else { return };
    let handler = theirs.handler.load(Ordering::Acquire);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        end(signal, info);
        return;
    }
    if theirs.flags.load(Ordering::Relaxed) & libc::SA_SIGINFO.unsigned_abs() as usize == 0 {
        // SAFETY: The process set a handler of this type.
        let handler = unsafe { mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
        handler(signal);
    } else {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::ucontext_t);
        // SAFETY: The process set a handler of this type, by `SA_SIGINFO`.
        let handler = unsafe { mem::transmute::<usize, Handler>(handler) };
        handler(signal, info, context);
    }
}

/// Has the signal end the process as it would have: the fault comes again, with nobody to catch it.
fn end(signal: libc::c_int, info: *mut libc::siginfo_t) {
    // SAFETY: As in `exchange`.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: Without a handler.
    let _ = unsafe { set_real(signal, Some(&default)) };
    // SAFETY: The kernel hands a handler with `SA_SIGINFO` what it knows of the signal.
    let code = unsafe { (*info).si_code };
    if code <= 0 {
        // Somebody sent it: it does not come again by itself.
        // SAFETY: The call ends the process.
        unsafe { libc::raise(signal) };
    }
}
