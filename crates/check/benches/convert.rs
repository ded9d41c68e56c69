//! Question: what does it cost to convert 1 GiB of a guest with the planner, the tracker and the effects, beside an
//! executor that goes page by page, and beside one that makes both calls for each exit and remembers nothing?
//!
//! The guest asks in exits of 2 MiB, or in one, and then for the same once more. Memory for shared pages is a memfd, memory
//! for private pages a `guest_memfd` where `/dev/kvm` makes one, else another memfd. "populated" has all pages of what
//! is discarded, "empty" none. The calls are counted. Where the kernel has no memory attributes, as without private
//! memory, `KVM_SET_MEMORY_ATTRIBUTES` is a call that fails at once with `ENOTTY`: a kernel that has them takes longer,
//! and what is saved is more.
//!
//! Unit: ms for 1 GiB, best of 3 runs; ratios to ours in the same run. Command: `cargo bench -p exeunt-check --bench
//! convert`.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("skipped: exeunt makes system calls on x86-64 Linux only");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), exeunt_linux::KvmError> {
    on_linux::main()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod on_linux {
    use exeunt::Policy;
    use exeunt::memory::{GuestMemory, MemorySlot, PageInfo};
    use exeunt_abi::kvm::run::RunPage;
    use exeunt_abi::kvm::vm_type::VmType;
    use exeunt_abi::{Errno, Gfn, Gpa, Kernel};
    use exeunt_linux::{Backings, HostMemory, KvmError, Vm};
    use exeunt_proto::conversion::{Conversion, PageRange, PageState};
    use exeunt_proto::exit::{self, Exit, Hypercall};
    use exeunt_proto::host::{Action, Backing, Host};
    use std::fs::File;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Instant;

    const GIB: u64 = 1 << 30;
    const PAGES: u64 = GIB / 4096;
    /// What the guest asks for in one exit.
    const STEPS: [(&str, u64); 2] = [("512 exits", 512), ("1 exit", PAGES)];
    const RUNS: u32 = 3;

    /// The descriptor that attributes are set on.
    enum Target {
        Vm(Vm),
        Other(File),
    }

    /// Makes the calls, and counts them.
    struct Executor {
        backings: Backings,
        target: Target,
        calls: u64,
    }

    /// Memory for 1 GiB of a guest.
    struct World {
        executor: Executor,
        shared: HostMemory,
        private: HostMemory,
    }

    /// Who converts.
    #[derive(Clone, Copy)]
    enum Way {
        /// Decode, plan, carry out, encode.
        Ours,
        /// Both calls for each exit.
        EachExit,
        /// Both calls for each page.
        EachPage,
    }

    struct Cost {
        ms: f64,
        calls: u64,
    }

    impl AsFd for Target {
        fn as_fd(&self) -> BorrowedFd<'_> {
            match self {
                Self::Vm(vm) => vm.as_fd(),
                Self::Other(file) => file.as_fd(),
            }
        }
    }

    impl Host for Executor {
        fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
            self.calls += 1;
            match (action, self.backings.apply(&self.target, action)) {
                (Action::SetAttributes { .. }, Err(Errno::ENOTTY)) => Ok(()),
                (_, result) => result,
            }
        }
    }

    impl World {
        fn new() -> Result<(Self, String), KvmError> {
            let shared = HostMemory::memfd(GIB)?;
            let (target, private, kind) = match with_kvm() {
                Ok((vm, private)) => (Target::Vm(vm), private, "guest_memfd".to_owned()),
                Err(reason) => {
                    let null = File::open("/dev/null").expect("a device that is always there");
                    let kind = format!("another memfd, since guest_memfd was skipped: {reason}");
                    (Target::Other(null), HostMemory::memfd(GIB)?, kind)
                }
            };
            let backings = Backings::default();
            backings.add(Gpa(0), GIB, shared.at(0), Some(private.at(0)))?;
            Ok((Self { executor: Executor { backings, target, calls: 0 }, shared, private }, kind))
        }

        /// Makes one of the memories full or empty, and the other empty.
        fn prepare(&mut self, backing: Backing, is_populated: bool) {
            let everything = PageRange::new(Gfn(0), PAGES).expect("a range");
            for each in [Backing::Shared, Backing::Private] {
                self.executor.backings.discard(everything, each).expect("a discard");
            }
            let memory = if backing == Backing::Shared { &self.shared } else { &self.private };
            if is_populated {
                memory.populate(0, GIB).expect("memory");
            }
        }

        /// What it costs to convert everything.
        fn convert(&mut self, policy: &Policy, way: Way, to: PageState, step_pages: u64) -> Cost {
            self.executor.calls = 0;
            let started = Instant::now();
            for gfn in (0..PAGES).step_by(usize::try_from(step_pages).unwrap_or(usize::MAX)) {
                let range = PageRange::new(Gfn(gfn), step_pages).expect("a range");
                match way {
                    Way::Ours => service(policy, &mut self.executor, range, to),
                    Way::EachExit => both_calls(&mut self.executor, range, to),
                    Way::EachPage => {
                        for page in gfn..gfn + step_pages {
                            let page = PageRange::new(Gfn(page), 1).expect("a page");
                            both_calls(&mut self.executor, page, to);
                        }
                    }
                }
            }
            Cost { ms: started.elapsed().as_secs_f64() * 1e3, calls: self.executor.calls }
        }
    }

    fn with_kvm() -> Result<(Vm, HostMemory), String> {
        let vm = exeunt_linux::probe()?.create_vm(VmType::Default).map_err(|error| error.to_string())?;
        let private = vm.create_guest_memfd(GIB).map_err(|error| error.to_string())?;
        Ok((vm, private))
    }

    /// The whole way of one exit.
    fn service(policy: &Policy, executor: &mut Executor, range: PageRange, to: PageState) {
        let kernel = Kernel::default();
        let mut page = RunPage::zeroed();
        let attributes = if to == PageState::Private { 0x10 } else { 0 };
        let call = Hypercall { nr: 12, args: [range.gpa().0, range.pages(), attributes, 0, 0, 0], flags: 1 };
        let entered = exit::encode(&Exit::Hypercall(call), kernel, &mut page);
        let exit = exit::decode(entered, &page, kernel).expect("an exit");
        let answer = policy.plan(&exit).expect("a plan").carry_out(executor, &mut []);
        assert!(answer.encode(kernel, &mut page).is_none(), "a conversion has no lease");
    }

    fn both_calls(executor: &mut Executor, range: PageRange, to: PageState) {
        let backing = idle(to);
        executor.apply(&Action::SetAttributes { range, to }).expect("attributes");
        executor.apply(&Action::Discard { range, backing }).expect("a discard");
    }

    /// The memory that pages of a state do not use.
    fn idle(state: PageState) -> Backing {
        if state == PageState::Private { Backing::Shared } else { Backing::Private }
    }

    /// The best of the runs of a conversion, and of the same request once more.
    fn best(world: &mut World, way: Way, to: PageState, step_pages: u64, is_populated: bool) -> [Cost; 2] {
        let from = if to == PageState::Private { PageState::Shared } else { PageState::Private };
        let mut best = [0, 1].map(|_| Cost { ms: f64::INFINITY, calls: 0 });
        for _ in 0..RUNS {
            world.prepare(idle(to), is_populated);
            let range = PageRange::new(Gfn(0), PAGES).expect("a range");
            let memory = GuestMemory::new([MemorySlot { range, has_private: true }]).expect("a slot");
            memory.assume(range, PageInfo::fresh(from));
            let policy = Policy::new(memory);
            for best in &mut best {
                let cost = world.convert(&policy, way, to, step_pages);
                if cost.ms < best.ms {
                    *best = cost;
                }
            }
        }
        best
    }

    fn line(name: &str, [ours, exits, pages]: [&Cost; 3]) {
        let of = |cost: &Cost| format!("{:9.3} ms {:6} calls", cost.ms, cost.calls);
        println!(
            "{name:<42} ours {} | each exit {} x{:<8.2} | each page {} x{:.2}",
            of(ours),
            of(exits),
            exits.ms / ours.ms,
            of(pages),
            pages.ms / ours.ms,
        );
    }

    pub(super) fn main() -> Result<(), KvmError> {
        let (mut world, kind) = World::new()?;
        let probe = Conversion { range: PageRange::new(Gfn(0), 1).expect("a page"), to: PageState::Shared };
        let attributes = Action::SetAttributes { range: probe.range, to: probe.to };
        let set = world.executor.backings.apply(&world.executor.target, &attributes);
        println!("memory for private pages is {kind}; KVM_SET_MEMORY_ATTRIBUTES: {set:?}");
        for (to, discarded) in [(PageState::Private, "memfd"), (PageState::Shared, "guest_memfd")] {
            for (fill, is_populated) in [("populated", true), ("empty", false)] {
                for (steps, step_pages) in STEPS {
                    let mut of = |way| best(&mut world, way, to, step_pages, is_populated);
                    let (ours, exits, pages) = (of(Way::Ours), of(Way::EachExit), of(Way::EachPage));
                    let name = format!("{discarded} {fill}, {steps}");
                    line(&name, [&ours[0], &exits[0], &pages[0]]);
                    // One exit that changes nothing is too short to be timed alone.
                    if step_pages < PAGES {
                        line(&format!("{name}, again"), [&ours[1], &exits[1], &pages[1]]);
                    }
                }
            }
        }
        Ok(())
    }
}
