//! `docs/spec-map.md` says which item implements a clause of a specification and which test holds it there.
//! A map that points at nothing is worse than none, so each link is followed.

use super::Finding;
use super::tree::Tree;

pub(super) const HOLDS: &str = "\
    each row of docs/spec-map.md, `clause | item | test`, \
    points at files and identifiers that exist; the test is a function";

const PATH: &str = "docs/spec-map.md";
const HEADER: [&str; 3] = ["clause", "item", "test"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(map) = tree.get(PATH) else {
        return vec![Finding::new(PATH, 1, "the file is missing")];
    };
    let mut findings = Vec::new();
    let mut tables = 0_usize;
    let mut in_table = false;
    for (index, line) in map.text.lines().enumerate() {
        let line = line.trim();
        if !line.starts_with('|') {
            in_table = false;
            continue;
        }
        let cells = cells(line);
        if cells.iter().map(|cell| cell.to_lowercase()).eq(HEADER) {
            tables += 1;
            in_table = true;
        } else if in_table && !is_ruler(&cells) {
            let messages = judge(tree, &cells).into_iter();
            findings.extend(messages.map(|message| Finding::new(PATH, index + 1, message)));
        }
    }
    if tables == 0 {
        findings.push(Finding::new(PATH, 1, "no table with the columns `clause | item | test`"));
    }
    findings
}

/// The cells of one row, trimmed. A pipe after a backslash is part of its cell.
fn cells(row: &str) -> Vec<String> {
    let inner = row.strip_prefix('|').unwrap_or(row);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for letter in inner.chars() {
        if letter == '|' && !escaped {
            cells.push(String::new());
        } else if let Some(cell) = cells.last_mut() {
            cell.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// The line of dashes below the header.
fn is_ruler(cells: &[String]) -> bool {
    let dashes = |cell: &String| cell.contains('-') && cell.chars().all(|letter| "-: ".contains(letter));
    cells.len() > 1 && cells.iter().all(dashes) && cells.iter().any(|cell| cell.len() > 1)
}

fn judge(tree: &Tree, cells: &[String]) -> Vec<String> {
    let [clause, item, test] = cells else {
        return vec![format!("a row has 3 cells, this one has {}", cells.len())];
    };
    let mut messages = Vec::new();
    if clause.is_empty() {
        messages.push("the clause is empty".to_owned());
    }
    messages.extend(follow(tree, item).err().map(|problem| format!("item of `{clause}`: {problem}")));
    if test != "-" {
        let problem = follow(tree, test).and_then(|()| is_function(tree, test)).err();
        messages.extend(problem.map(|problem| format!("test of `{clause}`: {problem}")));
    }
    messages
}

/// A test is a function of the file, not a word in one of its comments. The link has been followed.
fn is_function(tree: &Tree, link: &str) -> Result<(), String> {
    let Some((path, name)) = link.split_once(" · ") else { return Ok(()) };
    let (path, name) = (path.trim_matches('`'), name.trim_matches('`'));
    let text = tree.get(path).map_or("", |file| &file.text);
    if text.contains(&format!("fn {name}(")) {
        return Ok(());
    }
    Err(format!("{path} has no function `{name}`"))
}

/// Follows one link: a path in backticks, a middle dot, an identifier in backticks.
fn follow(tree: &Tree, link: &str) -> Result<(), String> {
    let malformed =
        || format!("`{link}` is not a path and an identifier, each in backticks, with ` · ` between");
    let (path, name) = link.split_once(" · ").ok_or_else(malformed)?;
    let path = quoted(path).ok_or_else(malformed)?;
    let name = quoted(name).ok_or_else(malformed)?;
    let file = tree.get(path).ok_or_else(|| format!("there is no file {path}"))?;
    for word in name.split("::") {
        let is_name = !word.is_empty() && word.chars().all(is_word_letter);
        if !is_name {
            return Err(format!("`{name}` is not an identifier"));
        }
        if !file.text.split(|letter| !is_word_letter(letter)).any(|found| found == word) {
            return Err(format!("{path} has no word `{word}`"));
        }
    }
    Ok(())
}

fn quoted(text: &str) -> Option<&str> {
    text.trim().strip_prefix('`')?.strip_suffix('`').filter(|inner| !inner.contains('`'))
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests;
