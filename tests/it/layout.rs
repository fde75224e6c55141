//! The layout that ARCHITECTURE.md and `src/lib.rs` promise: who may import whom, and how small things are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::Path;

use crate::support::root;
use crate::tidy::sources;

/// Most files that a callback passes between the gateway's listener and the KV write.
const MAX_CALLBACK_FILES: usize = 22;
/// Most closures in `src` that discard the cause of an error. Each has its reason beside it.
const MAX_DISCARDED_CAUSES: usize = 15;
/// Largest median of lines per file in `src`.
const MAX_MEDIAN_LINES: usize = 125;

/// Modules without IO, async, clock and randomness.
const CORE: [&str; 16] = [
    "call",
    "command",
    "connection",
    "event",
    "fair_queue",
    "foreign_text",
    "integration",
    "login",
    "oauth",
    "outcome",
    "permits",
    "rights",
    "secret",
    "signed",
    "subject",
    "webhook",
];

/// Top-level modules that a source file imports.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        let list = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(list, _)| list);
        for item in list.unwrap_or(rest).split(',').take(if list.is_some() { usize::MAX } else { 1 }) {
            let name = item.trim().split(|char: char| !char.is_alphanumeric() && char != '_').next();
            found.extend(name.map(str::to_owned));
        }
    }
    found
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).expect("a source file");
    let first = relative.iter().next().expect("a file has a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[track_caller]
fn assert_no_imports(of: &[&str], forbidden: &[&str]) {
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        if of.contains(&module_of(&path).as_str()) {
            let found: Vec<String> = imports(&text).into_iter().filter(|it| forbidden.contains(&it.as_str())).collect();
            assert_eq!(found, Vec::<String>::new(), "{}", path.display());
        }
    }
}

#[test]
fn imports_go_one_way() {
    let outside = [
        "auth",
        "cli",
        "client",
        "config",
        "demo",
        "gateway",
        "jetstream",
        "protocol",
        "provider",
        "seal",
        "shutdown",
        "store",
        "system",
        "telemetry",
        "worker",
    ];
    assert_no_imports(&CORE, &outside);
    assert_no_imports(&["integration"], &["oauth"]);
    assert_no_imports(&["jetstream"], &["protocol", "store", "auth", "gateway", "worker"]);
    assert_no_imports(&["protocol", "provider", "seal"], &["store", "auth", "gateway", "worker", "cli", "demo"]);
    assert_no_imports(&["store", "auth"], &["gateway", "worker", "cli", "demo"]);
    assert_no_imports(&["gateway"], &["store", "auth", "worker", "cli", "demo"]);
    assert_no_imports(&["worker"], &["gateway", "cli", "demo"]);
}

#[test]
fn no_verb_imports_another() {
    for (path, text) in sources("src/worker/commands") {
        for verb in ["configure", "exchange", "refresh", "revoke"] {
            let is_own = path.iter().any(|part| part.to_string_lossy().trim_end_matches(".rs") == verb);
            let other = format!("commands::{verb}");
            assert!(is_own || !text.contains(&other), "{} imports {other}", path.display());
        }
    }
}

/// Paths below `crate::worker` that a source file names outside its tests.
fn worker_paths(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for rest in code.split("crate::worker::").skip(1) {
        let end = rest.find(|char: char| !char.is_alphanumeric() && !"_:".contains(char)).unwrap_or(rest.len());
        let (prefix, tail) = rest.split_at(end);
        match tail.strip_prefix('{').and_then(|tail| tail.split_once('}')) {
            Some((list, _)) => found.extend(list.split(',').map(|item| format!("{prefix}{}", item.trim()))),
            None => found.push(prefix.to_owned()),
        }
    }
    found
}

/// The module that a path leads into: the longest start of the path that is a file.
fn file_of<'a>(mut path: &'a str, files: &BTreeSet<String>) -> Option<&'a str> {
    while !files.contains(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path)
}

#[test]
fn no_files_of_the_worker_import_each_other() {
    let folder = root().join("src/worker");
    let module = |path: &Path| {
        let relative = path.strip_prefix(&folder).ok()?.with_extension("");
        Some(relative.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::"))
    };
    let texts: BTreeMap<String, String> =
        sources("src/worker").into_iter().filter_map(|(path, text)| Some((module(&path)?, text))).collect();
    let files: BTreeSet<String> = texts.keys().cloned().collect();
    let imports = |(file, text): (&String, &String)| {
        let paths = worker_paths(text);
        let imported = paths.iter().filter_map(|path| file_of(path, &files)).filter(|it| it != file);
        (file.clone(), imported.map(str::to_owned).collect::<BTreeSet<String>>())
    };
    let mut left: BTreeMap<String, BTreeSet<String>> = texts.iter().map(imports).collect();
    assert!(left["commands::exchange"].contains("rpc::status"), "imports are found: {left:?}");
    // Take away files that import none of the others, until only circles and their importers are left.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        left.retain(|_, imports| !imports.is_disjoint(&names));
        if left.len() == names.len() {
            break;
        }
    }
    assert_eq!(left, BTreeMap::new(), "these files import each other, or files that do");
}

#[test]
fn a_callback_passes_few_files_in_the_documented_order() {
    let document = read_to_string(root().join("ARCHITECTURE.md")).expect("the document is there");
    let section = document.split("A callback passes these files").nth(1).expect("the list is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let listed: Vec<&str> = section
        .lines()
        .filter_map(|line| line.trim_start_matches(|char: char| char.is_ascii_digit()).strip_prefix(". `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    assert!((10..=MAX_CALLBACK_FILES).contains(&listed.len()), "{} files", listed.len());
    let mut passed = String::new();
    for (index, file) in listed.iter().enumerate() {
        assert!(!listed[..index].contains(file), "{file} is listed twice");
        let text = read_to_string(root().join("src").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let path = file.trim_end_matches(".rs");
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let parent = parent.rsplit('/').next().unwrap_or_default();
        // An earlier file names the module, or the parent that re-exports its items.
        // The command arrives at the worker by the bus.
        let is_first = index == 0 || *file == "worker/consumer.rs";
        let is_called = is_first || passed.contains(&format!("{name}::")) || passed.contains(&format!("{parent}::"));
        assert!(is_called, "no earlier file of the list uses {file}");
        passed.push_str(&text);
    }
}

#[test]
fn causes_of_errors_are_kept() {
    let discarded: usize = sources("src").iter().map(|(_, text)| text.matches("map_err(|_").count()).sum();
    assert!(discarded <= MAX_DISCARDED_CAUSES, "{discarded} closures discard the cause of an error");
}

#[test]
fn most_files_are_small() {
    let mut lines: Vec<usize> = sources("src").iter().map(|(_, text)| text.lines().count()).collect();
    lines.sort_unstable();
    let median = lines[lines.len() / 2];
    assert!(median <= MAX_MEDIAN_LINES, "the median file has {median} lines");
}

#[test]
fn texts_name_things_instead_of_circling_them() {
    let documents = std::fs::read_dir(root().join("docs")).expect("the folder is there").flatten();
    let documents = documents.filter_map(|entry| read_to_string(entry.path()).ok());
    let texts: Vec<String> = sources("src").into_iter().map(|(_, text)| text).chain(documents).collect();
    // Put together here, so that this file could be among the searched ones.
    let words = [["who", "ever"], ["no", "body"], ["be", "hind"]].map(|parts| parts.concat());
    let count = |text: &String| {
        let text = text.to_lowercase();
        text.split(|char: char| !char.is_alphabetic()).filter(|word| words.iter().any(|it| it == word)).count()
    };
    let found: usize = texts.iter().map(count).sum();
    assert!(found <= 10, "{found} of {words:?}");
}
