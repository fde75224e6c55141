//! Runs `tests/provider/install` and the scripts that install the `nats` CLI, schemathesis and the libraries of the examples,
//! once per run.

use crate::support::root;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

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

/// An example of a workflow node, ready to run.
pub(crate) struct Example {
    pub(crate) program: PathBuf,
    /// The script that the program runs.
    pub(crate) script: Option<PathBuf>,
    /// Folders in which it finds other programs.
    pub(crate) path: OsString,
    _programs: Option<TempDir>,
}

impl Example {
    /// Programs in the folder `programs` are found before others of the same name.
    fn new(program: &Path, script: Option<PathBuf>, programs: Option<TempDir>) -> Self {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(first) = &programs {
            path = [first.path().as_os_str(), &path].join(OsStr::new(":"));
        }
        Self { program: program.to_owned(), script, path, _programs: programs }
    }
}

/// The example in Python; `None`, with a printed reason, if its library cannot be installed.
pub(crate) fn python_node() -> Option<Example> {
    static INSTALLED: LazyLock<(Option<i32>, PathBuf)> =
        LazyLock::new(|| installed("tests/bring-python", &[NATS_PY, "python"]));
    let python = found(&INSTALLED, "no Python with venv, or nats-py cannot be fetched")?;
    Some(Example::new(python, Some(root().join("examples/node.py")), None))
}

/// The example in JavaScript; `None`, with a printed reason, if its library cannot be installed.
pub(crate) fn javascript_node() -> Option<Example> {
    static INSTALLED: LazyLock<(Option<i32>, PathBuf)> =
        LazyLock::new(|| installed("tests/bring-node", &["javascript"]));
    let script = found(&INSTALLED, "no node with npm, or @nats-io/transport-node cannot be fetched")?;
    Some(Example::new(Path::new("node"), Some(script.to_owned()), None))
}

/// The example in Go; `None`, with a printed reason, if it cannot be built for lack of Go or of its library.
pub(crate) fn go_node() -> Option<Example> {
    static INSTALLED: LazyLock<(Option<i32>, PathBuf)> = LazyLock::new(|| installed("tests/bring-node", &["go"]));
    Some(Example::new(found(&INSTALLED, "no Go, or nats.go cannot be fetched")?, None, None))
}

/// The example for a shell; `None`, with a printed reason, if the `nats` CLI or jq is missing.
pub(crate) fn shell_node() -> Option<Example> {
    let nats = nats_cli()?;
    let has_jq = Command::new("jq").arg("--version").stdout(Stdio::null()).status();
    if !has_jq.is_ok_and(|status| status.success()) {
        skipped("no jq");
        return None;
    }
    let programs = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::symlink(nats, programs.path().join("nats")).expect("a name for the program");
    Some(Example::new(Path::new("bash"), Some(root().join("examples/node.sh")), Some(programs)))
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
