//! What the service for tests gives for a quote.

/// Where a TD's report has the 64 bytes that the TD chose: `REPORTDATA` of `REPORTMACSTRUCT`.
///
/// Source: Intel 348551 version 1.5, `REPORTMACSTRUCT`.
const REPORT_DATA: std::ops::Range<usize> = 128..192;

/// The first bytes. A quote of a processor starts with its version, 4 or 5, in 16 bits, so nobody takes this for one.
const BANNER: &[u8] = b"SIMULATED quote by exeunt: nobody signed this. Report data follows: ";

/// A quote that is none and says so: a line of text, then the data that the TD put into its report. Of something that is
/// too short for a report everything follows.
#[must_use]
pub fn simulated_quote(report: &[u8]) -> Vec<u8> {
    [BANNER, report.get(REPORT_DATA).unwrap_or(report)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_quote_says_so_and_has_the_data_of_the_report() {
        let report: Vec<u8> = (0..1024u32).map(|index| index.to_le_bytes()[0]).collect();
        let quote = simulated_quote(&report);
        assert!(quote.starts_with(b"SIMULATED"));
        assert!(quote.ends_with(&report[128..192]));
        assert_eq!(quote.len(), BANNER.len() + 64);
        assert!(simulated_quote(b"short").ends_with(b"follows: short"));
    }
}
