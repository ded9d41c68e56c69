use super::*;

const GOOD: &str = r#"
title = "a scenario"
[vm]
type = "default"
memory = 0x1000
[[case]]
title = "a case"
guest = "hlt"
"#;

fn parsed(text: &str) -> Result<Scenario, ScenarioError> {
    parse("test", text)
}

/// The message of a text that is refused.
fn refusal(text: &str) -> String {
    parsed(text).unwrap_err().to_string()
}

#[test]
fn a_small_scenario_gets_the_defaults() {
    let scenario = parsed(GOOD).unwrap();
    let [case] = scenario.cases.as_slice() else { panic!("one case") };
    assert_eq!((scenario.name.as_str(), case.guest.as_str()), ("test", "hlt"));
    assert_eq!(case.dialects, [Dialect::Linux7_2]);
    assert_eq!((case.vm.memory_bytes, case.vm.vcpus, case.vm.arch), (0x1000, 1, Arch::X86));
    assert_eq!((case.memory_faults, case.reset), (FaultPolicy::Stop, EventPolicy::Stop));
    assert!(case.expect.end.is_none() && case.faults.is_empty() && case.migration.is_none());
}

#[test]
fn a_text_that_is_not_toml_or_has_an_unknown_key_names_the_line() {
    let unknown = refusal(&GOOD.replace("guest =", "geust ="));
    assert!(unknown.starts_with("test.toml:8: ") && unknown.contains("geust"), "{unknown}");
    assert!(refusal("title = ").starts_with("test.toml:1: "));
    assert!(refusal("title = 7\n").contains("test.toml:1: "));
    assert!(refusal(&GOOD.replace("0x1000", "-1")).starts_with("test.toml:5: "));
    for text in ["", "[vm]", "\u{0}", "case = 3", "title = \"x\"\n[vm]\ntype=\"snp\"\nmemory=4096"] {
        let message = refusal(text);
        assert!(!message.contains('\n'), "one line: {message}");
    }
}

#[test]
fn every_value_without_a_meaning_is_refused_in_one_line() {
    let cases = [
        ("type = \"default\"", "type = \"s390\"", "no VM type is named 's390'"),
        ("0x1000", "0x1001", "multiple of 4096"),
        ("0x1000", "0", "multiple of 4096"),
        ("0x1000", "0x200_0000_0000", "1 TiB"),
        ("0x1000", "0x1000\nvcpus = 0", "vcpus is 1 to 256"),
        ("0x1000", "0x1000\nvcpus = 257", "vcpus is 1 to 256"),
        ("0x1000", "0x1000\narch = \"mips\"", "arch is x86_64, arm64 or riscv64"),
        ("\"hlt\"", "\"none\"", "no guest is named 'none'"),
        ("\"hlt\"", "\"hlt\"\ndialects = [\"linux-1.0\"]", "no dialect is named 'linux-1.0'"),
        ("\"hlt\"", "\"hlt\"\ncapabilities = [\"x\"]", "no capability is named 'x'"),
        ("\"hlt\"", "\"hlt\"\ncertificates = \"x\"", "certificates are none, busy, broken"),
        (
            "\"hlt\"",
            "\"hlt\"\nquotes = { answer = \"x\" }",
            "the answer of quotes is one of simulated, unavailable",
        ),
        ("\"hlt\"", "\"hlt\"\nquotes = { answer = \"failed\" }", "only TDs ask for quotes"),
        ("\"hlt\"", "\"hlt\"\nmemory-faults = \"x\"", "memory-faults is stop or convert"),
        ("\"hlt\"", "\"hlt\"\nreset = \"x\"", "reset is stop or ignore"),
        ("\"hlt\"", "\"hlt\"\nfaults = [{effect=\"x\",nth=1,errno=\"EIO\"}]", "no effect is named 'x'"),
        ("\"hlt\"", "\"hlt\"\nfaults = [{effect=\"discard\",nth=0,errno=\"EIO\"}]", "counted from 1"),
        ("\"hlt\"", "\"hlt\"\nfaults = [{effect=\"discard\",nth=1,errno=\"E\"}]", "no error is named 'E'"),
        ("guest = \"hlt\"", "", "no guest is named"),
    ];
    for (from, to, expected) in cases {
        let message = refusal(&GOOD.replace(from, to));
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n') && message.starts_with("test.toml"), "{message}");
    }
    assert!(refusal("title = \"x\"\ncase = []\n[vm]\ntype = \"snp\"\nmemory = 4096").contains("no case"));
}

#[test]
fn a_missing_certificate_file_is_named() {
    let text = GOOD.replace("\"hlt\"", "\"hlt\"\ncertificates = { file = \"no/such.certs\" }");
    let message = refusal(&text);
    assert!(message.contains("cannot read the certificate file no/such.certs"), "{message}");
}

#[test]
fn a_name_is_a_shipped_scenario_and_a_path_is_a_file() {
    let unknown = load("no-such").unwrap_err().to_string();
    assert!(unknown.contains("no scenario is named 'no-such'") && unknown.contains("system-event"));
    for path in ["./no-such", "no-such.toml"] {
        let missing = load(path).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read the scenario"), "{missing}");
    }
    let endless = load("/dev/zero").unwrap_err().to_string();
    assert!(endless.contains("cannot read the scenario /dev/zero"), "{endless}");
}
