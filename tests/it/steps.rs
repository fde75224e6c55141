//! The numbered steps of the commands, their failpoints, the crash table in ARCHITECTURE.md and the crash tests name
//! the same steps.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::support::root;
use crate::tidy::sources;

/// A line of a worker's file that belongs to a numbered step.
#[derive(Debug)]
enum Mark {
    /// `// 2. Consume the login. …`
    Comment { number: u32 },
    /// `fail_point!("exchange_2_login_consumed");`
    Failpoint { name: String },
}

fn marks(text: &str) -> Vec<Mark> {
    let mark = |line: &str| {
        let line = line.trim();
        // A failpoint with a closure replaces a value, and is no step.
        if let Some(name) = line.strip_prefix("fail_point!(\"").and_then(|rest| rest.strip_suffix("\");")) {
            return Some(Mark::Failpoint { name: name.to_owned() });
        }
        let (number, _) = line.strip_prefix("// ")?.split_once(". ")?;
        Some(Mark::Comment { number: number.parse().ok()? })
    };
    text.lines().filter_map(mark).collect()
}

/// The number of a failpoint in the file of that name.
fn number(name: &str, path: &Path) -> Option<u32> {
    let file = path.file_stem()?.to_str()?;
    let (number, step) = name.strip_prefix(file)?.strip_prefix('_')?.split_once('_')?;
    number.parse().ok().filter(|_| !step.is_empty())
}

fn steps_of_worker() -> Vec<(PathBuf, Vec<Mark>)> {
    let files = sources("src").into_iter().filter(|(path, _)| path.starts_with(root().join("src/worker")));
    let files = files.map(|(path, text)| (path, marks(&text))).filter(|(_, marks)| !marks.is_empty());
    files.collect()
}

/// All failpoints at which a process may end, those outside numbered steps included.
fn failpoints() -> Vec<String> {
    let marks = sources("src").into_iter().flat_map(|(_, text)| marks(&text));
    let names = marks.filter_map(|mark| match mark {
        Mark::Failpoint { name } => Some(name),
        Mark::Comment { .. } => None,
    });
    names.collect()
}

#[test]
fn each_numbered_step_has_its_failpoint_after_it() {
    let files = steps_of_worker();
    let numbered: BTreeSet<&str> = files.iter().filter_map(|(path, _)| path.file_stem()?.to_str()).collect();
    let expected = ["apply", "configure", "delivery", "exchange", "postpone", "refresh", "revoke"];
    assert_eq!(numbered, BTreeSet::from(expected));
    for (path, marks) in &files {
        let (mut last, mut commented) = (0, false);
        for mark in marks {
            match mark {
                Mark::Comment { number } => {
                    assert_eq!((*number, commented), (last + 1, false), "{}: {marks:?}", path.display());
                    (last, commented) = (*number, true);
                }
                Mark::Failpoint { name } => {
                    assert_eq!((number(name, path), commented), (Some(last), true), "{}: {name}", path.display());
                    commented = false;
                }
            }
        }
        assert!(!commented, "{}: step {last} has no failpoint", path.display());
    }
}

#[test]
fn the_crash_table_has_a_row_for_each_failpoint() {
    let text = read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let (_, section) = text.split_once("## Recovery after a crash").expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let (rows, steps): (Vec<&str>, Vec<String>) = (rows.collect(), failpoints());
    assert_eq!(rows.iter().copied().collect::<BTreeSet<_>>(), steps.iter().map(String::as_str).collect());
    assert_eq!(rows.len(), steps.len(), "each step has one row");
}

#[test]
fn a_test_crashes_a_worker_after_each_step() {
    let tests: String = sources("tests/it").into_iter().map(|(_, text)| text).collect();
    let untested: Vec<String> =
        failpoints().into_iter().filter(|name| !tests.contains(&format!("\"{name}\""))).collect();
    assert_eq!(untested, [] as [&str; 0], "no test kills or stops a worker after these steps");
}
