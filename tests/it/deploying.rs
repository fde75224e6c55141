//! The page "Deploying": each row names settings and tests that exist.

use std::collections::BTreeSet;

use regex::Regex;

use crate::support::root;
use crate::tidy::sources;

/// Situations that the page must have.
const SITUATIONS: [&str; 11] = [
    "Kubernetes",
    "systemd",
    "nginx",
    "Envoy",
    "cloud balancers",
    "egress",
    "IPv6 only",
    "certificates",
    "NATS credentials",
    "storage",
    "clocks",
];

fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all functions.
fn functions() -> BTreeSet<String> {
    let name = Regex::new(r"fn ([a-z][a-z0-9_]*)").expect("a pattern");
    let texts = ["src", "tests"].into_iter().flat_map(sources);
    texts.flat_map(|(_, text)| name.captures_iter(&text).map(|it| it[1].to_owned()).collect::<Vec<_>>()).collect()
}

/// The texts in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_deployment_has_settings_and_tests_that_exist() {
    let document = text_of("docs/operations.md");
    let page = document.split("\n## Deploying\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: Vec<Vec<&str>> = page
        .expect("the page is there")
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("---"))
        .skip(1)
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for situation in SITUATIONS {
        assert!(rows.iter().any(|row| row[0].contains(situation)), "no row for {situation}");
    }
    let (functions, settings) = (functions(), text_of("config/default.toml").parse::<toml::Table>());
    let settings = settings.expect("the defaults are TOML");
    let key = Regex::new(r"^([a-z]+)\.([a-z0-9_]+)").expect("a pattern");
    for row in rows {
        let [place, how, tests] = row[..] else { panic!("three cells: {row:?}") };
        let tests: Vec<&str> = quoted(tests).collect();
        assert!(!tests.is_empty(), "{place}: no test");
        for test in tests {
            let is_file = test.contains('/');
            let exists = if is_file { root().join("src").join(test).exists() } else { functions.contains(test) };
            assert!(exists, "{place}: there is no test {test}");
        }
        for setting in quoted(how).filter_map(|text| key.captures(text)) {
            let Some(section) = settings.get(&setting[1]) else { continue };
            assert!(section.get(&setting[2]).is_some(), "{place}: there is no setting {}", &setting[0]);
        }
    }
}

/// The numbers of the list of what operators meet, each with its test.
#[test]
fn each_number_of_operators_has_its_test() {
    let functions = functions();
    for number in 1..=21 {
        let start = format!("o{number}_");
        assert!(functions.iter().any(|name| name.starts_with(&start)), "no test {start}…");
    }
}
