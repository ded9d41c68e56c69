//! `exeunt certs publish` and `fetch`, with what the model issues.

use super::certs::{MILAN, data, exeunt, printed, table};
use super::mistake;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

const TRUST: [&str; 2] = ["--any-root", "--allow-simulated"];
const NEXT: [&str; 3] = ["milan-next-vcek.der", "milan-ask.der", "milan-ark.der"];

fn with<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &TRUST].concat()
}

fn chip(path: &str) -> String {
    let json: serde_json::Value =
        serde_json::from_str(&printed(0, &["show", path, "--format", "json"])).unwrap();
    json["entries"][0]["chip"].as_str().unwrap().into()
}

#[test]
fn what_one_host_publishes_another_fetches_by_report_chip_or_provider() {
    let (folder, path) = table("publish", &MILAN);
    let store = format!("{}/store", folder.path());
    let output = format!("{}/out.bin", folder.path());
    let text = printed(0, &with(&["publish", &path, "--to", &store]));
    assert!(text.contains(": published, generation 1\n") && text.contains("Milan, TCB bl3"), "{text}");
    let text = printed(0, &with(&["publish", &path, "--to", &format!("file://{store}")]));
    assert!(text.contains(": published before, generation 1\n"), "{text}");
    let report = data("milan-report.bin");
    printed(0, &with(&["fetch", "--from", &store, "--report", &report, "-o", &output]));
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&path).unwrap());
    // After an update the chip's pointer leads elsewhere, and a report of before finds its own.
    let (_next, next) = table("publish-next", &NEXT);
    printed(0, &with(&["publish", &next, "--to", &store]));
    printed(0, &with(&["fetch", "--from", &store, "--chip", &chip(&path), "-o", &output]));
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&next).unwrap());
    printed(0, &with(&["fetch", "--from", &store, "--report", &report, "-o", &output]));
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&path).unwrap());
    let arguments = with(&["publish", &path, "--to", &store]);
    assert!(mistake(&arguments, &exeunt(&arguments)).contains("is older: --allow-older goes back"));
    printed(0, &with(&["publish", &path, "--to", &store, "--allow-older"]));
    // A VLEK is its provider's.
    let (_vlek, vlek) = table("publish-vlek", &["milan-vlek.der", "milan-asvk.der", "milan-ark.der"]);
    let csp = printed(0, &["show", &vlek]);
    let csp = csp.lines().find_map(|line| line.trim().strip_prefix("csp      ")).unwrap();
    printed(0, &with(&["publish", &vlek, "--to", &store]));
    let of_csp = data("milan-vlek-report.bin");
    printed(0, &with(&["fetch", "--from", &store, "--csp", csp, "--report", &of_csp, "-o", &output]));
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&vlek).unwrap());
}

#[test]
fn what_does_not_hold_is_neither_published_nor_written() {
    let (folder, path) = table("hold", &MILAN);
    let store = format!("{}/store", folder.path());
    let text = printed(1, &["publish", &path, "--to", &store, "--any-root"]);
    assert!(text.starts_with("not published: ") && text.contains("SIMULATED"), "{text}");
    assert!(!Path::new(&store).exists());
    printed(0, &with(&["publish", &path, "--to", &store]));
    let before = std::fs::read(&path).unwrap();
    let other = data("turin-ark.der");
    let report = data("milan-report.bin");
    let fetch = ["fetch", "--from", &store, "--report", &report, "-o", &path];
    let text = printed(1, &[&fetch[..], &["--root", &other, "--allow-simulated"]].concat());
    assert!(text.starts_with("not written: ") && text.contains("is not the trusted one"), "{text}");
    // A report whose signature is not the chip's.
    let mut forged = std::fs::read(&report).unwrap();
    forged[0x90] ^= 1;
    let forged = folder.file("forged.bin", forged);
    let text = printed(1, &with(&["fetch", "--from", &store, "--report", &forged, "-o", &path]));
    assert!(text.contains("the report is not signed by the key of the VCEK"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// A key distribution service that knows one chip, for as many requests as there are.
fn service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            let Some(Ok(first)) = lines.next() else { continue };
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let read = |name: &str| std::fs::read(data(name)).unwrap();
            let (status, body) = if first.contains("/cert_chain") {
                ("200 OK", read("milan-chain.pem"))
            } else if first.contains("blSPL=03&teeSPL=00&snpSPL=20&ucodeSPL=209") {
                ("200 OK", read("milan-vcek.der"))
            } else {
                ("404 Not Found", Vec::new())
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // A client that went away is no concern of the next one.
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    base
}

#[test]
fn a_host_gets_its_table_from_the_service_by_its_report_and_then_offline() {
    let (folder, path) = table("kds", &MILAN);
    let (base, report) = (service(), data("milan-report.bin"));
    let (cache, output) = (format!("{}/cache", folder.path()), format!("{}/out.bin", folder.path()));
    let fetch =
        ["fetch", "--kds", &base, "--spacing", "0", "--report", &report, "--cache", &cache, "-o", &output];
    printed(0, &with(&fetch));
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&path).unwrap());
    std::fs::remove_file(&output).unwrap();
    printed(0, &with(&[&fetch[..], &["--offline"]].concat()));
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&path).unwrap());
    let other = chip(&path).replace('4', "5");
    let wrong = with(&[
        "fetch",
        "--kds",
        &base,
        "--product",
        "Milan",
        "--chip",
        &other,
        "--tcb",
        "bl3.tee0.snp20.ucode210",
        "--cache",
        &cache,
        "-o",
        &output,
        "--offline",
    ]);
    assert!(mistake(&wrong, &exeunt(&wrong)).contains("fetch it once without --offline"));
}

#[test]
fn a_mistake_is_one_line_before_anything_is_asked() {
    let (folder, path) = table("fetch-mistakes", &MILAN);
    let output = format!("{}/out.bin", folder.path());
    let chip = chip(&path);
    let vlek = data("milan-vlek-report.bin");
    let nobody = "http://127.0.0.1:1";
    let store = format!("{}/none", folder.path());
    let cases: &[(&[&str], &str)] = &[
        (&["fetch", "--kds", nobody, "--chip", &chip, "-o", &output], "which TCB?"),
        (
            &["fetch", "--kds", nobody, "--chip", &chip, "--tcb", "bl3.tee0.snp20.ucode209", "-o", &output],
            "which product?",
        ),
        (&["fetch", "--kds", nobody, "--report", &vlek, "-o", &output], "signed by a VLEK"),
        (&["fetch", "--kds", nobody, "--report", "/dev/zero", "-o", &output], "not a regular file"),
        (&["fetch", "--from", &store, "--chip", &chip, "-o", &output], "nothing is published for chip"),
        (&["publish", &path, "--to", "/dev/null"], "is no store"),
    ];
    for (arguments, text) in cases {
        let arguments = with(arguments);
        let line = mistake(&arguments, &exeunt(&arguments));
        assert!(line.contains(text), "{arguments:?}: {line}");
    }
    for arguments in [
        &["fetch", "-o", &output, "--chip", &chip][..],
        &["fetch", "--kds", "-o", &output],
        &["fetch", "--kds", "-o", &output, "--chip", "12"],
        &["publish", &path, "--to", "ftp://host"],
    ] {
        let output = exeunt(&with(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
