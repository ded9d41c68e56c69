//! Descriptors, and which file each leads to.

use super::run::Vcpu;
use crate::record::File;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// The descriptors of a process that lead to files of KVM.
#[derive(Debug)]
pub(super) struct Files {
    open: RwLock<BTreeMap<i32, Open>>,
    next_vm: AtomicU32,
    /// The next number of a `guest_memfd`, by VM.
    next_gmem: Mutex<BTreeMap<u32, u32>>,
    /// All vCPUs, open or not, as long as somebody has them.
    vcpus: Mutex<Vec<Weak<Vcpu>>>,
    /// A vCPU has runs that are still to be told of.
    has_plain: AtomicBool,
    /// Another one with each change of `open`.
    edition: AtomicU64,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            open: RwLock::default(),
            next_vm: AtomicU32::new(0),
            next_gmem: Mutex::default(),
            vcpus: Mutex::default(),
            has_plain: AtomicBool::new(false),
            edition: new_edition(),
        }
    }
}

#[derive(Clone, Debug)]
struct Open {
    file: File,
    vcpu: Option<Arc<Vcpu>>,
}

impl Files {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<i32, Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<i32, Open>> {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: who finds the new edition waits for what is in it.
        self.edition.store(NEXT_EDITION.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        open
    }

    pub(super) fn file(&self, fd: i32) -> Option<File> {
        self.read().get(&fd).map(|open| open.file)
    }

    pub(super) fn vcpu(&self, fd: i32) -> Option<Arc<Vcpu>> {
        self.read().get(&fd)?.vcpu.clone()
    }

    /// Does something with the vCPU of a number. The one that a thread asked for last is found without a lock.
    #[inline]
    pub(super) fn with_vcpu<T>(&self, fd: i32, with: impl FnOnce(&Vcpu) -> T) -> Option<T> {
        let edition = self.edition.load(Ordering::Acquire);
        let mut with = Some(with);
        let found = LAST.try_with(|last| {
            // A signal handler may come here while its thread is in here.
            let mut last = last.try_borrow_mut().ok()?;
            let is_it = matches!(&*last, Some((seen, number, _)) if (*seen, *number) == (edition, fd));
            if !is_it {
                *last = Some((edition, fd, self.vcpu(fd)?));
            }
            let (_, _, vcpu) = last.as_ref()?;
            with.take().map(|with| with(vcpu))
        });
        // A thread that is about to end remembers nothing any more.
        found.ok().flatten().or_else(|| Some(with.take()?(&*self.vcpu(fd)?)))
    }

    pub(super) fn insert(&self, fd: i32, file: File, vcpu: Option<Arc<Vcpu>>) {
        if let Some(vcpu) = &vcpu {
            let mut vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner);
            vcpus.retain(|vcpu| vcpu.strong_count() != 0);
            vcpus.push(Arc::downgrade(vcpu));
        }
        let before = self.write().insert(fd, Open { file, vcpu });
        // What it held is dropped after the lock.
        drop(before);
    }

    pub(super) fn remove(&self, fd: i32) -> bool {
        let before = self.write().remove(&fd);
        before.is_some()
    }

    /// Makes one number lead where another one leads. `false` if that leads nowhere.
    pub(super) fn copy(&self, from: i32, to: i32) -> bool {
        let mut open = self.write();
        let Some(file) = open.get(&from).cloned() else { return false };
        let before = open.insert(to, file);
        drop(open);
        drop(before);
        true
    }

    pub(super) fn new_vm(&self) -> File {
        File::Vm(self.next_vm.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn new_gmem(&self, vm: u32) -> File {
        let mut numbers = self.next_gmem.lock().unwrap_or_else(PoisonError::into_inner);
        let next = numbers.entry(vm).or_default();
        let file = File::Gmem(vm, *next);
        *next = next.saturating_add(1);
        file
    }

    /// Counts a run that is told of later, with others. The thread that runs the vCPU counts, and no other one.
    #[inline]
    pub(super) fn plain(&self, vcpu: &Vcpu) {
        vcpu.plain.store(vcpu.plain.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        if !self.has_plain.load(Ordering::Relaxed) {
            self.has_plain.store(true, Ordering::Release);
        }
    }

    /// Tells of the runs that were only counted.
    pub(super) fn flush(&self, mut tell: impl FnMut(File, u64)) {
        if !self.has_plain.swap(false, Ordering::Acquire) {
            return;
        }
        let vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner);
        for vcpu in vcpus.iter().filter_map(Weak::upgrade) {
            let now = vcpu.plain.load(Ordering::Acquire);
            let count = now.wrapping_sub(vcpu.plain_told.swap(now, Ordering::Relaxed));
            if count != 0 {
                tell(File::Vcpu(vcpu.vm, vcpu.id), count);
            }
        }
    }
}

/// Tells the tables of files of all dispatchers apart, and each from what it was before.
static NEXT_EDITION: AtomicU64 = AtomicU64::new(1);

fn new_edition() -> AtomicU64 {
    AtomicU64::new(NEXT_EDITION.fetch_add(1, Ordering::Relaxed))
}

thread_local! {
    /// The vCPU that this thread looked for last: in which edition of which table, and its number.
    static LAST: RefCell<Option<(u64, i32, Arc<Vcpu>)>> = const { RefCell::new(None) };
}
