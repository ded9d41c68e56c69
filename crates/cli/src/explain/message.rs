//! `message`: the header of an SNP guest message.

use super::dump::Dump;
use super::explanation::{Explanation, Field};
use super::input::Input;
use crate::Failure;
use exeunt_abi::ghcb::guest_message::{algo, msg_type};
use exeunt_proto::ghcb::{MessageError, MessageHeader};

const SOURCE: &str = "AMD 56860 revision 1.58, section 8 \"Guest Messages\"; Linux v7.2 arch/x86/include/asm/sev.h, \
                      struct snp_guest_msg_hdr";

/// `message FILE|HEX`: 96 bytes or the whole page.
pub(super) fn explain(input: &Input) -> Result<Explanation, Failure> {
    let Input { name, bytes, .. } = input;
    if bytes.len() > 4096 {
        return Err(format!(
            "{name}: {} bytes are more than the page that a guest message lies in",
            bytes.len()
        ));
    }
    let header = MessageHeader::parse(bytes).map_err(|error| {
        let at = match error {
            MessageError::Short { .. } => " of 96 bytes",
            MessageError::HeaderVersion { .. } => " at offset 0x31, where 1 stands in a guest message",
            MessageError::HeaderSize { .. } => " at offset 0x32, where a guest message has 96",
            MessageError::MessageSize { .. } => " (offset 0x36)",
            _ => "",
        };
        format!("{name}: {error}{at}")
    })?;
    let dump = Dump(bytes);
    let kind = msg_type::name(header.kind).unwrap_or("no type that is known here");
    let mut explanation = Explanation::new("message", name, header.to_string())
        .with(dump.run(0, 32, "authtag", "AES-256-GCM uses the first 16 bytes"))
        .with(Field::at(0x20, "msg_seqno", header.seqno.to_string(), "makes the initialisation vector; odd in a request"))
        .with(dump.byte(0x30, "algo", algo::name(header.algo).unwrap_or("no algorithm that is known here")))
        .with(dump.byte(0x31, "hdr_version", "version of this header"))
        .with(Field::at(0x32, "hdr_sz", dump.u16(0x32).to_string(), "of this header").unit("bytes"))
        .with(dump.byte(0x34, "msg_type", kind))
        .with(dump.byte(0x35, "msg_version", "version of the message"))
        .with(Field::at(0x36, "msg_sz", header.size_bytes.to_string(), "of the encrypted message").unit("bytes"))
        .with(dump.byte(0x3c, "msg_vmpck", "the key: VMPCK 0 to 3"))
        .advice(
            "Nothing: the firmware authenticates it. KVM reads msg_type alone and takes it on trust: an extended \
             request of type 5 asks userspace for certificates, every other type does not.",
        )
        .source(SOURCE);
    let runs = [(0x28, 8, "rsvd1"), (0x38, 4, "rsvd2"), (0x3d, 35, "rsvd3")];
    explanation
        .reserved
        .extend(runs.into_iter().filter_map(|(at, length, name)| dump.not_zero(at, length, name)));
    if header.vmpck > 3 {
        explanation.reserved.push(format!("msg_vmpck is {}: there are keys 0 to 3", header.vmpck));
    }
    Ok(explanation)
}

/// Whether bytes look like a guest message.
pub(super) fn is_plausible(bytes: &[u8]) -> bool {
    let parsed = MessageHeader::parse(bytes);
    parsed.is_ok_and(|header| header.algo == algo::AES_256_GCM && msg_type::name(header.kind).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[(usize, u8)]) -> Input {
        let mut bytes = vec![0; 96];
        for (at, value) in [(0x20, 1), (0x30, 1), (0x31, 1), (0x32, 96), (0x34, 5), (0x35, 1), (0x36, 96)] {
            bytes[at] = value;
        }
        for (at, value) in parts {
            bytes[*at] = *value;
        }
        Input { name: "message".into(), bytes, is_text: false }
    }

    #[test]
    fn a_report_request_is_recognised_and_reserved_bytes_are_called_out() {
        let explanation = explain(&message(&[])).unwrap();
        assert_eq!(explanation.title, "REPORT_REQ 1 of 96 bytes with VMPCK0");
        assert!(explanation.reserved.is_empty() && is_plausible(&message(&[]).bytes));
        let odd = explain(&message(&[(0x28, 1), (0x3c, 9), (0x5f, 1)])).unwrap();
        assert_eq!(odd.reserved.len(), 3);
    }

    #[test]
    fn another_header_is_an_error_with_its_offset() {
        assert!(explain(&message(&[(0x31, 2)])).unwrap_err().contains("offset 0x31"));
        assert!(explain(&message(&[(0x32, 64)])).unwrap_err().contains("offset 0x32"));
        assert!(explain(&message(&[(0x37, 0xff)])).unwrap_err().contains("0x36"));
        let short = Input { bytes: vec![0; 95], ..message(&[]) };
        assert!(explain(&short).unwrap_err().contains("95 bytes hold no header"));
    }
}
