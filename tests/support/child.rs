//! Programs that the tests start. They are killed on drop, and when the test process dies.

use std::path::Path;
use std::process::{Command as Blocking, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Longest time from a program's start to the line that tests wait for.
const START: Duration = Duration::from_mins(1);
/// Longest time in which SIGSTOP stops a process. One that has ended never stops.
const LONGEST_STOP: Duration = Duration::from_secs(5);

/// A running program, with its standard output.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    name: String,
}

impl Running {
    /// Starts `program`; `prepare` adds arguments and environment. Its standard error goes to the file `log`.
    pub(crate) fn start(program: &Path, log: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let name = program.display().to_string();
        let errors = std::fs::File::create(log).expect("a log file for the program");
        let mut command = dies_with_us(program);
        prepare(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        Self { child, lines: BufReader::new(stdout).lines(), name }
    }

    /// Reads standard output until `find` accepts a line, and returns its result.
    pub(crate) async fn line<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> T {
        let search = async {
            while let Some(line) = self.lines.next_line().await.expect("the program prints text") {
                if let Some(found) = find(&line) {
                    return found;
                }
            }
            panic!("{} ended without the line that the test waits for", self.name)
        };
        timeout(START, search).await.unwrap_or_else(|_| panic!("{} prints nothing that helps", self.name))
    }

    /// Its process id, until its end has been waited for.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the program was not waited for")
    }

    /// Returns true if it is still running.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Waits until the program ends, by itself or by a signal.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(START, self.child.wait()).await.expect("the program ends").expect("the program was running")
    }

    /// Returns true if it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Ends the program at once with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("the program was running");
    }
}

/// Sends a signal to a process, by its name without `SIG`. Blocks for as long as `kill` takes, and after SIGSTOP until every
/// thread has stopped: the signal is sent before the last one stops.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Blocking::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} reaches process {pid}");
    let sent = Instant::now();
    while name == "STOP" && !is_stopped(pid) && sent.elapsed() < LONGEST_STOP {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns true once SIGSTOP has stopped every thread of a process.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// `setpriv` makes the kernel kill the program when the thread that started it ends. Without `setpriv` only dropping
/// kills it.
fn dies_with_us(program: &Path) -> Command {
    let known = Blocking::new("setpriv").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if known.is_ok_and(|status| status.success()) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}
