//! `tests/provider/install` and the scripts that bring the `nats` CLI, nats-py and schemathesis, once a run.

use crate::support::root;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

const NATS_PY: &str = "nats-py==2.16.0";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// The folder of the authorization server, its packages installed.
pub(crate) fn provider() -> PathBuf {
    static CODE: LazyLock<Option<i32>> = LazyLock::new(|| run("packages"));
    assert_eq!(*CODE, Some(0), "tests/provider/install failed; what it said is above");
    root().join("tests/provider")
}

/// Returns true if Chromium and its driver are installed; otherwise prints that the test is skipped.
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
    static BROUGHT: LazyLock<(Option<i32>, PathBuf)> = LazyLock::new(|| brought("nats/bring-nats-cli", &[]));
    found(&BROUGHT, "no Go to build the nats CLI")
}

/// A Python that has nats-py; `None`, and a line that says so, where there is none and it cannot be made.
pub(crate) fn python() -> Option<&'static Path> {
    static BROUGHT: LazyLock<(Option<i32>, PathBuf)> =
        LazyLock::new(|| brought("tests/bring-python", &[NATS_PY, "python"]));
    found(&BROUGHT, "no Python with venv, or nats-py cannot be fetched")
}

/// schemathesis; `None`, and a line that says so, where it cannot be had.
pub(crate) fn schemathesis() -> Option<&'static Path> {
    static BROUGHT: LazyLock<(Option<i32>, PathBuf)> =
        LazyLock::new(|| brought("tests/bring-python", &[SCHEMATHESIS, "st"]));
    found(&BROUGHT, "no python3 with pip to install schemathesis, so nothing checked /openapi.json")
}

/// The exit status of a script that installs a program, and the path that it printed.
fn brought(script: &str, arguments: &[&str]) -> (Option<i32>, PathBuf) {
    let mut command = Command::new(root().join(script));
    command.args(arguments);
    // `make` hands it on under this name: of those that begin with TOKENBUS_, the program takes every one for a setting.
    if let Some(cache) = std::env::var_os("CACHE") {
        command.env("TOKENBUS_CACHE", cache);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{script} does not start: {error}"));
    let printed = String::from_utf8(output.stdout).expect("a path is text");
    (output.status.code(), printed.trim_end().into())
}

fn found(brought: &'static (Option<i32>, PathBuf), why_not: &str) -> Option<&'static Path> {
    match brought {
        (Some(0), path) => Some(path),
        (Some(3), _) => {
            skipped(why_not);
            None
        }
        (other, _) => panic!("a script that brings a program failed: {other:?}; what it said is above"),
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
