//! `/dev/sev`: `SEV_ISSUE_CMD` and its commands.

use crate::snp_world::{POLICY, psp, start, vm_on};
use exeunt_abi::Errno;
use exeunt_abi::kvm::sev::firmware;
use exeunt_abi::kvm::sev::platform::{
    Buffer, PlatformStatus, SevIssueCmd, SnpConfig, SnpPlatformStatus, SnpVlekLoad, TwoBuffers, command,
};
use exeunt_model::launch::SevHost;
use exeunt_model::psp::{PspFault, SevCertificate};
use exeunt_model::{Protection, SparseMemory, UserMemory as _};
use p384::ecdsa::SigningKey;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

const ARG: u64 = 0x1000;
const DATA: u64 = 0x2000;
const BUFFER: u64 = 0x8000;
const READ_ONLY: u32 = 7;

/// A host, and a process that has `/dev/sev` open twice.
struct World {
    host: SevHost,
    memory: SparseMemory,
}

impl World {
    fn new(seed: u64) -> Self {
        let host = SevHost::new(psp(seed));
        host.open(READ_ONLY, false);
        Self { host, memory: SparseMemory::new() }
    }

    /// Issues a command whose data is where `data` says, and returns the result and `error`.
    fn issue_at(&self, file: u32, cmd: u32, data: u64) -> (Result<(), Errno>, u32) {
        let arg = SevIssueCmd { cmd: cmd.into(), data: data.into(), error: 0xdead.into() };
        self.memory.write(ARG, arg.as_bytes()).unwrap();
        let result = self.host.issue_cmd(file, ARG, &self.memory);
        (result, self.get::<SevIssueCmd>(ARG).error.get())
    }

    fn issue<T: IntoBytes + Immutable + FromBytes>(
        &self,
        cmd: u32,
        data: &mut T,
    ) -> (Result<(), Errno>, u32) {
        self.memory.write(DATA, data.as_bytes()).unwrap();
        let done = self.issue_at(SevHost::FILE, cmd, DATA);
        *data = self.get(DATA);
        done
    }

    fn get<T: FromBytes + FromZeros + IntoBytes>(&self, uaddr: u64) -> T {
        let mut value = T::new_zeroed();
        self.memory.read(uaddr, value.as_mut_bytes()).unwrap();
        value
    }
}

const OK: (Result<(), Errno>, u32) = (Ok(()), 0);

#[test]
fn the_argument_is_checked_before_the_command() {
    let world = World::new(1);
    assert_eq!(world.host.issue_cmd(99, ARG, &world.memory), Err(Errno::EBADF));
    world.memory.protect(ARG, Protection::None);
    assert_eq!(world.host.issue_cmd(SevHost::FILE, ARG, &world.memory), Err(Errno::EFAULT));
    world.memory.protect(ARG, Protection::ReadWrite);
    for cmd in [13, 14, 100, u32::MAX] {
        assert_eq!(
            world.issue_at(SevHost::FILE, cmd, 0),
            (Err(Errno::EINVAL), 0xdead),
            "{cmd} is not written back"
        );
    }
}

#[test]
fn commands_that_change_the_platform_need_a_file_open_for_writing() {
    let world = World::new(1);
    let writes = [
        command::FACTORY_RESET,
        command::PEK_GEN,
        command::PEK_CSR,
        command::PDH_GEN,
        command::PEK_CERT_IMPORT,
        command::SNP_SET_CONFIG,
        command::SNP_VLEK_LOAD,
    ];
    for cmd in 0..13 {
        let needs = writes.contains(&cmd);
        let (result, error) = world.issue_at(READ_ONLY, cmd, DATA);
        if cmd == command::PDH_CERT_EXPORT {
            assert_eq!(result, Err(Errno::EPERM), "it would have to initialise the platform");
            continue;
        }
        assert_eq!(result == Err(Errno::EPERM), needs, "{}", command::name(cmd).unwrap());
        assert!(!needs || error == 0xdead);
    }
    for cmd in [command::SNP_PLATFORM_STATUS, command::SNP_SET_CONFIG, command::SNP_VLEK_LOAD] {
        assert_eq!(world.issue_at(READ_ONLY, cmd, 0).0, Err(Errno::EINVAL), "no struct comes first");
    }
}

#[test]
fn the_status_counts_guests_and_tells_versions() {
    let world = World::new(2);
    let mut status = PlatformStatus::new_zeroed();
    assert_eq!(world.issue(command::PLATFORM_STATUS, &mut status), OK);
    assert_eq!((status.api_major, status.api_minor, status.state, status.flags.get()), (1, 55, 0, 0x100));
    let vm = vm_on(world.host.psp().clone());
    start(&vm, POLICY).unwrap();
    let mut snp = SnpPlatformStatus::new_zeroed();
    assert_eq!(world.issue(command::SNP_PLATFORM_STATUS, &mut snp), OK);
    let tcb = u64::from_le_bytes(world.host.psp().config().version.tcb);
    assert_eq!((snp.api_major, snp.api_minor, snp.state, snp.is_rmp_initialized), (1, 55, 1, 1));
    assert_eq!(
        (snp.guest_count.get(), snp.current_tcb_version.get(), snp.reported_tcb_version.get()),
        (1, tcb, tcb)
    );
    assert_eq!(world.issue(command::PLATFORM_STATUS, &mut status), OK);
    assert_eq!(status.state, 1, "INIT2 has initialised it");
    world.memory.protect(DATA, Protection::ReadOnly);
    assert_eq!(world.issue_at(SevHost::FILE, command::PLATFORM_STATUS, DATA), (Err(Errno::EFAULT), 0));
}

#[test]
fn the_configuration_changes_the_reported_tcb_and_what_reports_hide() {
    let world = World::new(3);
    let committed = u64::from_le_bytes(world.host.psp().config().version.tcb);
    let set = |reported: u64, flags: u32, rsvd: u8| {
        let mut config = SnpConfig { reported_tcb: reported.into(), flags: flags.into(), rsvd: [rsvd; 52] };
        world.issue(command::SNP_SET_CONFIG, &mut config)
    };
    let status = || {
        let mut status = SnpPlatformStatus::new_zeroed();
        assert_eq!(world.issue(command::SNP_PLATFORM_STATUS, &mut status), OK);
        (status.reported_tcb_version.get(), status.flags.get())
    };
    let refused = (Err(Errno::EIO), firmware::INVALID_PARAM);
    assert_eq!(set(committed + 1, 0, 0), refused, "above the committed one");
    assert_eq!(set(committed, 4, 0), refused);
    assert_eq!(set(committed, 0, 1), refused);
    assert_eq!(status(), (committed, 0));
    assert_eq!(set(committed - 1, 3, 0), OK);
    assert_eq!(status(), (committed - 1, 3));
    assert_eq!(set(0, 0, 0), OK);
    assert_eq!(status(), (committed, 0), "0 is the committed one");
    assert_eq!(world.issue_at(SevHost::FILE, command::SNP_COMMIT, 0), OK);
}

#[test]
fn a_vlek_is_taken_in_its_struct_alone() {
    let world = World::new(4);
    let blob = world.host.psp().wrap_vlek([1; 16]);
    world.memory.write(BUFFER, &blob).unwrap();
    let load = |change: fn(&mut SnpVlekLoad)| {
        let mut load = SnpVlekLoad::new_zeroed();
        (load.len, load.vlek_wrapped_address) = (16.into(), BUFFER.into());
        change(&mut load);
        world.issue(command::SNP_VLEK_LOAD, &mut load)
    };
    assert_eq!(load(|load| load.len = 15.into()), (Err(Errno::EINVAL), 0xdead));
    assert_eq!(load(|load| load.vlek_wrapped_version = 1), (Err(Errno::EINVAL), 0xdead));
    assert_eq!(load(|load| load.vlek_wrapped_address = 0.into()), (Err(Errno::EINVAL), 0xdead));
    assert_eq!(
        load(|load| load.vlek_wrapped_address = (BUFFER + 1).into()),
        (Err(Errno::EIO), firmware::BAD_MEASUREMENT)
    );
    assert_eq!(load(|load| load.rsvd = [1; 3]), OK);
    let mut status = SnpPlatformStatus::new_zeroed();
    assert_eq!(world.issue(command::SNP_PLATFORM_STATUS, &mut status), OK);
    assert_eq!(status.flags.get(), 4);
}

#[test]
fn a_length_that_is_too_short_is_answered_with_the_one_that_is_needed() {
    let world = World::new(5);
    for (cmd, bytes, limit) in
        [(command::PEK_CSR, 2084, Errno::EFAULT), (command::GET_ID2, 128, Errno::ENOMEM)]
    {
        let ask = |address: u64, length: u32| {
            let mut buffer = Buffer { address: address.into(), length: length.into() };
            (world.issue(cmd, &mut buffer), buffer.length.get())
        };
        let short = (Err(Errno::EIO), firmware::INVALID_LEN);
        assert_eq!(ask(0, 0), (short, bytes), "asked");
        assert_eq!(ask(0, 5000), (short, bytes));
        assert_eq!(ask(BUFFER, bytes - 1), (short, bytes));
        assert_eq!(ask(BUFFER, u32::MAX).0, (Err(limit), 0xdead));
        assert_eq!(ask(BUFFER, bytes + 1), (OK, bytes));
        assert_ne!(world.get::<[u8; 64]>(BUFFER), [0; 64]);
    }
    let mut ids = [0u8; 128];
    assert_eq!(world.issue(command::GET_ID, &mut ids), OK);
    assert!(ids[..64] != [0; 64] && ids[64..] == [0; 64], "one socket");
}

fn export(world: &World) -> [SevCertificate; 4] {
    let mut buffers = TwoBuffers::new_zeroed();
    let (result, error) = world.issue(command::PDH_CERT_EXPORT, &mut buffers);
    assert_eq!((result, error), (Err(Errno::EIO), firmware::INVALID_LEN));
    assert_eq!((buffers.cert_len.get(), buffers.other_len.get()), (2084, 3 * 2084));
    (buffers.cert_address, buffers.other_address) = (BUFFER.into(), (BUFFER + 0x1000).into());
    assert_eq!(world.issue(command::PDH_CERT_EXPORT, &mut buffers), OK);
    let at = |uaddr| world.get::<SevCertificate>(uaddr);
    [at(BUFFER), at(BUFFER + 0x1000), at(BUFFER + 0x1000 + 2084), at(BUFFER + 0x1000 + 2 * 2084)]
}

#[test]
fn the_platforms_chain_holds_and_its_keys_change_when_they_are_made_anew() {
    let world = World::new(6);
    let [pdh, pek, oca, cek] = export(&world);
    assert!(pek.signs(&pdh) && oca.signs(&pek) && cek.signs(&pek) && oca.signs(&oca));
    assert!(!cek.signs(&pdh) && !pdh.signs(&pek));
    assert_eq!(world.issue_at(SevHost::FILE, command::PDH_GEN, 0), OK);
    let [next, same, ..] = export(&world);
    assert!(next.pubkey != pdh.pubkey && same.pubkey == pek.pubkey && same.signs(&next));
    assert_eq!(world.issue_at(SevHost::FILE, command::PEK_GEN, 0), OK);
    let [_, other, _, chip] = export(&world);
    assert!(other.pubkey != pek.pubkey && chip == cek, "the chip's key is for ever");
    assert_eq!(world.issue_at(SevHost::FILE, command::FACTORY_RESET, 0), OK);
    assert_ne!(export(&world)[1].pubkey, other.pubkey);
}

#[test]
fn an_owner_signs_the_platforms_request_once() {
    let world = World::new(7);
    let mut buffer = Buffer { address: BUFFER.into(), length: 2084.into() };
    assert_eq!(world.issue(command::PEK_CSR, &mut buffer), OK);
    let request = world.get::<SevCertificate>(BUFFER);
    let owner = SigningKey::from_slice(&[8; 48]).unwrap();
    let [pek, oca] = SevCertificate::own(&request, &owner).unwrap();
    let import = |pek: &SevCertificate, oca: &SevCertificate| {
        world.memory.write(BUFFER, pek.as_bytes()).unwrap();
        world.memory.write(BUFFER + 0x1000, oca.as_bytes()).unwrap();
        let mut buffers = TwoBuffers {
            cert_address: BUFFER.into(),
            cert_len: 2084.into(),
            other_address: (BUFFER + 0x1000).into(),
            other_len: 2084.into(),
        };
        world.issue(command::PEK_CERT_IMPORT, &mut buffers)
    };
    let invalid = (Err(Errno::EIO), firmware::INVALID_CERTIFICATE);
    assert_eq!(import(&request, &oca), invalid, "not signed");
    assert_eq!(import(&oca, &oca), invalid, "not the platform's key");
    assert_eq!(import(&pek, &oca), OK);
    assert_eq!(import(&pek, &oca), (Err(Errno::EIO), firmware::ALREADY_OWNED));
    let mut status = PlatformStatus::new_zeroed();
    assert_eq!(world.issue(command::PLATFORM_STATUS, &mut status), OK);
    assert_eq!(status.flags.get(), 0x101);
}

#[test]
fn what_the_processor_says_is_in_error_and_a_dead_one_says_nothing() {
    let world = World::new(8);
    let psp = world.host.psp();
    psp.set_fault(PspFault::Status { status: firmware::HWSEV_RET_UNSAFE, commands: 1 });
    let commit = || world.issue_at(SevHost::FILE, command::SNP_COMMIT, 0);
    assert_eq!(commit(), (Err(Errno::EIO), firmware::HWSEV_RET_UNSAFE));
    assert_eq!(commit(), OK);
    psp.set_fault(PspFault::TimesOut);
    assert_eq!([commit(), commit()], [(Err(Errno::ETIMEDOUT), 0), (Err(Errno::EBUSY), 0)]);
}
