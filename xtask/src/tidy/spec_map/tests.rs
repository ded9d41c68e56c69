use super::super::tests::{fails_at, passes};
use super::{PATH, check};

const ITEM: (&str, &str) =
    ("crates/abi/src/kvm/run/memory_fault.rs", "pub struct MemoryFault { pub gpa: u64 }\n");
const TEST: (&str, &str) = ("crates/abi/src/kvm/run/tests.rs", "fn size_is_24() {}\n");
const HEAD: &str = "# Map\n\n| clause | item | test |\n|---|---|---|\n";
const ITEM_CELL: &str = "`crates/abi/src/kvm/run/memory_fault.rs` · `MemoryFault`";
const TEST_CELL: &str = "`crates/abi/src/kvm/run/tests.rs` · `size_is_24`";

/// The map with one row.
fn map(clause: &str, item: &str, test: &str) -> String {
    format!("{HEAD}| {clause} | {item} | {test} |\n")
}

#[track_caller]
fn row_fails(row: &str) {
    fails_at(check, &[ITEM, TEST, (PATH, row)], &["docs/spec-map.md:5"]);
}

#[test]
fn links_that_lead_somewhere_pass() {
    for (item, test) in [(ITEM_CELL, TEST_CELL), (ITEM_CELL, "-")] {
        passes(check, &[ITEM, TEST, (PATH, &map("kvm api 6.12 a \\| b", item, test))]);
    }
    let path = ITEM_CELL.replace("`MemoryFault`", "`MemoryFault::gpa`");
    passes(check, &[ITEM, TEST, (PATH, &map("c", &path, "-"))]);
}

#[test]
fn a_link_to_no_file_fails() {
    row_fails(&map("c", &ITEM_CELL.replace("memory_fault.rs", "gone.rs"), TEST_CELL));
    row_fails(&map("c", ITEM_CELL, &TEST_CELL.replace("tests.rs", "gone.rs")));
}

#[test]
fn a_link_to_no_identifier_or_to_a_part_of_one_fails() {
    for name in ["`Gone`", "`MemoryFaul`", "`emoryFault`", "`MemoryFault::size`", "``", "`a b`"] {
        row_fails(&map("c", &ITEM_CELL.replace("`MemoryFault`", name), "-"));
    }
}

#[test]
fn a_malformed_row_fails() {
    row_fails(&map("", ITEM_CELL, "-"));
    row_fails(&map("c", "-", "-"));
    row_fails(&map("c", "MemoryFault", "-"));
    row_fails(&map("c", ITEM_CELL, ""));
    row_fails(&format!("{HEAD}| c | {ITEM_CELL} |\n"));
}

#[test]
fn a_second_table_is_followed_and_other_tables_are_not() {
    let two =
        format!("{}\n| a | b |\n|---|---|\n| x | y |\n\n{}", map("c", ITEM_CELL, "-"), map("d", "gone", "-"));
    fails_at(check, &[ITEM, (PATH, &two)], &["docs/spec-map.md:15"]);
}

#[test]
fn a_missing_map_or_table_fails() {
    fails_at(check, &[ITEM], &["docs/spec-map.md:1"]);
    fails_at(check, &[(PATH, "# Map\n")], &["docs/spec-map.md:1"]);
}

#[test]
fn a_test_that_is_only_a_word_of_its_file_fails() {
    let mention = (TEST.0, "// size_is_24 was here\nfn size_is_240() {}\n");
    let row = map("c", ITEM_CELL, TEST_CELL);
    fails_at(check, &[ITEM, mention, (PATH, &row)], &["docs/spec-map.md:5"]);
}
