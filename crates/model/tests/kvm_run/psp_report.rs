//! Attestation reports: from the guest's request to the verdict of an independent verifier.

use crate::snp_world::{PAGES, attested, psp, run_attested, vm_on};
use exeunt_abi::report::REPORT_BYTES;
use exeunt_model::guest::message::Reply;
use exeunt_model::psp::{Endorser, Product, Psp, PspConfig, Verifier, VerifyError, Version};
use exeunt_proto::report::Report;
use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

/// The report that a guest of this host gets over its own data.
fn report_of(psp: &Psp) -> Vec<u8> {
    let vm = vm_on(psp.clone());
    let (_, mut seen) = run_attested(&vm, |cpu, seen| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        seen.push(channel.report(&cpu, &ghcb, PAGES, None, [0x5a; 64]).await?);
        Ok(())
    });
    let Some(Reply::Payload(payload, _)) = seen.pop() else { panic!("no report: {seen:?}") };
    let report = Report::parse_response(&payload).unwrap();
    assert_eq!(report.known().unwrap().wire.report_data, [0x5a; 64]);
    report.bytes()[..REPORT_BYTES].to_vec()
}

fn config(product: Product, report_version: u32) -> PspConfig {
    PspConfig { seed: 7, report_version, ..PspConfig::new(product) }
}

#[test]
fn a_report_and_its_chain_hold_for_the_sev_crate_and_a_changed_report_does_not() {
    for (product, version) in [(Product::Milan, 2), (Product::Genoa, 3), (Product::Turin, 5)] {
        let psp = Psp::new(config(product, version));
        let report = report_of(&psp);
        let [ark, ask, vek] = psp.certificates(Endorser::Vcek).unwrap();
        let chain = Chain::from_der(&ark, &ask, &vek).unwrap();
        let theirs = AttestationReport::from_bytes(&report).unwrap();
        assert_eq!((&chain, &theirs).verify().map_err(|error| error.to_string()), Ok(()), "{product:?}");
        let mut changed = report;
        changed[0x90] ^= 1;
        let theirs = AttestationReport::from_bytes(&changed).unwrap();
        assert!((&chain, &theirs).verify().is_err());
    }
}

#[test]
fn a_vlek_signs_once_it_is_loaded_and_its_chain_holds_for_the_sev_crate() {
    let psp = psp(3);
    psp.snp_vlek_load(&psp.wrap_vlek(*b"a cloud provider")).unwrap();
    let report = report_of(&psp);
    let [ark, asvk, vlek] = psp.certificates(Endorser::Vlek).unwrap();
    let chain = Chain::from_der(&ark, &asvk, &vlek).unwrap();
    let theirs = AttestationReport::from_bytes(&report).unwrap();
    assert_eq!((&chain, &theirs).verify().map_err(|error| error.to_string()), Ok(()));
    let verifier = Verifier { ark: &ark, allow_simulated: true };
    verifier.verify(&report, &asvk, &vlek).unwrap();
    let [_, signer, other] = psp.certificates(Endorser::Vcek).unwrap();
    assert_eq!(verifier.verify(&report, &signer, &other), Err(VerifyError::SigningKey));
    let mut damaged = psp.wrap_vlek(*b"a cloud provider");
    damaged[0] ^= 1;
    assert_eq!(psp.snp_vlek_load(&damaged).unwrap_err().error, 0x0b);
}

#[test]
fn our_verifier_refuses_simulated_certificates_unless_it_is_told_to_take_them() {
    let psp = psp(4);
    let report = report_of(&psp);
    let [ark, ask, vek] = psp.certificates(Endorser::Vcek).unwrap();
    let verifier = Verifier { ark: &ark, allow_simulated: false };
    assert_eq!(verifier.verify(&report, &ask, &vek), Err(VerifyError::Simulated));
    let verifier = Verifier { ark: &ark, allow_simulated: true };
    assert_eq!(verifier.verify(&report, &ask, &vek).unwrap().wire.report_data, [0x5a; 64]);
}

#[test]
fn our_verifier_finds_each_thing_that_is_wrong() {
    let psp = psp(5);
    let report = report_of(&psp);
    let [ark, ask, vek] = psp.certificates(Endorser::Vcek).unwrap();
    let verifier = Verifier { ark: &ark, allow_simulated: true };
    let verify = |report: &[u8], ask: &[u8], vek: &[u8]| verifier.verify(report, ask, vek).map(|_| ());
    assert_eq!(verify(&report[1..], &ask, &vek), Err(VerifyError::Report));
    assert_eq!(verify(&report, &ask[1..], &vek), Err(VerifyError::Certificate("ASK")));
    assert_eq!(verify(&report, &vek, &vek), Err(VerifyError::Chain("ASK")));
    assert_eq!(verify(&report, &ark, &vek), Err(VerifyError::Chain("VEK")));
    let mut forged = vek.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(verify(&report, &ask, &forged), Err(VerifyError::Chain("VEK")));
    let other = crate::snp_world::psp(6);
    let [_, _, other_vek] = other.certificates(Endorser::Vcek).unwrap();
    assert_eq!(verify(&report, &ask, &other_vek), Err(VerifyError::Chip));
    for (at, error) in
        [(0x50, VerifyError::Signature), (0x180, VerifyError::Tcb), (0x48, VerifyError::SigningKey)]
    {
        let mut changed = report.clone();
        changed[at] ^= 4;
        assert_eq!(verify(&changed, &ask, &vek), Err(error), "byte {at:#x}");
    }
}

#[test]
fn the_seed_decides_the_report_to_the_last_byte() {
    assert_eq!(report_of(&psp(9)), report_of(&psp(9)));
    assert_ne!(report_of(&psp(9)), report_of(&psp(10)));
    let certificates = |seed| psp(seed).certificates(Endorser::Vcek).unwrap();
    assert_eq!(certificates(9), certificates(9));
}

#[test]
fn the_tcb_changes_while_guests_run_and_the_certificate_follows_the_reported_one() {
    let psp = psp(11);
    let before = psp.certificates(Endorser::Vcek).unwrap();
    let old = psp.config().version;
    let new = Version { tcb: [4, 0, 0, 0, 0, 0, 21, 210], build: 22, ..old };
    psp.update_firmware(new).unwrap();
    let first = report_of(&psp);
    let wire = Report::parse(&first).unwrap().known().unwrap().wire;
    assert_eq!((wire.current_tcb, wire.reported_tcb, wire.committed_tcb), (new.tcb, old.tcb, old.tcb));
    assert_eq!((wire.launch_tcb, wire.current_build, wire.committed_build), (new.tcb, 22, old.build));
    assert_eq!(psp.certificates(Endorser::Vcek).unwrap(), before, "the reported TCB is as before");
    psp.snp_commit().unwrap();
    let second = report_of(&psp);
    let wire = Report::parse(&second).unwrap().known().unwrap().wire;
    assert_eq!((wire.reported_tcb, wire.committed_tcb), (new.tcb, new.tcb));
    let [ark, ask, vek] = psp.certificates(Endorser::Vcek).unwrap();
    let verifier = Verifier { ark: &ark, allow_simulated: true };
    verifier.verify(&second, &ask, &vek).unwrap();
    assert_eq!(verifier.verify(&first, &ask, &vek), Err(VerifyError::Tcb));
    assert_eq!(psp.update_firmware(old).unwrap_err().error, 0x21, "never back behind what was committed");
}
