//! The files that the tests of `exeunt-certs` read are what the model issues.

use crate::world::{PAGES, attested, launch, vm_on};
use exeunt_model::guest::message::Reply;
use exeunt_model::psp::{Endorser, Product, Psp, PspConfig, Version};
use exeunt_proto::host::Vcpu as _;
use exeunt_proto::report::Report;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The report that a guest of this host gets.
pub(crate) fn report_of(psp: &Psp) -> Vec<u8> {
    let vm = vm_on(psp.clone(), false);
    let seen = Arc::new(Mutex::new(None));
    let log = seen.clone();
    let program = |cpu| async move {
        let (ghcb, mut channel) = attested(&cpu).await?;
        let reply = channel.report(&cpu, &ghcb, PAGES, None, [0x5a; 64]).await?;
        *log.lock().unwrap() = Some(reply);
        Ok(())
    };
    let mut vcpu = vm.create_vcpu(0, program).unwrap();
    launch(&vm);
    while seen.lock().unwrap().is_none() {
        vcpu.enter().unwrap();
    }
    let Some(Reply::Payload(payload, _)) = seen.lock().unwrap().take() else { panic!("no report") };
    Report::parse_response(&payload).unwrap().bytes().to_vec()
}

/// Each file and its content. Certificates of hosts with the seed 57230.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for product in [Product::Milan, Product::Turin] {
        let psp = Psp::new(PspConfig { seed: 57230, ..PspConfig::new(product) });
        let mut add = |name: &str, bytes| {
            files.push((format!("{}-{name}", product.name().to_lowercase()), bytes));
        };
        add("report.bin", report_of(&psp));
        let [ark, ask, vcek] = psp.certificates(Endorser::Vcek).unwrap();
        add("ark.der", ark);
        add("ask.der", ask);
        add("vcek.der", vcek);
        if product == Product::Milan {
            let old = psp.config().version;
            let next = Version { tcb: [4, 0, 0, 0, 0, 0, 21, 210], ..old };
            let newer = Psp::new(psp.config());
            newer.update_firmware(next).unwrap();
            newer.snp_commit().unwrap();
            let [_, _, next_vcek] = newer.certificates(Endorser::Vcek).unwrap();
            add("next-vcek.der", next_vcek);
            psp.snp_vlek_load(&psp.wrap_vlek(*b"a cloud provider")).unwrap();
            let [_, signer, of_csp] = psp.certificates(Endorser::Vlek).unwrap();
            add("asvk.der", signer);
            add("vlek.der", of_csp);
            add("vlek-report.bin", report_of(&psp));
        }
    }
    files
}

#[test]
fn the_files_of_the_other_tests_are_what_the_model_issues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/tests/data");
    for (name, bytes) in files() {
        let path = folder.join(&name);
        if std::env::var_os("EXEUNT_WRITE_FIXTURES").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{name}: write it with EXEUNT_WRITE_FIXTURES=1");
    }
}
