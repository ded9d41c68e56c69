//! Explanations as text: aligned, in 100 columns.

use super::explanation::{Explanation, Field};
use std::fmt::Write as _;

/// Columns of the widest line, if no single word is longer.
const WIDTH: usize = 100;
/// Columns of a raw value before it is broken.
const VALUE_WIDTH: usize = 32;
/// Columns that are left for a meaning at least.
const MEANING_WIDTH: usize = 30;

/// One explanation in full.
pub(super) fn text(explanation: &Explanation) -> String {
    let Explanation { kind, title, fields, reserved, advice, source, .. } = explanation;
    let mut out = String::new();
    labelled(&mut out, &format!("{kind}:"), title);
    if !fields.is_empty() {
        out.push('\n');
        table(&mut out, fields);
        out.push('\n');
    }
    for what in reserved {
        labelled(&mut out, "  reserved  ", what);
    }
    if !advice.is_empty() {
        labelled(&mut out, "  what to do", advice);
    }
    if !source.is_empty() {
        labelled(&mut out, "  source    ", source);
    }
    out
}

/// Several readings of one value, a line each.
pub(super) fn list(input: &str, readings: &[Explanation]) -> String {
    let mut out = format!("{input} can be, the likeliest first:\n\n");
    for Explanation { kind, title, .. } in readings {
        labelled(&mut out, &format!("  {kind:<13}"), title);
    }
    let best = readings.first().map_or("", |reading| reading.kind);
    let _ = writeln!(out, "\nName the kind for the whole of it: exeunt explain {best} {input}");
    out
}

/// A label, and words that hang behind it.
fn labelled(out: &mut String, label: &str, words: &str) {
    let indent = label.chars().count() + 1;
    for (index, line) in wrap(words, WIDTH.saturating_sub(indent)).iter().enumerate() {
        let _ = match index {
            0 => writeln!(out, "{label} {line}"),
            _ => writeln!(out, "{:indent$}{line}", ""),
        };
    }
}

fn table(out: &mut String, fields: &[Field]) {
    let widest = |column: &dyn Fn(&Field) -> usize| fields.iter().map(column).max().unwrap_or(0);
    let offset = widest(&|field| field.offset.chars().count());
    let name = widest(&|field| field.name.chars().count());
    let value = widest(&|field| shown_value(field).chars().count()).min(VALUE_WIDTH);
    // A column that is empty everywhere takes no room.
    let gap = |width: usize| if width == 0 { 0 } else { width + 2 };
    let left = 2 + gap(offset) + gap(name) + gap(value);
    let room = WIDTH.saturating_sub(left).max(MEANING_WIDTH);
    for field in fields {
        let values = break_at(&shown_value(field), VALUE_WIDTH);
        let meanings = wrap(&field.meaning, room);
        for line in 0..values.len().max(meanings.len()) {
            let (first, second) =
                if line == 0 { (field.offset.as_str(), field.name.as_str()) } else { ("", "") };
            let third = values.get(line).map_or("", String::as_str);
            let last = meanings.get(line).map_or("", String::as_str);
            let mut row = String::from("  ");
            for (text, width) in [(first, offset), (second, name), (third, value)] {
                let _ = write!(row, "{text:<0$}", gap(width));
            }
            let _ = writeln!(out, "{}", format!("{row}{last}").trim_end());
        }
    }
}

fn shown_value(field: &Field) -> String {
    match field.unit {
        Some(unit) => format!("{} {unit}", field.value),
        None => field.value.clone(),
    }
}

/// Words in lines of at most `width` columns. A longer word has a line of its own.
fn wrap(words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

/// A value in pieces: at a space if there is one, and between any two digits otherwise.
fn break_at(value: &str, width: usize) -> Vec<String> {
    wrap(value, width)
        .iter()
        .flat_map(|line| {
            let letters: Vec<char> = line.chars().collect();
            let pieces: Vec<String> = letters.chunks(width).map(|piece| piece.iter().collect()).collect();
            if pieces.is_empty() { vec![String::new()] } else { pieces }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_the_page_and_columns_stand_below_each_other() {
        let explanation = Explanation::new("kind", "1", "word ".repeat(60))
            .with(Field::at(0x20, "measurement", "ab".repeat(48), "meaning ".repeat(30)))
            .with(Field::at(0x100, "x", "3", "short").unit("4 KiB pages"))
            .advice("do this ".repeat(30))
            .source("there");
        let text = text(&explanation);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
        let columns: Vec<_> = ["meaning meaning", "short"]
            .iter()
            .map(|word| text.lines().find_map(|line| line.find(word)))
            .collect();
        assert_eq!(columns[0], columns[1]);
        assert_eq!(text.matches("abab").count(), 48 / 2, "the value is shown in full");
    }
}
