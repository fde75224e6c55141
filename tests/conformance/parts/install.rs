//! `tests/provider/install`, once a run.

use crate::support::root;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// The folder of the authorization server, its packages installed.
pub(crate) fn provider() -> PathBuf {
    static CODE: LazyLock<Option<i32>> = LazyLock::new(|| run("packages"));
    assert_eq!(*CODE, Some(0), "tests/provider/install failed; what it said is above");
    root().join("tests/provider")
}

/// Whether Chromium and its driver are here; a line says so when they are not.
pub(crate) fn chromium() -> bool {
    static CODE: LazyLock<Option<i32>> = LazyLock::new(|| run("chromium"));
    match *CODE {
        Some(0) => true,
        Some(3) => {
            eprintln!("skipped: chromium not installed (Debian's chromium and chromium-driver)");
            false
        }
        other => panic!("tests/provider/install chromium failed: {other:?}"),
    }
}

fn run(what: &str) -> Option<i32> {
    let script = root().join("tests/provider/install");
    Command::new(script).arg(what).status().expect("bash runs tests/provider/install").code()
}
