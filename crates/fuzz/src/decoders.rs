//! Decoders: what is understood survives the way back, and what is not is refused.

use exeunt_abi::kvm::events::VcpuEvents;
use exeunt_abi::kvm::ioctl::Ioctl;
use exeunt_abi::kvm::run::{RunPage, UNION_BYTES};
use exeunt_abi::{Arch, Dialect, Errno, Kernel};
use exeunt_proto::certs::Table;
use exeunt_proto::conversion::map_gpa_range;
use exeunt_proto::exit::{Words, decode, encode};
use exeunt_proto::ghcb::{GhcbPage, MessageHeader, MsrRequest, MsrResponse, Outcome, PscEntry, PscRequest};
use exeunt_proto::ghci::{FatalError, Quote, TdVmCall};
use exeunt_proto::report::Report;
use exeunt_proto::termination::SevTermination;
use exeunt_proto::{events, psci, sbi};
use zerocopy::FromBytes;

/// Words of the input, zero behind its end.
pub(crate) struct Words64<'a>(pub(crate) &'a [u8]);

impl Words64<'_> {
    pub(crate) fn next(&mut self) -> u64 {
        let mut word = [0; 8];
        let taken = self.0.len().min(8);
        let (head, rest) = self.0.split_at(taken);
        word[..taken].copy_from_slice(head);
        self.0 = rest;
        u64::from_le_bytes(word)
    }

    fn take<const N: usize>(&mut self) -> [u64; N] {
        std::array::from_fn(|_| self.next())
    }
}

/// A kernel out of a number.
pub(crate) fn kernel(number: u64) -> Kernel {
    let dialect = Dialect::all().nth(usize::try_from(number % 10).unwrap_or(0)).unwrap_or_default();
    let arch = if number & 0x80 == 0 { Arch::X86 } else { Arch::Arm64 };
    Kernel { dialect, arch }
}

pub(crate) fn run_page(data: &[u8]) {
    let Some(([kernel_number, errno, reason, ..], union)) = data.split_first_chunk::<4>() else { return };
    let kernel = kernel(u64::from(*kernel_number));
    let entered = if *errno == 0 { Ok(()) } else { Err(Errno(i32::from(*errno))) };
    let mut page = RunPage::zeroed();
    page.exit_reason = u32::from(*reason);
    page.set_bytes(0, union);
    let Ok(exit) = decode(entered, &page, kernel) else { return };
    let mut again = RunPage::zeroed();
    again.exit = [0x5a; UNION_BYTES];
    let entered = encode(&exit, kernel, &mut again);
    assert_eq!(decode(entered, &again, kernel), Ok(exit));
}

pub(crate) fn certs(data: &[u8]) {
    let Ok(table) = Table::parse(data) else { return };
    let total: usize = table.certificates().map(|certificate| certificate.bytes.len()).max().unwrap_or(0);
    assert!(total <= data.len());
}

pub(crate) fn ghcb_page(data: &[u8]) {
    let mut page = [0; 4096];
    for (to, from) in page.iter_mut().zip(data) {
        *to = *from;
    }
    let decoded = GhcbPage::decode(&page);
    let _ = (decoded.unnamed_bits(), format!("{decoded:?}"));
    let [code, info_1, info_2] =
        [decoded.exit_code, decoded.exit_info_1, decoded.exit_info_2].map(Option::unwrap_or_default);
    assert!(!format!("{:?}", Outcome::decode(code, info_1, info_2)).is_empty());
}

pub(crate) fn psc(data: &[u8]) {
    let Ok(request) = PscRequest::parse(data) else { return };
    let mut count = 0usize;
    for (_, entry) in request.entries() {
        count += 1;
        if let Ok(entry) = PscEntry::decode(entry) {
            let _ = entry.conversion();
        }
    }
    assert!(count * 8 <= data.len(), "{count} entries out of {} bytes", data.len());
}

/// Everything that is decoded from a few words.
pub(crate) fn words(data: &[u8]) {
    let mut words = Words64(data);
    let [value, a, b] = words.take();
    let _ = MsrRequest::decode(value);
    if let response @ (MsrResponse::SevInfo { .. } | MsrResponse::Cpuid { .. }) = MsrResponse::decode(value) {
        assert_eq!(MsrResponse::decode(response.encode()), response);
    }
    assert!(!SevTermination::from_msr(value).to_string().is_empty());
    let _ = format!("{}", Outcome::decode(value, a, b));
    if let Ok(conversion) = map_gpa_range([value, a, b]) {
        assert!(conversion.range.gpa().0.checked_add(conversion.range.bytes()).is_some());
    }
    let number = Ioctl(u32::try_from(value & 0xffff_ffff).unwrap_or(0));
    let _ = (number.parts(), number.name(), number.known());
    let _ = format!("{:?}", TdVmCall::decode(words.take()));
    let _ = psci::PsciCall::decode(words.take()).event();
    let _ = sbi::SbiCall::decode(value, a, words.take()).event();
    if let Some(fatal) = FatalError::from_words(&Words::from_slice(&words.take::<16>())) {
        assert!(fatal.text().len() <= 64);
    }
}

pub(crate) fn report(data: &[u8]) {
    for parsed in [Report::parse(data), Report::parse_response(data)].into_iter().flatten() {
        if let Some(known) = parsed.known() {
            assert!(known.signed_bytes().len() <= parsed.bytes().len());
            let _ = (known.cpuid(), known.mitigations(), known.signing_key(), known.chip_id());
        }
    }
}

/// A guest message, a quote, a vCPU's events.
pub(crate) fn messages(data: &[u8]) {
    let _ = MessageHeader::parse(data);
    let _ = Quote::parse(data);
    if let Ok((read, _)) = VcpuEvents::read_from_prefix(data) {
        assert_eq!(events::triple_fault(&read).is_some(), read.flags & 0x20 != 0);
    }
}

pub(crate) fn scenario(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = exeunt_check::scenario::parse("fuzz", text) {
        assert_eq!(error.to_string().lines().count(), 1, "one line: {error}");
    }
}
