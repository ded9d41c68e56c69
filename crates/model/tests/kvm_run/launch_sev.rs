//! SEV and SEV-ES guests: launch, measurement, secret, debugging, sending and receiving, and contexts of several VMs.

use crate::snp_world::{SOURCE, psp, vm_on};
use crate::world::{MEMORY_BYTES, kernel, reason, run_to_halt};
use exeunt_abi::ghcb::msr;
use exeunt_abi::kvm::run::ExitReason;
use exeunt_abi::kvm::sev::{
    AttestationReport, Dbg, GuestStatus, LaunchMeasure, LaunchSecret, LaunchStart, LaunchUpdateData,
    ReceiveStart, ReceiveUpdateData, SendStart, SendUpdateData, SevCmd, firmware, id,
};
use exeunt_abi::kvm::vm_type::VmType;
use exeunt_abi::{Dialect, Errno, Gpa};
use exeunt_model::guest::Cpu;
use exeunt_model::launch::SevHost;
use exeunt_model::psp::session::{PacketHeader, PacketKind, Session, TransportKeys};
use exeunt_model::psp::sev::policy;
use exeunt_model::psp::{CommandError, Psp, SevCertificate};
use exeunt_model::{Kvm, Slot, Vm};
use exeunt_proto::host::Vcpu as _;
use hmac::{Hmac, Mac as _};
use p384::SecretKey;
use p384::ecdsa::SigningKey;
use sha2::{Digest as _, Sha256};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

const ROOM: u64 = SOURCE + 0x10_0000;

fn es_on(psp: &Psp) -> Vm {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
    vm.set_sev_host(SevHost::new(psp.clone())).unwrap();
    vm.sev_init2(0).unwrap();
    vm
}

fn run<T: FromBytes + IntoBytes + Immutable>(vm: &Vm, id: u32, params: &mut T) -> Result<(), CommandError> {
    vm.sev_command(id, params)
}

fn plain(vm: &Vm, id: u32) -> Result<(), CommandError> {
    vm.sev_command(id, &mut ())
}

fn refused(error: u32) -> Result<(), CommandError> {
    Err(CommandError { errno: Errno::EIO, error })
}

fn before(errno: Errno) -> Result<(), CommandError> {
    Err(CommandError { errno, error: 0 })
}

fn launch_start(vm: &Vm, policy: u32) -> Result<u32, CommandError> {
    let mut params = LaunchStart::new_zeroed();
    params.policy = policy;
    run(vm, id::LAUNCH_START, &mut params).map(|()| params.handle)
}

fn add(vm: &Vm, content: &[u8]) -> Result<(), CommandError> {
    vm.user_memory().write(SOURCE, content).unwrap();
    let len = u32::try_from(content.len()).unwrap();
    run(vm, id::LAUNCH_UPDATE_DATA, &mut LaunchUpdateData { uaddr: SOURCE, len, pad0: 0 })
}

fn status(vm: &Vm) -> GuestStatus {
    let mut params = GuestStatus::new_zeroed();
    run(vm, id::GUEST_STATUS, &mut params).unwrap();
    params
}

fn measure(vm: &Vm) -> [u8; 48] {
    run(vm, id::LAUNCH_MEASURE, &mut LaunchMeasure { uaddr: ROOM, len: 48, pad0: 0 }).unwrap();
    read(vm, ROOM)
}

fn read<const N: usize>(vm: &Vm, uaddr: u64) -> [u8; N] {
    let mut bytes = [0; N];
    vm.user_memory().read(uaddr, &mut bytes).unwrap();
    bytes
}

/// The certificate of a platform's Diffie-Hellman key.
fn pdh(psp: &Psp) -> SevCertificate {
    let (certificate, _) = psp.pdh_certificates().unwrap();
    SevCertificate::read_from_bytes(&certificate).unwrap()
}

#[test]
fn every_command_of_a_guest_is_enotty_on_a_vm_that_is_none() {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
    for id in (2..=21).filter(|id| ![10, 14, 19].contains(id)) {
        let errno = if id == id::RECEIVE_UPDATE_DATA { Errno::EINVAL } else { Errno::ENOTTY };
        assert_eq!(plain(&vm, id), before(errno), "{}", id::name(id).unwrap());
    }
    let sev = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    sev.sev_command(id::INIT, &mut ()).unwrap();
    assert_eq!(plain(&sev, id::LAUNCH_UPDATE_VMSA), before(Errno::ENOTTY), "SEV has no encrypted registers");
}

#[test]
fn the_states_of_a_launch_follow_one_another_and_each_command_has_its_own() {
    let vm = es_on(&psp(1));
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    let handle = launch_start(&vm, policy::ES).unwrap();
    let expect = |state| assert_eq!(status(&vm), GuestStatus { handle, policy: policy::ES, state });
    expect(1);
    add(&vm, &[1; 64]).unwrap();
    assert_eq!(plain(&vm, id::LAUNCH_FINISH), refused(firmware::INVALID_GUEST_STATE));
    plain(&vm, id::LAUNCH_UPDATE_VMSA).unwrap();
    assert_eq!(plain(&vm, id::LAUNCH_UPDATE_VMSA), before(Errno::EINVAL), "encrypted already");
    measure(&vm);
    expect(2);
    assert_eq!(add(&vm, &[1; 64]), refused(firmware::INVALID_GUEST_STATE));
    plain(&vm, id::LAUNCH_FINISH).unwrap();
    expect(3);
    for id in [id::LAUNCH_FINISH, id::SEND_FINISH, id::SEND_CANCEL, id::RECEIVE_FINISH] {
        assert_eq!(plain(&vm, id), refused(firmware::INVALID_GUEST_STATE), "{id}");
    }
    run_to_halt(&mut vcpu);
}

#[test]
fn a_guest_of_the_old_command_is_one_of_sev_es_with_version_1_of_the_protocol() {
    let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Default).unwrap();
    vm.add_slot(Slot::shared(0, Gpa(0), MEMORY_BYTES).unwrap()).unwrap();
    vm.sev_command(id::ES_INIT, &mut ()).unwrap();
    let program = |cpu: Cpu| async move {
        let answer = cpu.vmgexit(msr::SEV_INFO_REQUEST).await?;
        assert_eq!((answer >> 48, answer >> 32 & 0xffff), (1, 1), "versions 1 to 1");
        assert!(cpu.port_in(0x80, 1).await.is_err(), "the host cannot look into the guest");
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::FAIL_ENTRY, "not launched");
    launch_start(&vm, policy::ES).unwrap();
    plain(&vm, id::LAUNCH_UPDATE_VMSA).unwrap();
    measure(&vm);
    plain(&vm, id::LAUNCH_FINISH).unwrap();
    run_to_halt(&mut vcpu);
    let handle = status(&vm).handle;
    assert_eq!(status(&vm), GuestStatus { handle, policy: policy::ES, state: 3 });
}

#[test]
fn registers_that_are_not_encrypted_fail_the_entry() {
    let vm = es_on(&psp(1));
    let mut vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    launch_start(&vm, policy::ES).unwrap();
    measure(&vm);
    plain(&vm, id::LAUNCH_FINISH).unwrap();
    assert_eq!(vcpu.enter(), Ok(()));
    assert_eq!(reason(&vcpu), ExitReason::FAIL_ENTRY);
}

#[test]
fn data_that_cannot_be_pinned_or_measured_is_refused() {
    let vm = es_on(&psp(1));
    launch_start(&vm, policy::ES).unwrap();
    let update = |uaddr, len| run(&vm, id::LAUNCH_UPDATE_DATA, &mut LaunchUpdateData { uaddr, len, pad0: 0 });
    assert_eq!(update(SOURCE, 0), before(Errno::EINVAL));
    assert_eq!(update(u64::MAX, 16), before(Errno::EINVAL));
    assert_eq!(update(SOURCE, u32::MAX), before(Errno::ENOMEM));
    assert_eq!(update(SOURCE, 24), refused(firmware::INVALID_LEN));
    assert_eq!(update(SOURCE, 32), Ok(()));
}

/// A guest's owner, with a key and a session for a platform.
fn owned_start(vm: &Vm, psp: &Psp, keys: TransportKeys, policy: u32) -> Result<u32, CommandError> {
    let (secret, signing) =
        (SecretKey::from_slice(&[9; 48]).unwrap(), SigningKey::from_slice(&[9; 48]).unwrap());
    let [_, mut certificate] = SevCertificate::own(&pdh(psp), &signing).unwrap();
    certificate.pubkey_usage = 0x1003.into();
    let platform = pdh(psp).public_key().unwrap();
    let session = Session::wrap(keys, policy, [[1; 16], [2; 16]], &secret, &platform);
    vm.user_memory().write(ROOM, certificate.as_bytes()).unwrap();
    vm.user_memory().write(ROOM + 0x1000, session.as_bytes()).unwrap();
    let mut params = LaunchStart::new_zeroed();
    (params.policy, params.dh_uaddr, params.dh_len) = (policy::ES, ROOM, 2084);
    (params.session_uaddr, params.session_len) = (ROOM + 0x1000, 128);
    run(vm, id::LAUNCH_START, &mut params).map(|()| params.handle)
}

const KEYS: TransportKeys = TransportKeys { tek: [3; 16], tik: [4; 16] };

#[test]
fn the_owner_computes_the_measurement_and_sends_a_secret_that_no_other_can_read() {
    let psp = psp(2);
    let vm = es_on(&psp);
    assert_eq!(
        owned_start(&vm, &psp, KEYS, 0),
        refused(firmware::BAD_MEASUREMENT).map(|()| 0),
        "another policy"
    );
    owned_start(&vm, &psp, KEYS, policy::ES).unwrap();
    add(&vm, &[7; 4096]).unwrap();
    let answer = measure(&vm);
    let (mac, nonce) = answer.split_at(32);
    let version = psp.config().version;
    let mut expected = Hmac::<Sha256>::new_from_slice(&KEYS.tik).unwrap();
    expected.update(&[4, version.major, version.minor, version.build]);
    expected.update(&policy::ES.to_le_bytes());
    expected.update(&Sha256::digest([7; 4096]));
    expected.update(nonce);
    assert_eq!(expected.finalize().into_bytes()[..], *mac);
    let mut secret = *b"the disk's key, of 32 bytes here";
    let header = KEYS.seal(PacketKind::Secret, [5; 16], mac, &mut secret);
    vm.user_memory().write(ROOM, header.as_bytes()).unwrap();
    vm.user_memory().write(ROOM + 0x1000, &secret).unwrap();
    let params = LaunchSecret {
        hdr_uaddr: ROOM,
        hdr_len: 52,
        guest_uaddr: SOURCE,
        guest_len: 32,
        trans_uaddr: ROOM + 0x1000,
        trans_len: 32,
        ..LaunchSecret::new_zeroed()
    };
    let put = |change: fn(&mut LaunchSecret)| {
        let mut params = params;
        change(&mut params);
        run(&vm, id::LAUNCH_SECRET, &mut params)
    };
    assert_eq!(put(|p| p.trans_len = 0), before(Errno::EINVAL));
    assert_eq!(put(|p| p.trans_len = 0x4001), before(Errno::EINVAL));
    assert_eq!(put(|p| p.hdr_uaddr = 0), before(Errno::EINVAL));
    assert_eq!(put(|p| p.guest_len = 16), refused(firmware::INVALID_LEN));
    assert_eq!(put(|p| p.hdr_uaddr += 1), refused(firmware::BAD_MEASUREMENT));
    assert_eq!(put(|_| ()), Ok(()));
    assert_eq!(&read::<32>(&vm, SOURCE), b"the disk's key, of 32 bytes here");
}

#[test]
fn an_answer_without_room_says_how_much_it_needs() {
    let vm = es_on(&psp(3));
    launch_start(&vm, policy::ES).unwrap();
    let ask = |uaddr, len| {
        let mut params = LaunchMeasure { uaddr, len, pad0: 0 };
        (run(&vm, id::LAUNCH_MEASURE, &mut params), params.len)
    };
    assert_eq!(ask(0, 0), (refused(firmware::INVALID_LEN), 48));
    assert_eq!(
        ask(ROOM, 47),
        (refused(firmware::INVALID_LEN), 47),
        "a length that was given is not corrected"
    );
    assert_eq!(ask(0, 48), (refused(firmware::INVALID_LEN), 48));
    assert_eq!(ask(ROOM, 0x4001), (before(Errno::EINVAL), 0x4001));
    vm.user_memory().write(ROOM, &[0xee; 64]).unwrap();
    assert_eq!(ask(ROOM, 56), (Ok(()), 48));
    assert_eq!(
        read::<16>(&vm, ROOM + 48)[..],
        [[0; 8], [0xee; 8]].concat()[..],
        "the buffer is copied whole"
    );
    let mut params = AttestationReport::new_zeroed();
    assert_eq!(run(&vm, id::GET_ATTESTATION_REPORT, &mut params), refused(firmware::INVALID_LEN));
    assert_eq!(params.len, 208);
    (params.uaddr, params.mnonce) = (ROOM, [8; 16]);
    run(&vm, id::GET_ATTESTATION_REPORT, &mut params).unwrap();
    let report = read::<208>(&vm, ROOM);
    assert_eq!((&report[..16], &report[48..52]), (&[8; 16][..], &policy::ES.to_le_bytes()[..]));
    assert_eq!(report[16..48], Sha256::digest([])[..]);
}

#[test]
fn debugging_needs_the_policy_and_crosses_pages() {
    for (policy, expected) in [(0, Ok(())), (policy::NODBG, refused(firmware::POLICY_FAILURE))] {
        let vm = es_on(&psp(4));
        launch_start(&vm, policy).unwrap();
        vm.user_memory().write(SOURCE + 0xf00, &[6; 0x1200]).unwrap();
        for id in [id::DBG_DECRYPT, id::DBG_ENCRYPT] {
            let debug =
                |src_uaddr, dst_uaddr, len| run(&vm, id, &mut Dbg { src_uaddr, dst_uaddr, len, pad0: 0 });
            assert_eq!(debug(SOURCE, ROOM, 0), before(Errno::EINVAL));
            assert_eq!(debug(u64::MAX, ROOM, 2), before(Errno::EINVAL));
            assert_eq!(debug(SOURCE, 0, 1), before(Errno::EINVAL));
            vm.user_memory().write(ROOM, &[0; 0x2000]).unwrap();
            assert_eq!(debug(SOURCE + 0xf00, ROOM + 0x123, 0x1200), expected);
            assert_eq!(read::<0x1200>(&vm, ROOM + 0x123) == [6; 0x1200], expected.is_ok());
        }
    }
}

#[test]
fn a_key_is_shared_by_its_handle_unless_a_policy_forbids_it() {
    let psp = psp(5);
    let host = SevHost::new(psp);
    let vm = || {
        let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
        vm.set_sev_host(host.clone()).unwrap();
        vm.sev_init2(0).unwrap();
        vm
    };
    let share = |vm: &Vm, handle, policy| {
        let mut params = LaunchStart::new_zeroed();
        (params.handle, params.policy) = (handle, policy);
        run(vm, id::LAUNCH_START, &mut params)
    };
    let (first, second, third) = (vm(), vm(), vm());
    let handle = launch_start(&first, policy::ES).unwrap();
    assert_eq!(share(&second, handle, policy::ES), Ok(()));
    assert_eq!(share(&third, 99, policy::ES), refused(firmware::INVALID_GUEST));
    assert_eq!(share(&third, handle, policy::ES | policy::NOKS), refused(firmware::POLICY_FAILURE));
    assert_eq!(
        launch_start(&third, 0xff << 16),
        refused(firmware::POLICY_FAILURE).map(|()| 0),
        "too new an API"
    );
}

#[test]
fn a_guest_is_sent_and_received_page_by_page() {
    let (source_psp, target_psp) = (psp(6), psp(7));
    let (source, target) = (es_on(&source_psp), es_on(&target_psp));
    launch_start(&source, policy::ES).unwrap();
    measure(&source);
    let mut send = SendStart::new_zeroed();
    assert_eq!(run(&source, id::SEND_START, &mut send), refused(firmware::INVALID_LEN));
    assert_eq!(send.session_len, 128, "the length was asked for");
    assert_eq!(run(&source, id::SEND_START, &mut send), before(Errno::EINVAL));
    source.user_memory().write(ROOM, pdh(&target_psp).as_bytes()).unwrap();
    (send.pdh_cert_uaddr, send.pdh_cert_len) = (ROOM, 2084);
    (send.plat_certs_uaddr, send.plat_certs_len) = (ROOM, 2084);
    (send.amd_certs_uaddr, send.amd_certs_len) = (ROOM, 2084);
    send.session_uaddr = ROOM + 0x2000;
    assert_eq!(
        run(&source, id::SEND_START, &mut send),
        refused(firmware::INVALID_GUEST_STATE),
        "not running"
    );
    plain(&source, id::LAUNCH_FINISH).unwrap();
    run(&source, id::SEND_START, &mut send).unwrap();
    assert_eq!((send.policy, status(&source).state), (policy::ES, 4));
    // The receiver.
    target.user_memory().write(ROOM, pdh(&source_psp).as_bytes()).unwrap();
    target.user_memory().write(ROOM + 0x2000, &read::<128>(&source, ROOM + 0x2000)).unwrap();
    let mut receive = ReceiveStart::new_zeroed();
    assert_eq!(run(&target, id::RECEIVE_START, &mut receive), before(Errno::EINVAL));
    (receive.pdh_uaddr, receive.pdh_len) = (ROOM, 2084);
    (receive.session_uaddr, receive.session_len) = (ROOM + 0x2000, 128);
    assert_eq!(
        run(&target, id::RECEIVE_START, &mut receive),
        refused(firmware::BAD_MEASUREMENT),
        "another policy"
    );
    receive.policy = policy::ES;
    run(&target, id::RECEIVE_START, &mut receive).unwrap();
    assert_eq!(status(&target).state, 5);
    for page in 0..3u8 {
        send_page(&source, &target, page);
    }
    plain(&source, id::SEND_FINISH).unwrap();
    plain(&target, id::RECEIVE_FINISH).unwrap();
    assert_eq!((status(&source).state, status(&target).state), (6, 3));
}

fn send_page(source: &Vm, target: &Vm, page: u8) {
    let content = [page; 4096];
    source.user_memory().write(SOURCE, &content).unwrap();
    let mut packet = SendUpdateData::new_zeroed();
    packet.guest_len = 4096;
    assert_eq!(run(source, id::SEND_UPDATE_DATA, &mut packet), refused(firmware::INVALID_LEN));
    assert_eq!((packet.hdr_len, packet.trans_len), (52, 4096), "the lengths were asked for");
    (packet.hdr_uaddr, packet.guest_uaddr, packet.trans_uaddr) = (ROOM, SOURCE + 1, ROOM + 0x1000);
    assert_eq!(run(source, id::SEND_UPDATE_DATA, &mut packet), before(Errno::EINVAL), "across a page");
    packet.guest_uaddr = SOURCE;
    run(source, id::SEND_UPDATE_DATA, &mut packet).unwrap();
    let (header, data) = (read::<52>(source, ROOM), read::<4096>(source, ROOM + 0x1000));
    assert_ne!(data, content, "encrypted");
    assert_eq!(PacketHeader::read_from_bytes(&header).unwrap().flags, 0);
    target.user_memory().write(ROOM, &header).unwrap();
    target.user_memory().write(ROOM + 0x1000, &data).unwrap();
    let mut packet = ReceiveUpdateData::new_zeroed();
    (packet.hdr_uaddr, packet.hdr_len) = (ROOM, 52);
    (packet.guest_uaddr, packet.guest_len) = (SOURCE, 4096);
    (packet.trans_uaddr, packet.trans_len) = (ROOM + 0x1000, 4096);
    let mut changed = packet;
    changed.hdr_uaddr += 1;
    assert_eq!(run(target, id::RECEIVE_UPDATE_DATA, &mut changed), refused(firmware::BAD_MEASUREMENT));
    run(target, id::RECEIVE_UPDATE_DATA, &mut packet).unwrap();
    assert_eq!(read::<4096>(target, SOURCE), content);
}

#[test]
fn a_policy_can_forbid_sending_and_a_send_can_be_taken_back() {
    for forbid in [0, policy::NOSEND] {
        let psp = psp(8);
        let vm = es_on(&psp);
        launch_start(&vm, policy::ES | forbid).unwrap();
        measure(&vm);
        plain(&vm, id::LAUNCH_FINISH).unwrap();
        vm.user_memory().write(ROOM, pdh(&psp).as_bytes()).unwrap();
        let mut send = SendStart::new_zeroed();
        (send.pdh_cert_uaddr, send.pdh_cert_len, send.session_uaddr, send.session_len) =
            (ROOM, 2084, ROOM + 0x2000, 128);
        (send.plat_certs_uaddr, send.plat_certs_len) = (ROOM, 1);
        (send.amd_certs_uaddr, send.amd_certs_len) = (ROOM, 1);
        let expected = if forbid == 0 { Ok(()) } else { refused(firmware::POLICY_FAILURE) };
        assert_eq!(run(&vm, id::SEND_START, &mut send), expected);
        let cancelled = if forbid == 0 { Ok(()) } else { refused(firmware::INVALID_GUEST_STATE) };
        assert_eq!(plain(&vm, id::SEND_CANCEL), cancelled);
        assert_eq!(status(&vm).state, 3);
    }
}

#[test]
fn regions_are_registered_and_forgotten_by_exactly_their_numbers() {
    let none = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
    assert_eq!(none.register_enc_region(SOURCE, 0x1000), Err(Errno::ENOTTY));
    assert_eq!(none.unregister_enc_region(SOURCE, 0x1000), Err(Errno::ENOTTY));
    for vm in [es_on(&psp(9)), vm_on(psp(9))] {
        assert_eq!(vm.register_enc_region(SOURCE, 0), Err(Errno::EINVAL));
        assert_eq!(vm.register_enc_region(u64::MAX, 2), Err(Errno::EINVAL));
        assert_eq!(vm.register_enc_region(SOURCE, 1 << 41), Err(Errno::ENOMEM));
        assert_eq!(vm.register_enc_region(SOURCE, 0x3000), Ok(()));
        assert_eq!(vm.unregister_enc_region(SOURCE, 0x2000), Err(Errno::EINVAL));
        assert_eq!(vm.unregister_enc_region(SOURCE, 0x3000), Ok(()));
        assert_eq!(vm.unregister_enc_region(SOURCE, 0x3000), Err(Errno::EINVAL));
    }
}

#[test]
fn a_mirror_has_the_context_of_another_vm_and_four_commands() {
    let new = || Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
    let owner = es_on(&psp(10));
    launch_start(&owner, policy::ES).unwrap();
    let mirror = new();
    assert_eq!(mirror.copy_enc_context_from(&mirror), Err(Errno::EINVAL), "itself");
    assert_eq!(mirror.copy_enc_context_from(&new()), Err(Errno::EINVAL), "no guest");
    assert_eq!(owner.copy_enc_context_from(&owner.clone()), Err(Errno::EINVAL), "itself by another handle");
    let with_vcpu = new();
    let _vcpu = with_vcpu.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    assert_eq!(with_vcpu.copy_enc_context_from(&owner), Err(Errno::EINVAL), "vCPUs are there");
    mirror.copy_enc_context_from(&owner).unwrap();
    assert_eq!(mirror.copy_enc_context_from(&owner), Err(Errno::EINVAL), "twice");
    assert_eq!(new().copy_enc_context_from(&mirror), Err(Errno::EINVAL), "a mirror of a mirror");
    assert_eq!(status(&mirror), status(&owner));
    for id in (0..=22).chain([100, 103, 104]).filter(|id| ![4, 16, 17, 18].contains(id)) {
        let cmd = SevCmd { id, pad0: 0, data: ROOM, error: 0xdead, sev_fd: SevHost::FILE };
        mirror.user_memory().write(SOURCE, cmd.as_bytes()).unwrap();
        assert_eq!(mirror.memory_encrypt_op(SOURCE), Err(Errno::EINVAL), "{id}");
        assert_eq!(read::<24>(&mirror, SOURCE), cmd.as_bytes(), "not written back");
    }
    assert_eq!(mirror.register_enc_region(SOURCE, 0x1000), Err(Errno::EINVAL));
    assert_eq!(mirror.unregister_enc_region(SOURCE, 0x1000), Err(Errno::EINVAL));
}

#[test]
fn a_guest_moves_to_another_vm_and_leaves_none_behind() {
    let new = || {
        let vm = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
        let vcpu = vm.create_vcpu(0, |_| async { Ok(()) }).unwrap();
        (vm, vcpu)
    };
    let source = es_on(&psp(11));
    let _vcpu = source.create_vcpu(0, |_| async { Ok(()) }).unwrap();
    launch_start(&source, policy::ES).unwrap();
    let (target, mut target_vcpu) = new();
    assert_eq!(target.move_enc_context_from(&target), Err(Errno::EINVAL), "itself");
    assert_eq!(target.move_enc_context_from(&new().0), Err(Errno::EINVAL), "no guest");
    assert_eq!(target.move_enc_context_from(&source), Err(Errno::EINVAL), "registers are not encrypted");
    plain(&source, id::LAUNCH_UPDATE_VMSA).unwrap();
    measure(&source);
    plain(&source, id::LAUNCH_FINISH).unwrap();
    let fewer = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::SevEs).unwrap();
    assert_eq!(fewer.move_enc_context_from(&source), Err(Errno::EINVAL), "not as many vCPUs");
    let snp = Kvm::new(kernel(Dialect::Linux7_2)).create_vm(VmType::Snp).unwrap();
    assert_eq!(snp.move_enc_context_from(&source), Err(Errno::EINVAL), "another type");
    assert_eq!(es_on(&psp(12)).move_enc_context_from(&source), Err(Errno::EINVAL), "a guest already");
    let before_move = status(&source);
    target.move_enc_context_from(&source).unwrap();
    assert_eq!(status(&target), before_move);
    assert_eq!(plain(&source, id::LAUNCH_FINISH), before(Errno::ENOTTY), "no guest any more");
    run_to_halt(&mut target_vcpu);
}
