//! Hex digits as people paste them: plain, or with the offsets and the ASCII column of a dump.

use crate::Failure;

/// Bytes from text. Accepted are digits with or without `0x`, spaces, commas, colons and line breaks between bytes, and
/// the output of `xxd`, `hexdump -C` and the kernel's hex dumps. Bytes come in the order of the digits.
///
/// # Errors
///
/// One line that names the line and column.
pub(super) fn parse(text: &str) -> Result<Vec<u8>, Failure> {
    let lines = || text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(not_blank);
    let is_dump = lines().any(|(_, line)| row(line).is_some());
    let mut bytes = Vec::new();
    let mut rows = Rows::default();
    for (number, line) in lines() {
        if is_dump {
            rows.add(number, line, &mut bytes)?;
        } else {
            digits(number, line, 0, &mut bytes)?;
        }
    }
    if bytes.is_empty() {
        return Err("there are no hex digits".into());
    }
    Ok(bytes)
}

fn not_blank((_, line): &(usize, &str)) -> bool {
    !line.trim().is_empty()
}

/// A row of a dump: its offset, where its digits begin and where they end, in bytes of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    offset: u64,
    start: usize,
    end: usize,
}

/// Takes a line for a row of a dump: an offset of 4 to 16 digits with a colon, or of 7 and more followed by two spaces.
pub(super) fn row(line: &str) -> Option<Row> {
    let body = line.trim_start();
    let lead = line.len() - body.len();
    let digits = body.strip_prefix("0x").unwrap_or(body);
    let length = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    let after = body.len() - digits.len() + length;
    let rest = body.get(after..)?;
    let offset = u64::from_str_radix(digits.get(..length)?, 16).ok()?;
    let is_xxd = length >= 4 && (rest.starts_with(": ") || rest.starts_with(":\t"));
    let is_hexdump = length >= 7 && rest.starts_with("  ");
    if !is_xxd && !is_hexdump {
        return None;
    }
    let gap = rest.len() - rest.trim_start_matches([':', ' ', '\t']).len();
    let start = lead + after + gap;
    let text = line.get(start..)?;
    // The ASCII column follows two spaces in `xxd`, and a bar in `hexdump -C`, which has two spaces in the middle too.
    let end = match text.find('|') {
        Some(bar) if !is_xxd => bar,
        _ if is_xxd => text.find("  ").unwrap_or(text.len()),
        _ => text.len(),
    };
    Some(Row { offset, start, end: start + end })
}

#[derive(Default)]
struct Rows {
    /// The offset that the first row has.
    first: Option<u64>,
    /// Bytes of the last row, and whether a `*` says that they repeat.
    last: Vec<u8>,
    repeats: bool,
}

impl Rows {
    fn add(&mut self, number: usize, line: &str, bytes: &mut Vec<u8>) -> Result<(), Failure> {
        if line.trim() == "*" {
            self.repeats = true;
            return Ok(());
        }
        let (offset, text, start) = match row(line) {
            Some(row) => (row.offset, line.get(..row.end).unwrap_or(line), row.start),
            // The last line of `hexdump -C` is the length alone.
            None => match u64::from_str_radix(line.trim(), 16) {
                Ok(offset) => (offset, "", 0),
                Err(_) => return Err(format!("line {number}: no offset, unlike the other lines")),
            },
        };
        let base = *self.first.get_or_insert(offset);
        self.fill(offset.saturating_sub(base), bytes);
        let expected = base.saturating_add(bytes.len() as u64);
        if offset != expected {
            return Err(format!("line {number}: offset {offset:#x}, where {expected:#x} follows"));
        }
        let before = bytes.len();
        digits(number, text, start, bytes)?;
        self.last = bytes.get(before..).unwrap_or_default().to_vec();
        Ok(())
    }

    /// Repeats the last row up to `to`, as a `*` asks for.
    fn fill(&mut self, to: u64, bytes: &mut Vec<u8>) {
        let limit = super::input::MAX_BYTES;
        while self.repeats && !self.last.is_empty() && (bytes.len() as u64) < to && bytes.len() <= limit {
            bytes.extend_from_slice(&self.last);
        }
        self.repeats = false;
    }
}

/// Reads the bytes of a line from a column on. Each run of digits holds whole bytes.
fn digits(number: usize, line: &str, from: usize, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let separators = [' ', '\t', ',', ':', '\r'];
    let mut column = from;
    for word in line.get(from..).unwrap_or_default().split(separators) {
        let hex = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
        let start = column + word.len() - hex.len();
        if let Some((at, bad)) = hex.char_indices().find(|(_, letter)| !letter.is_ascii_hexdigit()) {
            let bad = bad.escape_debug();
            return Err(format!("line {number}, column {}: '{bad}' is no hex digit", start + at + 1));
        }
        if hex.len() % 2 != 0 {
            let count = hex.len();
            return Err(format!(
                "line {number}, column {}: {count} hex digits are no whole bytes",
                start + 1
            ));
        }
        bytes.extend(hex.as_bytes().chunks_exact(2).filter_map(|pair| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok()
        }));
        column += word.len() + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
