//! Rules for sources and documents.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::support::root;

const MAX_LINES: usize = 400;

/// All files of Rust below that folder of the project, with their text.
pub(crate) fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push((path.clone(), read_to_string(&path).expect("sources are text")));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn all_sources() -> impl Iterator<Item = (PathBuf, String)> {
    let build = root().join("build.rs");
    let text = read_to_string(&build).expect("sources are text");
    ["src", "tests", "benches", "examples"].into_iter().flat_map(sources).chain([(build, text)])
}

#[test]
fn files_are_short() {
    let long = all_sources().map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > MAX_LINES);
    assert_eq!(long.collect::<Vec<_>>(), [], "files of more than {MAX_LINES} lines");
}

#[test]
fn no_todo_and_no_ignored_test_is_left() {
    // Concatenated, so that the test does not find its own source.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["to", "do!("], ["#[ig", "nore"], ["unimpl", "emented!("]];
    for (path, text) in all_sources() {
        for mark in marks.map(|parts| parts.concat()) {
            assert!(!text.contains(&mark), "{mark} in {}", path.display());
        }
    }
}

#[test]
fn only_the_subject_module_spells_out_subjects() {
    let home = [root().join("src/subject.rs"), root().join("src/subject")];
    for (path, text) in sources("src") {
        if home.iter().any(|home| path.starts_with(home)) {
            continue;
        }
        for start in
            ["ms.integration", "ms.oauth", "oauth.record", "oauth.edge", "oauth.dead", "oauth.reply", "$JS.", "$KV."]
        {
            let start = format!("\"{start}");
            // Examples in documentation spell subjects out.
            let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!code.any(|line| line.contains(&start)), "{start} in {}", path.display());
        }
    }
}

#[test]
fn f3_secrets_are_compared_in_constant_time() {
    // `Secret` compares in constant time; code that exposes the text must not compare it with `==`.
    let eq = "self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()";
    assert!(read_to_string(root().join("src/secret.rs")).expect("it is there").contains(eq));
    let mut auth = sources("src").into_iter().filter(|(path, _)| path.starts_with(root().join("src/auth")));
    assert!(auth.any(|(_, text)| text.contains(".ct_eq(")), "an API key's hash is compared otherwise");
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let compared = [".expose() ==", ".expose() !=", "== hash", "!= hash", ".hash ==", ".hash !="];
            // A query parameter that is no secret.
            let is_word = line.contains("!= \"browser\"");
            assert!(is_word || compared.iter().all(|by| !line.contains(by)), "{}: {line}", path.display());
        }
    }
}

#[test]
fn no_text_begins_with_a_code() {
    // The code of a failure is in the answer's `reason`.
    let is_code = |text: &str| {
        let (code, after) = text.split_once(": ").unwrap_or_default();
        let is_word = code.contains('_') && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_word && after.starts_with(|char: char| char.is_ascii_lowercase())
    };
    let of_answers = ["src/worker", "src/gateway", "src/auth", "src/integration"].into_iter().flat_map(sources);
    for (path, text) in of_answers.filter(|(path, _)| !path.ends_with("tests.rs")) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let found: Vec<&str> = code.split('"').filter(|text| is_code(text)).collect();
        assert_eq!(found, [""; 0], "{}", path.display());
    }
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let documented = documented(&root().join("docs/configuration.md"));
    let defaults: toml::Table =
        read_to_string(root().join("config/default.toml")).expect("the defaults").parse().expect("they are TOML");
    assert_eq!(documented, settings("", &defaults));
}

/// The keys of a table and of those within it, with their values.
fn settings(section: &str, table: &toml::Table) -> BTreeSet<(String, String)> {
    let within = |(key, value): (&String, &toml::Value)| match value.as_table() {
        Some(table) => settings(&format!("{section}{key}."), table),
        None => BTreeSet::from([(format!("{section}{key}"), value.to_string())]),
    };
    table.iter().flat_map(within).collect()
}

/// The keys and defaults of the tables of that document: `| `key` | `default` | …`, below `## section`.
fn documented(path: &Path) -> BTreeSet<(String, String)> {
    let text = read_to_string(path).expect("docs/configuration.md");
    let (mut section, mut found) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_matches('`').to_owned();
        }
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(key), Some(default)) = (cells.next(), cells.next()) else { continue };
        if let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) {
            found.insert((format!("{section}.{key}"), default.trim_matches('`').to_owned()));
        }
    }
    found
}

#[test]
fn names_in_documents_exist() {
    let defaults: toml::Table =
        read_to_string(root().join("config/default.toml")).expect("the defaults").parse().expect("they are TOML");
    let known: BTreeSet<String> = settings("", &defaults).into_iter().map(|(key, _)| key).collect();
    let sections: Vec<String> = defaults.keys().map(|section| format!("{section}.")).collect();
    let subjects = [
        "oauth.admin",
        "oauth.again",
        "oauth.dead",
        "oauth.edge",
        "oauth.node",
        "oauth.record",
        "oauth.reply",
        "oauth.worker",
    ];
    let is_code = |name: &str| Path::new(name).extension().is_some_and(|it| it == "rs");
    let code: Vec<PathBuf> = all_sources().map(|(path, _)| path).collect();
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "nats/README.md"];
    let documents =
        documents.iter().map(|name| root().join(name)).chain(folder("docs")).chain(folder("docs/decisions"));
    for document in documents {
        let text = read_to_string(&document).expect("documents are text");
        let place = document.display();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_there = link.is_empty() || link.starts_with("https://") || document.with_file_name(link).exists();
            assert!(is_there, "{place}: {link} leads nowhere");
        }
        for name in text.split('`').skip(1).step_by(2) {
            let file = name.split([':', ' ']).next().unwrap_or_default();
            let is_file = is_code(file) && !file.contains('{');
            assert!(!is_file || code.iter().any(|path| path.ends_with(file)), "{place}: there is no {file}");
            let is_key = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.' || byte == b'_');
            let is_other = is_code(name)
                || Path::new(name).extension().is_some_and(|extension| extension == "conf")
                || subjects.iter().any(|start| name.starts_with(start));
            let is_setting = is_key && !is_other && sections.iter().any(|section| name.starts_with(section));
            let is_section = known.iter().any(|key| key.starts_with(&format!("{name}.")));
            assert!(!is_setting || is_section || known.contains(name), "{place}: there is no setting {name}");
        }
    }
}

#[test]
fn the_page_about_deploying_names_tests_that_exist() {
    let document = read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let page = document.split("\n## Deploying\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the page");
    let code: String = all_sources().map(|(_, text)| text).collect();
    let is_test = |name: &str| {
        let rest = name
            .strip_prefix(['g', 'h', 'o'])
            .unwrap_or_default()
            .trim_start_matches(|char: char| char.is_ascii_digit());
        rest.starts_with('_') && rest.len() < name.len() - 1
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|name| is_test(name)).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let found = match name.strip_suffix('…') {
            Some(start) => code.contains(&format!("fn {start}")),
            None => code.contains(&format!("fn {name}(")),
        };
        assert!(found, "there is no test {name}");
    }
}

/// The files in a folder of the project.
fn folder(name: &str) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(root().join(name)).expect("the folder is there");
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file())
}

/// What a provider does differently is data: in its profile, a config or `config/error_codes.toml`.
#[test]
fn no_provider_is_named_in_the_code() {
    let profiles = folder("config/providers").filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let others = ["apple", "facebook", "instagram", "linkedin", "salesforce", "shopify", "zoho"].map(str::to_owned);
    let names: BTreeSet<String> = profiles.chain(others).collect();
    assert!(names.contains("slack"), "profiles are found: {names:?}");
    // Words of the language and of English are names only where a text has nothing else.
    let (words_too, unusual): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| ["box", "front", "line", "threads", "wave"].contains(&name.as_str()));
    // The guard keeps requests from clouds' metadata services, which are hosts and not providers.
    let guard = root().join("src/provider/guard/address.rs");
    let is_test = |path: &Path| path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
    for (path, text) in sources("src").into_iter().filter(|(path, _)| *path != guard && !is_test(path)) {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_lowercase();
        let words: BTreeSet<&str> = code.split(|char: char| !char.is_alphanumeric() && char != '-').collect();
        let mut found = unusual
            .iter()
            .filter(|name| words.contains(name.as_str()))
            .chain(words_too.iter().filter(|name| code.contains(&format!("\"{name}\""))));
        assert_eq!(found.next(), None, "{}", path.display());
    }
}

#[test]
fn the_code_map_has_every_module() {
    let document = read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let map = document.split("## Code map").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("the code map");
    let modules = folder("src").filter(|path| !path.ends_with("lib.rs") && !path.ends_with("main.rs"));
    for module in modules {
        let name = module.file_name().expect("a file has a name").to_string_lossy();
        assert!(map.contains(&format!("`{name}`")), "the code map lacks {name}");
    }
}

#[test]
fn every_event_is_documented() {
    let code = read_to_string(root().join("src/event.rs")).expect("the events");
    let names = code.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""));
    let names: Vec<&str> = names.filter_map(|(_, name)| name.strip_suffix("\",")).collect();
    assert!(names.len() > 20, "events are found: {names:?}");
    let document = read_to_string(root().join("docs/subjects.md")).expect("docs/subjects.md");
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    for name in names {
        let name = format!("`{name}`");
        assert!(rows.iter().any(|row| row.contains(&name)), "the table of events lacks {name}");
    }
}
