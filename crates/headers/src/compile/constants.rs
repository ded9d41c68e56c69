//! The values of macros, as the compiler evaluates them.

use super::{CompileError, Run};
use crate::dwarf;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Macros with their value, and those that have none.
pub(super) struct Evaluated {
    pub(super) values: BTreeMap<String, u64>,
    pub(super) not_constant: Vec<String>,
}

const PREFIXES: [&str; 6] = ["KVM_", "SEV_", "SNP_", "GUEST_MEMFD_", "LINUX_VERSION_CODE", "KVMIO"];

/// The numbers of the boundary, among all that a header defines.
pub(super) fn is_of_interest(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Every macro without parameters that is defined after the headers, with its text.
pub(super) fn macros(run: &Run<'_>, includes: &str) -> Result<BTreeMap<String, String>, CompileError> {
    let listed = run.compile(includes, &["-dM"], "-E")?.map_err(|errors| run.refused(&errors))?;
    let text = String::from_utf8_lossy(&listed);
    let mut macros = BTreeMap::new();
    for line in text.lines() {
        let Some(definition) = line.strip_prefix("#define ") else { continue };
        let (name, value) = definition.split_once(' ').unwrap_or((definition, ""));
        if !name.contains('(') {
            macros.insert(name.to_string(), value.trim().to_string());
        }
    }
    Ok(macros)
}

/// How often the compiler is asked again without the lines that it refused.
///
/// GCC names an undeclared identifier only once, so a second macro with the same fault shows up in the next round.
const ROUNDS: usize = 12;

/// Asks the compiler for the value of each macro of interest. What it refuses is no integer constant.
pub(super) fn evaluate(
    run: &Run<'_>,
    includes: &str,
    macros: &BTreeMap<String, String>,
) -> Result<Evaluated, CompileError> {
    let interesting = macros.iter().filter(|(name, text)| is_of_interest(name) && !text.is_empty());
    let mut names: Vec<&str> = interesting.map(|(name, _)| name.as_str()).collect();
    let mut not_constant = Vec::new();
    // An error is to point at the line of the generated file and not into the macro's definition.
    let options: &[&str] = if run.compiler.is_gcc() {
        &["-ftrack-macro-expansion=0", "-fmax-errors=0"]
    } else {
        &["-ferror-limit=0", "-fno-caret-diagnostics"]
    };
    let first_line = includes.lines().count();
    let mut last = String::new();
    for _ in 0..ROUNDS {
        let mut text = includes.to_string();
        for name in &names {
            // 64 bits hold every macro of the uapi; a negative one is extended. Writing to a string cannot fail.
            let _ = writeln!(text, "const unsigned long long exeunt_{name} = (unsigned long long)({name});");
        }
        let errors = match run.compile(&text, options, "-c")? {
            Ok(object) => {
                let values = dwarf::symbols(&object, "exeunt_").map_err(|source| run.output(source))?;
                return Ok(Evaluated { values, not_constant });
            }
            Err(errors) => errors,
        };
        let refused: Vec<usize> = errors.lines().filter_map(line_of_error).collect();
        let before = names.len();
        let mut line = first_line;
        names.retain(|name| {
            line += 1;
            let keep = !refused.contains(&line);
            if !keep {
                not_constant.push((*name).to_string());
            }
            keep
        });
        last = errors;
        if names.len() == before {
            break;
        }
    }
    Err(run.refused(&last))
}

/// The line of the generated file that an error is about.
fn line_of_error(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("exeunt.c:")?;
    let (number, rest) = rest.split_once(':')?;
    rest.contains("error:").then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_in_the_generated_file_count() {
        assert_eq!(line_of_error("exeunt.c:17:12: error: 'x' undeclared"), Some(17));
        assert_eq!(line_of_error("exeunt.c:17:12: note: each is reported once"), None);
        assert_eq!(line_of_error("linux/kvm.h:17:12: error: no"), None);
        assert_eq!(line_of_error("exeunt.c: In function"), None);
    }
}
