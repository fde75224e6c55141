//! Runs `tests/provider/install` and the scripts that install the `nats` CLI, nats-py and schemathesis, once per run.

use crate::support::root;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

const NATS_PY: &str = "nats-py==2.16.0";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// The folder of the scripts for node, their packages installed.
pub(crate) fn provider() -> PathBuf {
    static CODE: LazyLock<Option<i32>> = LazyLock::new(|| run("packages"));
    assert_eq!(*CODE, Some(0), "tests/provider/install failed; its output is above");
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

/// The `nats` CLI; `None`, with a printed reason, if it is neither installed nor can be built.
pub(crate) fn nats_cli() -> Option<&'static Path> {
    static INSTALLED: LazyLock<(Option<i32>, PathBuf)> = LazyLock::new(|| installed("nats/bring-nats-cli", &[]));
    found(&INSTALLED, "no Go to build the nats CLI")
}

/// A Python with nats-py; `None`, with a printed reason, if it cannot be installed.
pub(crate) fn python() -> Option<&'static Path> {
    static INSTALLED: LazyLock<(Option<i32>, PathBuf)> =
        LazyLock::new(|| installed("tests/bring-python", &[NATS_PY, "python"]));
    found(&INSTALLED, "no Python with venv, or nats-py cannot be fetched")
}

/// schemathesis; `None`, with a printed reason, if it cannot be installed.
pub(crate) fn schemathesis() -> Option<&'static Path> {
    static INSTALLED: LazyLock<(Option<i32>, PathBuf)> =
        LazyLock::new(|| installed("tests/bring-python", &[SCHEMATHESIS, "st"]));
    found(&INSTALLED, "no python3 with pip to install schemathesis, so nothing checked /openapi.json")
}

/// The exit status of a script that installs a program, and the path that it printed.
fn installed(script: &str, arguments: &[&str]) -> (Option<i32>, PathBuf) {
    let mut command = Command::new(root().join(script));
    command.args(arguments);
    // `make` passes it on under this name, because the program treats every TOKENBUS_ variable as a setting.
    if let Some(cache) = std::env::var_os("CACHE") {
        command.env("TOKENBUS_CACHE", cache);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{script} does not start: {error}"));
    let printed = String::from_utf8(output.stdout).expect("a path is text");
    (output.status.code(), printed.trim_end().into())
}

fn found(installed: &'static (Option<i32>, PathBuf), why_not: &str) -> Option<&'static Path> {
    match installed {
        (Some(0), path) => Some(path),
        (Some(3), _) => {
            skipped(why_not);
            None
        }
        (other, _) => panic!("an install script failed: {other:?}; its output is above"),
    }
}

/// Prints that the test is skipped, straight to the terminal: the harness hides the output of a passing test.
fn skipped(why: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped: {why} ({})", thread.name().unwrap_or("a test"));
}

fn run(what: &str) -> Option<i32> {
    let script = root().join("tests/provider/install");
    Command::new(script).arg(what).status().expect("bash runs tests/provider/install").code()
}
