//! A VMM on kvm-ioctls: its own `match` for port I/O, and one more arm for the confidential exits.
//!
//! `cargo run -p exeunt-adapters --example kvm_ioctls --features kvm-ioctls`

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "flat/guest_unsafe.rs"]
mod guest_unsafe;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    use std::io::Write;

    use exeunt::Policy;
    use exeunt::memory::{GuestMemory, MemorySlot};
    use exeunt_abi::{Errno, Gfn, Kernel};
    use exeunt_adapters::vcpu::entered;
    use exeunt_adapters::{Leaf, Served};
    use exeunt_proto::conversion::PageRange;
    use exeunt_proto::host::{Action, Host};
    use kvm_ioctls::VcpuExit;

    /// This VM has no private memory, so there is nothing to do on the host.
    struct NoPrivateMemory;

    impl Host for NoPrivateMemory {
        fn apply(&mut self, _: &Action<'_>) -> Result<(), Errno> {
            Err(Errno::EOPNOTSUPP)
        }
    }

    let (_vm, mut vcpu) = guest_unsafe::boot()?;
    let range = PageRange::new(Gfn(0), guest_unsafe::MEMORY_BYTES as u64 / 4096).ok_or("no memory")?;
    let policy = Policy::new(GuestMemory::new([MemorySlot { range, has_private: false }])?);
    let mut leaf = Leaf::new(Kernel::default(), NoPrivateMemory);
    let stop = loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(0x3f8, data)) => std::io::stdout().write_all(data)?,
            exit => {
                let entered = entered(&exit);
                match leaf.serve_vcpu(entered, &mut vcpu, &policy) {
                    Served::Served => {}
                    Served::Stop(stop) => break stop,
                    // A signal.
                    Served::NotOurs if entered == Err(Errno::EINTR) => {}
                    Served::NotOurs => return Err("an exit that this VMM does not know".into()),
                }
            }
        }
    };
    println!("{}", stop.log_line());
    Ok(stop.kind().exit_status().into())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("skipped: kvm_ioctls: it needs Linux on x86-64");
}
