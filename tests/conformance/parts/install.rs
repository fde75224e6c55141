//! `tests/provider/install` and `nats/bring-nats-cli`, once a run.

use crate::support::root;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// The folder of the authorization server, its packages installed.
pub(crate) fn provider() -> PathBuf {
    static CODE: LazyLock<Option<i32>> = LazyLock::new(|| run("packages"));
    assert_eq!(*CODE, Some(0), "tests/provider/install failed; what it said is above");
    root().join("tests/provider")
}

/// Whether Chromium and its driver are here; a line says that the test is skipped when they are not.
pub(crate) fn chromium() -> bool {
    static CODE: LazyLock<Option<i32>> = LazyLock::new(|| run("chromium"));
    match *CODE {
        Some(0) => true,
        Some(3) => {
            skipped("no chromium with chromedriver (Debian's chromium and chromium-driver)");
            false
        }
        other => panic!("tests/provider/install chromium failed: {other:?}"),
    }
}

/// The `nats` CLI; `None`, and a line that says so, where there is none and nothing to build it with.
pub(crate) fn nats_cli() -> Option<&'static Path> {
    static BROUGHT: LazyLock<(Option<i32>, PathBuf)> = LazyLock::new(|| {
        let mut script = Command::new(root().join("nats/bring-nats-cli"));
        let output = script.stderr(Stdio::inherit()).output().expect("bash runs nats/bring-nats-cli");
        let printed = String::from_utf8(output.stdout).expect("a path is text");
        (output.status.code(), printed.trim_end().into())
    });
    match &*BROUGHT {
        (Some(0), path) => Some(path),
        (Some(3), _) => {
            skipped("no Go to build the nats CLI");
            None
        }
        (other, _) => panic!("nats/bring-nats-cli failed: {other:?}; what it said is above"),
    }
}

/// Says that this test ends here, past the harness, which keeps what a passing test prints to itself.
fn skipped(why: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped: {why} ({})", thread.name().unwrap_or("a test"));
}

fn run(what: &str) -> Option<i32> {
    let script = root().join("tests/provider/install");
    Command::new(script).arg(what).status().expect("bash runs tests/provider/install").code()
}
