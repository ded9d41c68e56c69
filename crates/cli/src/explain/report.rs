//! `report`: an SNP attestation report, alone or in the response that carries it.

use super::dump::Dump;
use super::explanation::{Explanation, Field, mask, unknown_bits};
use super::input::Input;
use crate::Failure;
use exeunt_abi::kvm::sev::snp::policy;
use exeunt_abi::report::{
    AttestationReport, REPORT_BYTES, flags, platform_info, signature_algo, signing_key,
};
use exeunt_proto::report::{KnownReport, Report};

const SOURCE: &str =
    "AMD 56860 revision 1.58, table 23 \"ATTESTATION_REPORT Structure\" and table 9 (the policy)";
/// Bytes of a `MSG_REPORT_RSP` before the report.
const RESPONSE_BYTES: usize = 32;
/// What a guest's buffer for a response has, which is more than a report.
const MAX_BYTES: usize = 4096;

/// `report FILE|HEX`.
pub(super) fn explain(input: &Input) -> Result<Explanation, Failure> {
    let Input { name, bytes, .. } = input;
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "{name}: {} bytes are more than a report of {REPORT_BYTES} in its response",
            bytes.len()
        ));
    }
    let start = if is_response(bytes) { RESPONSE_BYTES } else { 0 };
    let parsed = if start == 0 { Report::parse(bytes) } else { Report::parse_response(bytes) };
    let report = parsed.map_err(|error| format!("{name}: {error}"))?;
    let Some(known) = report.known() else {
        let version = report.version();
        return Err(format!(
            "{name}: version {version} at offset {start:#x}: reports of versions 2 to 5 are known"
        ));
    };
    let dump = Dump(report.bytes());
    let wire = &known.wire;
    let title = format!(
        "a report of version {} for VMPL {}, policy {:#x}, {}",
        wire.version,
        vmpl(wire.vmpl),
        wire.policy,
        signer(wire)
    );
    let mut explanation = Explanation::new("report", name, title)
        .with_all((start != 0).then(|| Field::new("response", "status 0", "offsets below count from 0x20 on")))
        .with_all(identity(dump, wire))
        .with_all(versions(dump, &known))
        .with_all(tail(dump, &known))
        .advice(
            "Nothing for a VMM. For a verifier: check the signature over the first 0x2a0 bytes with the VCEK or VLEK of \
             the reported TCB, report_data against its nonce, measurement and policy against what it expects. \
             Certificates that a VMM hands out have to fit reported_tcb (RC-9).",
        )
        .source(SOURCE);
    explanation.reserved = called_out(dump, &known);
    Ok(explanation)
}

/// A report begins with its version, which is 2 at least; a response with its status, which is 0.
fn is_response(bytes: &[u8]) -> bool {
    let dump = Dump(bytes);
    let is_refusal = matches!(dump.u32(0), 0x16 | 0x27) && dump.u32(4) == 0;
    bytes.len() >= RESPONSE_BYTES
        && (is_refusal || (dump.u32(0) == 0 && dump.u32(4) as usize == REPORT_BYTES))
}

fn vmpl(vmpl: u32) -> String {
    if vmpl == u32::MAX { "none (the host asked)".into() } else { vmpl.to_string() }
}

fn signer(wire: &AttestationReport) -> String {
    let key = (wire.flags & flags::SIGNING_KEY_MASK) >> flags::SIGNING_KEY_SHIFT;
    match signing_key::name(key) {
        Some("NONE") => "not signed".into(),
        Some(name) => format!("signed with the {name}"),
        None => format!("signed with key {key}, which is not known here"),
    }
}

fn names(bits: u64, all: &[(u64, &str)]) -> String {
    let named: Vec<_> = all.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if named.is_empty() { "none".into() } else { named.join(", ") }
}

fn identity(dump: Dump<'_>, wire: &AttestationReport) -> Vec<Field> {
    let abi = format!(
        "ABI {}.{} at least; {}",
        wire.policy >> 8 & 0xff,
        wire.policy & 0xff,
        names(wire.policy, policy::ALL)
    );
    let algo = signature_algo::name(wire.signature_algo).unwrap_or("no algorithm that is known here");
    let bits = format!(
        "{}; author key {}, chip key {}",
        signer(wire),
        if wire.flags & flags::AUTHOR_KEY_EN == 0 { "absent" } else { "present" },
        if wire.flags & flags::MASK_CHIP_KEY == 0 { "in use" } else { "masked" }
    );
    vec![
        Field::at(0, "version", wire.version.to_string(), "of this structure"),
        Field::at(
            4,
            "guest_svn",
            wire.guest_svn.to_string(),
            "security version of the guest, from its ID block",
        ),
        dump.hex64(8, "policy", abi),
        dump.run(0x10, 16, "family_id", "from the ID block"),
        dump.run(0x20, 16, "image_id", "from the ID block"),
        Field::at(0x30, "vmpl", vmpl(wire.vmpl), "privilege level that the request names"),
        Field::at(0x34, "signature_algo", wire.signature_algo.to_string(), algo),
        dump.hex64(0x40, "platform_info", names(wire.platform_info, platform_info::ALL)),
        dump.hex32(0x48, "flags", bits),
        dump.run(0x50, 64, "report_data", "what the guest wanted in the report, such as a nonce"),
        dump.run(0x90, 48, "measurement", "of the launch, SHA-384"),
        dump.run(0xc0, 32, "host_data", "what the host wanted in the report"),
        dump.run(0xe0, 48, "id_key_digest", "of the key that signed the ID block"),
        dump.run(0x110, 48, "author_key_digest", "of the key that certified that key"),
        dump.run(0x140, 32, "report_id", "identity of this guest"),
        dump.run(0x160, 32, "report_id_ma", "of its migration agent, or all ones"),
    ]
}

fn versions(dump: Dump<'_>, known: &KnownReport<'_>) -> Vec<Field> {
    let wire = &known.wire;
    let tcb = |at, name: &str, bytes: [u8; 8], what: &str| {
        dump.run(at, 8, name, format!("{}: {what}", known.tcb(bytes)))
    };
    let mut fields = vec![
        tcb(0x38, "current_tcb", wire.current_tcb, "what runs"),
        tcb(0x180, "reported_tcb", wire.reported_tcb, "what the signing key was derived from"),
        tcb(0x1e0, "committed_tcb", wire.committed_tcb, "what the host will not go back behind"),
        tcb(0x1f0, "launch_tcb", wire.launch_tcb, "at the launch"),
    ];
    if let Some(cpu) = known.cpuid() {
        let about = format!("family {:#x}, model {:#x}, stepping {:#x}", cpu.family, cpu.model, cpu.stepping);
        fields.push(dump.run(0x188, 3, "cpuid", about));
    }
    if let Some(mitigations) = known.mitigations() {
        fields.push(dump.hex64(0x1f8, "launch_mit_vector", "mitigations verified at the launch"));
        let lost = mitigations.launch & !mitigations.current;
        let note =
            if lost == 0 { String::new() } else { format!("; {lost:#x} were verified then and are not now") };
        fields.push(dump.hex64(0x200, "current_mit_vector", format!("mitigations verified now{note}")));
    }
    fields
}

fn tail(dump: Dump<'_>, known: &KnownReport<'_>) -> Vec<Field> {
    let wire = &known.wire;
    let chip = if known.chip_id().is_some() { "identity of the chip" } else { "hidden by the host" };
    let version = |major: u8, minor: u8, build: u8| format!("{major}.{minor} build {build}");
    let current = version(wire.current_major, wire.current_minor, wire.current_build);
    let committed = version(wire.committed_major, wire.committed_minor, wire.committed_build);
    vec![
        dump.run(0x1a0, 64, "chip_id", chip),
        Field::at(0x1e8, "current", current, "firmware that runs"),
        Field::at(0x1ec, "committed", committed, "firmware that is committed"),
        dump.run(0x2a0, 72, "signature R", "little endian"),
        dump.run(0x2e8, 72, "signature S", "little endian"),
    ]
}

fn called_out(dump: Dump<'_>, known: &KnownReport<'_>) -> Vec<String> {
    let wire = &known.wire;
    let platform = platform_info::ALL.iter().fold(0, |all, (bit, _)| all | bit);
    let named = |name: &'static str| move |what: String| format!("{name}: {what}");
    let mut out: Vec<String> =
        unknown_bits(wire.policy, policy::KNOWN_MASK).map(named("policy")).into_iter().collect();
    if wire.policy & policy::RSVD == 0 {
        out.push("policy: bit 17 must be 1; KVM refuses the launch otherwise".into());
    }
    out.extend(unknown_bits(wire.platform_info, platform).map(named("platform_info")));
    out.extend(unknown_bits(u64::from(wire.flags), mask(4, 0)).map(named("flags")));
    // Bytes that later versions gave a meaning are reserved in earlier ones.
    let cpuid = if wire.version < 3 { (0x188, 24) } else { (0x18b, 21) };
    let mitigations = if wire.version < 5 { (0x1f8, 168) } else { (0x208, 152) };
    let runs = [(0x4c, 4), cpuid, (0x1eb, 1), (0x1ef, 1), mitigations, (0x330, 368)];
    out.extend(runs.into_iter().filter_map(|(at, length)| dump.not_zero(at, length, "reserved")));
    out
}

/// Whether bytes look like a report.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    let version = Dump(bytes).u32(0);
    let is_sized = bytes.len() >= REPORT_BYTES && bytes.len() <= MAX_BYTES;
    is_sized && (is_response(bytes) || (2..=5).contains(&version) && Dump(bytes).u32(0x34) <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: u8, parts: &[(usize, u8)]) -> Input {
        let mut bytes = vec![0; REPORT_BYTES];
        for (at, value) in
            [(0, version), (0xa, 3), (0x34, 1), (0x180, 4), (0x188, if version < 3 { 0 } else { 0x19 })]
        {
            bytes[at] = value;
        }
        for (at, value) in parts {
            bytes[*at] = *value;
        }
        Input { name: "report".into(), bytes, is_text: false }
    }

    fn field(explanation: &Explanation, name: &str) -> Field {
        explanation.fields.iter().find(|field| field.name == name).cloned().unwrap()
    }

    #[test]
    fn a_report_says_who_signed_what_with_which_versions() {
        let explanation = explain(&report(3, &[])).unwrap();
        assert_eq!(
            explanation.title,
            "a report of version 3 for VMPL 0, policy 0x30000, signed with the VCEK"
        );
        assert_eq!(explanation.reserved, Vec::<String>::new());
        assert!(field(&explanation, "reported_tcb").meaning.starts_with("boot loader 4, tee 0"));
        assert_eq!(field(&explanation, "cpuid").meaning, "family 0x19, model 0x0, stepping 0x0");
        assert_eq!(field(&explanation, "policy").meaning, "ABI 0.0 at least; SMT, RSVD");
    }

    #[test]
    fn a_response_is_looked_into_and_a_refusal_is_an_error() {
        let mut response = report(2, &[]);
        let head = [0u32.to_le_bytes(), 0x4a0u32.to_le_bytes()].concat();
        response.bytes.splice(0..0, head.into_iter().chain([0; 24]));
        assert!(explain(&response).unwrap().title.starts_with("a report of version 2"));
        response.bytes[0] = 0x16;
        response.bytes[4..8].fill(0);
        assert!(explain(&response).unwrap_err().contains("status 0x16"));
    }

    #[test]
    fn reserved_bytes_are_called_out_by_version() {
        assert_eq!(explain(&report(2, &[(0x188, 0x19)])).unwrap().reserved.len(), 1);
        assert_eq!(explain(&report(4, &[(0x1f8, 1)])).unwrap().reserved.len(), 1);
        assert_eq!(explain(&report(5, &[(0x1f8, 1)])).unwrap().reserved.len(), 0);
        assert_eq!(
            explain(&report(3, &[(0x4f, 1), (0xa, 1), (0xf, 1), (0x40, 0x40)])).unwrap().reserved.len(),
            4
        );
    }

    #[test]
    fn other_versions_and_sizes_are_errors() {
        assert!(explain(&report(9, &[])).unwrap_err().contains("version 9 at offset 0x0"));
        let short = Input { bytes: vec![2; 100], ..report(2, &[]) };
        assert!(explain(&short).unwrap_err().contains("100 bytes are no report of 1184 bytes"));
    }
}
