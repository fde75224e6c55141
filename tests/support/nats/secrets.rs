//! The secrets of a server: its key and the passwords of its users.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use super::super::root;
use super::output;

/// The secrets of the server in `folder`. If it has none, it gets the ones that `nats/generate-local` made first in this run:
/// the script starts dozens of programs.
pub(crate) fn generate(folder: &Path) -> HashMap<String, String> {
    static OF_THIS_RUN: LazyLock<String> =
        LazyLock::new(|| by_script(tempfile::tempdir().expect("a temporary folder").path()));
    let file = folder.join("local.env");
    if file.exists() {
        return parse(&by_script(folder));
    }
    std::fs::write(file, &*OF_THIS_RUN).expect("the folder can be written");
    parse(&OF_THIS_RUN)
}

/// The script adds what an existing file lacks.
fn by_script(folder: &Path) -> String {
    let file = output(Command::new(root().join("nats/generate-local")).arg(folder));
    std::fs::read_to_string(file).expect("a file of secrets")
}

fn parse(text: &str) -> HashMap<String, String> {
    let settings = text.lines().filter_map(|line| line.split_once('='));
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(super) fn passwords<'a>(users: &'a [&str]) -> impl Iterator<Item = (String, String)> + 'a {
    users.iter().map(|user| (format!("NATS_{}_PASSWORD", user.to_uppercase()), format!("pw_{user}")))
}
