//! A VMM that has a pointer to `kvm_run`, of its own or out of another crate. Here nobody but this program writes the
//! page, so that it runs anywhere: it plays an SNP guest that asks for two pages to be private.
//!
//! `cargo run -p exeunt-adapters --example raw_unsafe --features raw`

use exeunt::Policy;
use exeunt::memory::{GuestMemory, MemorySlot};
use exeunt_abi::{Errno, Gfn, Kernel};
use exeunt_adapters::raw::RawPage;
use exeunt_adapters::{Leaf, Served};
use exeunt_proto::conversion::PageRange;
use exeunt_proto::host::{Action, Host};

/// What `mmap` of a vCPU's descriptor returns.
#[repr(C, align(4096))]
struct Mapping([u64; 512]);

/// A host that prints what a VMM does with system calls.
struct Print;

impl Host for Print {
    fn apply(&mut self, action: &Action<'_>) -> Result<(), Errno> {
        println!("host: {action:?}");
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let range = PageRange::new(Gfn(0), 0x1000).ok_or("no memory")?;
    let policy = Policy::new(GuestMemory::new([MemorySlot { range, has_private: true }])?);
    let mut leaf = Leaf::new(Kernel::default(), Print);

    let mut mapping = Mapping([0; 512]);
    // The kernel's part: KVM_EXIT_HYPERCALL, number 12, two pages at 2 MiB, private.
    mapping.0[1..8].copy_from_slice(&[3, 0, 0, 12, 0x20_0000, 2, 0x10]);

    let run: *mut u64 = mapping.0.as_mut_ptr();
    // SAFETY: The mapping outlives the page, and nobody else has a reference to it or is in KVM_RUN.
    let mut page = unsafe { RawPage::new(run.cast(), size_of::<Mapping>()) }?;
    // `Ok(())` is the result of KVM_RUN; an errno goes into `Err`.
    match leaf.serve(Ok(()), &mut page, &policy) {
        Served::Served => println!("answered, enter again"),
        Served::NotOurs => println!("an exit for the VMM's own match"),
        Served::Stop(stop) => println!("{}", stop.log_line()),
    }
    Ok(())
}
