//! Guest messages: what the firmware opens, what it refuses, and what the guest finds in the response page.

use crate::snp_world::{PAGES, POLICY, attested, finish, psp, run_attested, start, vm_on};
use crate::world::{Seen, registered, run_to_halt};
use exeunt_abi::ghcb::guest_message::msg_type;
use exeunt_abi::kvm::sev::snp::{LaunchFinish, page_type};
use exeunt_abi::kvm::sev::{firmware, id};
use exeunt_abi::psp::identity::{ID_BLOCK_VERSION, IdBlock};
use exeunt_abi::psp::message::{CpuidHead, KeyRequest, ReportRequest, TscInfoResponse, guest_field};
use exeunt_abi::psp::page::CpuidFunction;
use exeunt_abi::{Errno, Gpa};
use exeunt_model::Vm;
use exeunt_model::guest::message::{Channel, Pages, Reply};
use exeunt_model::guest::{Access, Cpu};
use exeunt_model::launch::SevHost;
use exeunt_model::psp::{PspFault, sign_id_block};
use exeunt_proto::host::Vcpu as _;
use exeunt_proto::report::Report;
use p384::ecdsa::SigningKey;
use sha2::{Digest as _, Sha384};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// `SW_EXITINFO2` of a refusal.
fn refusal(reply: &Reply) -> u64 {
    match reply {
        Reply::Refused(answer) => answer.info_2,
        other => panic!("{other:?}"),
    }
}

fn payload(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Payload(payload, _) => payload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_request_moves_the_sequence_number_by_two_and_no_other_is_taken() {
    let vm = vm_on(psp(1));
    let (_, seen) = run_attested(&vm, |cpu, seen: Seen<Reply>| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        let fresh = channel.clone();
        for round in 1..=3 {
            channel.report(&cpu, &ghcb, PAGES, None, [0; 64]).await?;
            assert_eq!(channel.seqno(), 2 * round);
        }
        seen.push(fresh.clone().report(&cpu, &ghcb, PAGES, None, [0; 64]).await?);
        // Refusals do not move it: the channel goes on.
        seen.push(channel.report(&cpu, &ghcb, PAGES, None, [0; 64]).await?);
        Ok(())
    });
    assert_eq!(refusal(&seen[0]), u64::from(firmware::INVALID_PARAM), "replayed");
    assert!(matches!(seen[1], Reply::Payload(..)));
}

#[test]
fn each_level_has_its_key_and_may_ask_for_its_own_and_weaker_ones() {
    let vm = vm_on(psp(2));
    let _ = run_attested(&vm, |cpu, _: Seen<()>| async move {
        let ghcb = registered(&cpu).await?;
        for level in 0..4u8 {
            let mut channel = Channel::from_secrets(&cpu, crate::snp_world::SECRETS, level).await?;
            for vmpl in 0..6u32 {
                let request = ReportRequest { report_data: [0; 64], vmpl, key_sel: 0, rsvd: [0; 24] };
                let message = (msg_type::REPORT_REQ, request.as_bytes());
                let response = payload(channel.request(&cpu, &ghcb, PAGES, None, message).await?);
                let status = u32::read_from_prefix(&response).unwrap().0;
                let allowed = (u32::from(level)..=3).contains(&vmpl);
                assert_eq!(status == 0, allowed, "level {level} asks for {vmpl}");
                assert!(allowed || status == firmware::INVALID_PARAM);
            }
        }
        Ok(())
    });
}

#[test]
fn messages_that_are_none_get_the_status_of_the_firmware_and_the_response_page_is_stale() {
    let vm = vm_on(psp(3));
    let _ = run_attested(&vm, |cpu, _: Seen<()>| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        payload(channel.report(&cpu, &ghcb, PAGES, None, [1; 64]).await?);
        let good = cpu.read(PAGES.response, 4096, Access::Shared).await?;
        let request = ReportRequest { report_data: [2; 64], vmpl: 0, key_sel: 0, rsvd: [0; 24] };
        let sealed = channel.seal(msg_type::REPORT_REQ, request.as_bytes());
        // Where in the page, and what the firmware says of a byte changed there.
        let cases = [
            (0x00, firmware::BAD_MEASUREMENT),
            (0x20, firmware::INVALID_PARAM),
            (0x30, firmware::INVALID_PARAM),
            (0x31, firmware::INVALID_PARAM),
            (0x32, firmware::INVALID_PARAM),
            (0x34, firmware::BAD_MEASUREMENT),
            (0x36, firmware::BAD_MEASUREMENT),
            (0x37, firmware::BAD_MEASUREMENT),
            (0x38, firmware::BAD_MEASUREMENT),
            (0x60, firmware::BAD_MEASUREMENT),
        ];
        for (at, status) in cases {
            let mut page = sealed.clone();
            page[at] ^= 1;
            cpu.write(PAGES.request, &page, Access::Shared).await?;
            cpu.write(PAGES.response, &[0xee; 4096], Access::Shared).await?;
            let info = [PAGES.request.0, PAGES.response.0];
            let answer = ghcb.request(&cpu, exeunt_abi::ghcb::exit_code::GUEST_REQUEST, info, &[]).await?;
            assert_eq!((answer.info_1, answer.info_2), (0, status.into()), "byte {at:#x}");
            let response = cpu.read(PAGES.response, 4096, Access::Shared).await?;
            assert!(response == good, "the page is written, and holds the response before");
        }
        Ok(())
    });
}

#[test]
fn unknown_types_and_wrong_payloads_are_refused() {
    let vm = vm_on(psp(4));
    let _ = run_attested(&vm, |cpu, _: Seen<()>| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        let known = [msg_type::CPUID_REQ, msg_type::KEY_REQ, msg_type::REPORT_REQ, msg_type::TSC_INFO_REQ];
        for kind in (0..=255u8).filter(|kind| !known.contains(kind)) {
            let reply = channel.request(&cpu, &ghcb, PAGES, None, (kind, &[0; 96])).await?;
            assert_eq!(refusal(&reply), u64::from(firmware::INVALID_PARAM), "type {kind}");
        }
        for kind in known {
            for bytes in [0, 1, 15, 31, 33, 95, 97, 127, 129, 4000] {
                let reply = channel.request(&cpu, &ghcb, PAGES, None, (kind, &vec![1; bytes])).await?;
                assert_eq!(
                    refusal(&reply),
                    u64::from(firmware::INVALID_PARAM),
                    "type {kind} of {bytes} bytes"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn the_tsc_and_cpuid_are_answered() {
    let vm = vm_on(psp(5));
    let _ = run_attested(&vm, |cpu, _: Seen<()>| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        let reply = channel.request(&cpu, &ghcb, PAGES, None, (msg_type::TSC_INFO_REQ, &[0; 128])).await?;
        let info = TscInfoResponse::read_from_bytes(&payload(reply)).unwrap();
        assert_eq!((info.status, info.tsc_scale, info.tsc_offset), (0, 1 << 32, 0));
        for (ecx, status) in [(1 << 24, firmware::INVALID_PARAM), (1, 0)] {
            let function = CpuidFunction { eax_in: 1, ecx, ..CpuidFunction::default() };
            let head = CpuidHead { count_or_status: 1, rsvd_or_count: 0, rsvd: 0 };
            let request = [head.as_bytes(), function.as_bytes()].concat();
            let reply = channel.request(&cpu, &ghcb, PAGES, None, (msg_type::CPUID_REQ, &request)).await?;
            let response = payload(reply);
            let (head, rest) = CpuidHead::read_from_prefix(&response).unwrap();
            assert_eq!((head.count_or_status, head.rsvd_or_count), (status, 1));
            let corrected = CpuidFunction::read_from_bytes(rest).unwrap();
            assert_eq!(corrected.ecx, u32::from(status == 0));
        }
        Ok(())
    });
}

/// Derives keys in a guest of this host.
fn keys(number: u64, requests: Vec<KeyRequest>) -> Vec<Option<[u8; 32]>> {
    let vm = vm_on(psp(number));
    let (_, seen) = run_attested(&vm, |cpu, log| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        for request in requests {
            log.push(channel.derive_key(&cpu, &ghcb, PAGES, &request).await?);
        }
        Ok(())
    });
    seen
}

#[test]
fn a_derived_key_depends_on_the_chip_and_on_what_is_mixed_in_and_comes_back_the_same() {
    let plain = KeyRequest::new_zeroed();
    let of = |fields| KeyRequest { guest_field_select: fields, ..plain };
    let mut requests: Vec<_> = (0..64).map(of).collect();
    requests.push(KeyRequest { vmpl: 1, ..plain });
    requests.push(KeyRequest { root_key_select: 1, ..plain });
    requests.push(KeyRequest { tcb_version: 1, ..of(guest_field::TCB_VERSION) });
    let first = keys(6, requests.clone());
    assert!(first.iter().all(Option::is_some));
    let mut different = first.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), requests.len(), "no two are the same");
    assert_eq!(keys(6, requests.clone()), first, "another guest with the same identity on the same chip");
    assert!(keys(7, requests).iter().zip(&first).all(|(other, first)| other != first), "another chip");
}

#[test]
fn a_key_above_what_the_guest_or_the_platform_has_is_refused() {
    let plain = KeyRequest::new_zeroed();
    let refused = [
        KeyRequest { root_key_select: 8, ..plain },
        KeyRequest { root_key_select: 2 << 1, ..plain },
        KeyRequest { rsvd: 1, ..plain },
        KeyRequest { guest_field_select: 1 << 6, ..plain },
        KeyRequest { guest_field_select: 1 << 63, ..plain },
        KeyRequest { vmpl: 4, ..plain },
        KeyRequest { guest_svn: 1, ..plain },
        KeyRequest { tcb_version: u64::MAX, ..plain },
        KeyRequest { tcb_version: 1 << 8, ..plain },
    ];
    assert_eq!(keys(8, refused.to_vec()), vec![None; refused.len()]);
}

/// Launches with an ID block that was signed for this guest, after a change to it.
fn launch_with_id(vm: &Vm, change: impl FnOnce(&mut IdBlock), author: bool) -> Result<(), u32> {
    let mut block = IdBlock::new_zeroed();
    block.ld = vm.launch_digest().unwrap();
    (block.family_id, block.image_id) = ([1; 16], [2; 16]);
    (block.version, block.guest_svn, block.policy) = (ID_BLOCK_VERSION, 3, POLICY);
    change(&mut block);
    let [id_key, author_key] = [[4; 48], [5; 48]].map(|bytes| SigningKey::from_slice(&bytes).unwrap());
    let mut auth = sign_id_block(&block, &id_key, Some(&author_key));
    if block.guest_svn == 0xbad {
        auth.id_block_sig.r[0] ^= 1;
    }
    let at = crate::snp_world::SOURCE;
    vm.user_memory().write(at, block.as_bytes()).unwrap();
    vm.user_memory().write(at + 0x1000, auth.as_bytes()).unwrap();
    let mut params = LaunchFinish::new_zeroed();
    (params.id_block_uaddr, params.id_auth_uaddr) = (at, at + 0x1000);
    (params.id_block_en, params.auth_key_en, params.host_data) = (1, author.into(), [6; 32]);
    vm.sev_command(id::SNP_LAUNCH_FINISH, &mut params).map_err(|failed| failed.error)
}

#[test]
fn an_id_block_is_checked_against_the_guest_and_its_signatures() {
    let fresh = || {
        let vm = vm_on(psp(9));
        start(&vm, POLICY).unwrap();
        vm
    };
    let with = |change: fn(&mut IdBlock)| launch_with_id(&fresh(), change, true);
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|block| block.version = 2), Err(firmware::INVALID_PARAM));
    assert_eq!(with(|block| block.policy ^= 1), Err(firmware::POLICY_FAILURE));
    assert_eq!(with(|block| block.ld[47] ^= 1), Err(firmware::BAD_MEASUREMENT));
    assert_eq!(with(|block| block.guest_svn = 0xbad), Err(firmware::BAD_SIGNATURE));
    let vm = fresh();
    assert_eq!(launch_with_id(&vm, |block| block.policy ^= 1, true), Err(firmware::POLICY_FAILURE));
    assert_eq!(
        launch_with_id(&vm, |_| (), true),
        Ok(()),
        "a finish that the firmware refused can be tried again"
    );
    let mut params = LaunchFinish::new_zeroed();
    params.id_block_en = 1;
    let refused = fresh().sev_command(id::SNP_LAUNCH_FINISH, &mut params).unwrap_err();
    assert_eq!((refused.errno, refused.error), (Errno::EINVAL, 0), "no blob at address 0");
}

#[test]
fn a_report_gives_the_identity_the_host_data_and_the_digests_of_the_keys() {
    for author in [false, true] {
        let vm = vm_on(psp(10));
        let seen = Seen::new();
        let log = seen.clone();
        let program = |cpu: Cpu| async move {
            let (ghcb, mut channel) = attested(&cpu).await?;
            log.push(channel.report(&cpu, &ghcb, PAGES, None, [0; 64]).await?);
            Ok(())
        };
        let mut vcpu = vm.create_vcpu(0, program).unwrap();
        start(&vm, POLICY).unwrap();
        crate::snp_world::update(&vm, page_type::SECRETS, crate::snp_world::SECRETS, &[0; 4096]).unwrap();
        // The digest that the block has to name is the one after the VMSA, which FINISH adds.
        let expected = vm.digest_with_vmsas().unwrap();
        assert_eq!(launch_with_id(&vm, |block| block.ld = expected, author), Ok(()));
        run_to_halt(&mut vcpu);
        let response = payload(seen.take().pop().unwrap());
        let report = Report::parse_response(&response).unwrap().known().unwrap();
        assert_eq!(
            (report.wire.family_id, report.wire.image_id, report.wire.guest_svn),
            ([1; 16], [2; 16], 3)
        );
        assert_eq!((report.wire.host_data, report.wire.measurement), ([6; 32], expected));
        let [id_key, author_key] = [[4; 48], [5; 48]].map(|bytes| SigningKey::from_slice(&bytes).unwrap());
        let auth = sign_id_block(&IdBlock::new_zeroed(), &id_key, Some(&author_key));
        let digest = |key: &[u8]| -> [u8; 48] { Sha384::digest(key).into() };
        assert_eq!(report.wire.id_key_digest, digest(auth.id_key.as_bytes()));
        assert_eq!(report.author_key_digest(), author.then(|| digest(auth.author_key.as_bytes())));
    }
}

#[test]
fn a_closed_dev_sev_and_a_processor_that_does_not_answer_fail_kvm_run() {
    let psp = psp(11);
    let vm = vm_on(psp.clone());
    let host: SevHost = vm.sev_host();
    let program = |cpu: Cpu| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        loop {
            cpu.hlt().await;
            channel.report(&cpu, &ghcb, PAGES, None, [0; 64]).await?;
        }
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    start(&vm, POLICY).unwrap();
    crate::snp_world::update(&vm, page_type::SECRETS, crate::snp_world::SECRETS, &[0; 4096]).unwrap();
    finish(&vm).unwrap();
    run_to_halt(&mut vcpu);
    host.close(SevHost::FILE);
    assert_eq!(vcpu.enter(), Err(Errno::EBADF));
    // Any file with the number will do, for KVM remembers no more.
    host.open(SevHost::FILE, false);
    run_to_halt(&mut vcpu);
    for (fault, errnos) in [
        (PspFault::Busy { commands: 1 }, [Errno::EBUSY].as_slice()),
        (PspFault::TimesOut, &[Errno::ETIMEDOUT, Errno::EBUSY, Errno::EBUSY]),
    ] {
        psp.set_fault(fault);
        for errno in errnos {
            assert_eq!(vcpu.enter(), Err(*errno), "{fault:?}");
            run_to_halt(&mut vcpu);
        }
    }
    psp.set_fault(PspFault::Status { status: firmware::HWSEV_RET_PLATFORM, commands: 1 });
    run_to_halt(&mut vcpu);
}

#[test]
fn request_pages_in_private_memory_are_read_as_the_host_sees_them() {
    let vm = vm_on(psp(12));
    let private = Pages { request: Gpa(0x80_4000), response: Gpa(0x80_5000) };
    let (_, seen) = run_attested(&vm, |cpu, seen: Seen<u64>| async move {
        let (ghcb, channel) = attested(&cpu).await?;
        cpu.pvalidate(private.request, true).await?;
        let request = ReportRequest::new_zeroed();
        cpu.write(private.request, &channel.seal(msg_type::REPORT_REQ, request.as_bytes()), Access::Private)
            .await?;
        let info = [private.request.0, private.response.0];
        seen.push(ghcb.request(&cpu, exeunt_abi::ghcb::exit_code::GUEST_REQUEST, info, &[]).await?.info_2);
        Ok(())
    });
    assert_eq!(seen, [u64::from(firmware::INVALID_PARAM)], "zeros are no message");
}
