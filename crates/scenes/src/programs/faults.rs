//! SNP guests that touch memory without asking for its conversion first.

use exeunt_abi::Gpa;
use exeunt_model::guest::{Access, Cpu, GuestFault};

/// The page, which is private when the guest starts.
const PAGE: Gpa = Gpa(0x5000);

/// Writes to the page with the C-bit clear, and reads it back.
pub(crate) async fn touch_shared(cpu: Cpu) -> Result<(), GuestFault> {
    cpu.write(PAGE, b"hello", Access::Shared).await?;
    let got = cpu.read(PAGE, 5, Access::Shared).await?;
    cpu.saw(|| format!("{got:?} in the shared page"));
    Ok(())
}

/// Makes the page shared by touching it, then private by touching it again.
pub(crate) async fn touch_private(cpu: Cpu) -> Result<(), GuestFault> {
    touch_shared_once(&cpu).await?;
    let carry = cpu.pvalidate(PAGE, true).await?;
    cpu.saw(|| format!("PVALIDATE: already valid {carry}"));
    let got = cpu.read(PAGE, 5, Access::Private).await?;
    cpu.saw(|| format!("{got:?} in the private page"));
    Ok(())
}

async fn touch_shared_once(cpu: &Cpu) -> Result<(), GuestFault> {
    cpu.write(PAGE, b"hello", Access::Shared).await
}
