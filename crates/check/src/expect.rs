//! Holding what was seen against what must be seen.

use crate::scenario::Expect;
use crate::timeline::Event;

/// What a run came to.
pub(crate) struct Seen<'a> {
    /// The keyword of the end.
    pub(crate) end: &'a str,
    /// The end in words.
    pub(crate) end_text: &'a str,
    /// Names of the exits.
    pub(crate) exits: &'a [String],
    /// Everything.
    pub(crate) events: &'a [Event],
}

/// One line for each expectation that is not met.
pub(crate) fn unmet(expect: &Expect, seen: &Seen<'_>) -> Vec<String> {
    let mut unmet = Vec::new();
    if let Some(end) = expect.end.as_deref().filter(|end| *end != seen.end) {
        unmet.push(format!("the end should be '{end}' and is '{}': {}", seen.end, seen.end_text));
    }
    if let Some(part) = expect.end_says.as_deref().filter(|part| !seen.end_text.contains(part)) {
        unmet.push(format!("the end should say '{part}' and says '{}'", seen.end_text));
    }
    if let Some(exits) = expect.exits.as_ref().filter(|exits| *exits != seen.exits) {
        unmet.push(format!("the exits should be {} and are {}", exits.join(", "), seen.exits.join(", ")));
    }
    let saw = seen.events.iter().filter_map(|event| match event {
        Event::Saw { text, .. } => Some(text.as_str()),
        _ => None,
    });
    unmet.extend(in_order(&expect.saw, saw, "the guest should see"));
    let read = seen.events.iter().filter_map(|event| match event {
        Event::Read { text, .. } => Some(text.as_str()),
        _ => None,
    });
    unmet.extend(in_order(&expect.read, read, "a reader should read"));
    unmet
}

/// The first part that does not follow the parts before it.
fn in_order<'a>(parts: &[String], mut texts: impl Iterator<Item = &'a str>, what: &str) -> Option<String> {
    let missing = parts.iter().find(|part| !texts.any(|text| text.contains(part.as_str())))?;
    Some(format!("{what} '{missing}' and does not, or not in this order"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(expect: &Expect) -> usize {
        let saw = |text: &str| Event::Saw { vcpu: 0, text: text.into() };
        let events = [saw("one"), Event::Vmm { text: "three".into() }, saw("two")];
        let exits = ["HLT".to_string()];
        unmet(expect, &Seen { end: "halted", end_text: "the guest halted", exits: &exits, events: &events })
            .len()
    }

    #[test]
    fn each_expectation_is_met_or_named() {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let good = Expect {
            end: Some("halted".into()),
            end_says: Some("halt".into()),
            exits: Some(strings(&["HLT"])),
            saw: strings(&["on", "tw"]),
            read: Vec::new(),
        };
        assert_eq!(seen(&good), 0);
        assert_eq!(seen(&Expect { end: Some("shutdown".into()), ..good.clone() }), 1);
        assert_eq!(seen(&Expect { end_says: Some("triple".into()), ..good.clone() }), 1);
        assert_eq!(seen(&Expect { exits: Some(Vec::new()), ..good.clone() }), 1);
        assert_eq!(seen(&Expect { saw: strings(&["two", "one"]), ..good.clone() }), 1, "order counts");
        assert_eq!(
            seen(&Expect { saw: strings(&["three"]), ..good.clone() }),
            1,
            "only the guest's words count"
        );
        assert_eq!(seen(&Expect { read: strings(&["flags"]), ..good }), 1);
    }
}
