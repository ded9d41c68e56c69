//! Names that a mistyped one may have meant.

/// At most three of `known` that are near to `name`, nearest first.
#[must_use]
pub fn near<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let wanted = name.to_lowercase();
    let limit = (wanted.len() / 3).max(2);
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|candidate| {
            let last = candidate.rsplit('.').next().unwrap_or(candidate);
            let whole = distance(&wanted, &candidate.to_lowercase());
            let part = distance(&wanted, &last.to_lowercase());
            let within = wanted.len() >= 3 && candidate.contains(&wanted);
            let best = if within { 1 } else { whole.min(part) };
            (best <= limit).then_some((best, candidate))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

/// How many letters have to be put in, taken out or changed.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut next = vec![index + 1];
        for (column, other) in to.iter().enumerate() {
            let change = row.get(column).copied().unwrap_or_default() + usize::from(letter != *other);
            let take = row.get(column + 1).copied().unwrap_or_default() + 1;
            let put = next.last().copied().unwrap_or_default() + 1;
            next.push(change.min(take).min(put));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first_and_far_ones_not_at_all() {
        let known = ["kvm_run", "kvm_run.system_event", "kvm_run.hypercall", "kvm_vcpu_events"];
        assert_eq!(near("sytem_event", known), ["kvm_run.system_event"]);
        assert_eq!(near("hyper", known), ["kvm_run.hypercall"]);
        assert_eq!(near("kvm_vcpu_event", known).first(), Some(&"kvm_vcpu_events"));
        assert!(near("zebra", known).is_empty());
    }

    #[test]
    fn distance_counts_each_edit() {
        for (from, to, edits) in [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3)] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }
}
