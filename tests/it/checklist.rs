//! The table in `docs/security.md`: each line of the checklist, and the tests that check it.
//!
//! A test belongs to the lines that its name begins with (`d3_e8_…` to D3 and E8). `UPDATE=1 cargo test --features
//! failpoints --test it checklist` regenerates the table. Listed tests with other names stay, as long as they exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_to_string, write};

use crate::support::root;
use crate::tidy::sources;

/// Number of lines in each part of the checklist.
const PARTS: [(char, usize); 8] = [('A', 4), ('B', 9), ('C', 7), ('D', 9), ('E', 9), ('F', 5), ('G', 3), ('H', 20)];
const DOCUMENT: &str = "docs/security.md";

fn lines() -> Vec<String> {
    PARTS.into_iter().flat_map(|(part, most)| (1..=most).map(move |number| format!("{part}{number}"))).collect()
}

/// The names of all tests, those of the library, the program and both suites.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in ["src", "tests"].into_iter().flat_map(sources) {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            match function.and_then(|rest| rest.split_once('(')) {
                Some((name, _)) if is_test => {
                    names.insert(name.to_owned());
                    is_test = false;
                }
                Some(_) => is_test = false,
                None => is_test = is_test || line == "#[test]" || line.starts_with("#[tokio::test"),
            }
        }
    }
    names
}

/// The lines that a test's name begins with.
fn lines_of(test: &str) -> Vec<String> {
    let known = lines();
    test.split('_').map(str::to_uppercase).take_while(|part| known.contains(part)).collect()
}

/// The rows of the map: a line's number, its requirement and its tests.
fn rows(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut rows = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [number, says, tests] = cells[..] else { continue };
        if lines().iter().any(|known| known == number) {
            let tests = tests.split(", ").map(|test| test.trim_matches('`').to_owned()).filter(|test| test != "–");
            let before = rows.insert(number.to_owned(), (says.to_owned(), tests.collect()));
            assert!(before.is_none(), "{number} is twice in {DOCUMENT}");
        }
    }
    rows
}

fn row(number: &str, says: &str, tests: &BTreeSet<String>) -> String {
    let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
    let tests = if tests.is_empty() { "–".to_owned() } else { tests.join(", ") };
    format!("| {number} | {says} | {tests} |")
}

/// The expected document.
fn updated(text: &str, tests: &BTreeSet<String>) -> String {
    let rows = rows(text);
    let mut updated: Vec<String> = text.lines().map(str::to_owned).collect();
    for (number, (says, named)) in &rows {
        let mut held_by: BTreeSet<String> = named.intersection(tests).cloned().collect();
        held_by.extend(tests.iter().filter(|test| lines_of(test).contains(number)).cloned());
        let begin = format!("| {number} | ");
        if let Some(line) = updated.iter_mut().find(|line| line.starts_with(&begin)) {
            *line = row(number, says, &held_by);
        }
    }
    updated.join("\n") + "\n"
}

#[test]
fn every_line_of_the_checklist_is_mapped_to_its_tests() {
    let path = root().join(DOCUMENT);
    let text = read_to_string(&path).expect("the document");
    let (tests, rows) = (tests(), rows(&text));
    let missing: Vec<String> = lines().into_iter().filter(|line| !rows.contains_key(line)).collect();
    assert!(missing.is_empty(), "lines without a row in {DOCUMENT}: {missing:?}");

    let updated = updated(&text, &tests);
    if std::env::var_os("UPDATE").is_some() {
        write(&path, &updated).expect("the document can be written");
    } else {
        let old: Vec<&str> = text.lines().collect();
        let changed: Vec<&str> = updated.lines().filter(|line| !old.contains(line)).collect();
        assert!(changed.is_empty(), "in {DOCUMENT} put (UPDATE=1 does it):\n{}", changed.join("\n"));
    }
    let numbers = updated.lines().filter_map(|line| line.strip_suffix(" | – |")?.strip_prefix("| ")?.split(' ').next());
    assert_eq!(numbers.collect::<Vec<_>>(), [""; 0], "lines that no test holds");
}

#[test]
fn the_map_reports_its_own_errors() {
    let tests: BTreeSet<String> = ["a1_one", "a1_b2_two", "c1_three", "other"].map(str::to_owned).into();
    let text = "| A1 | says | `a1_gone`, `other` |\n| B2 | that | – |\n| C1 | x | `c1_three` |\n| none | of | ours |\n";
    let expected = "| A1 | says | `a1_b2_two`, `a1_one`, `other` |\n| B2 | that | `a1_b2_two` |\n| C1 | x | `c1_three` |\n\
                    | none | of | ours |\n";
    assert_eq!(updated(text, &tests), expected);
    assert_eq!(lines_of("d3_e8_a_stopped_worker"), ["D3", "E8"]);
    assert_eq!(lines_of("a9_no_line"), [""; 0]);
    assert!(self::tests().contains("the_map_reports_its_own_errors"));
}
