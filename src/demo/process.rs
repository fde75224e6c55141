//! Child processes that never outlive the demo. Each stops when its standard input closes, and the system closes that
//! however the demo ends, SIGKILL included.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{self, ChildStdout, Command};
use tokio::time::timeout;

use crate::system;

/// Longest wait for a process to exit.
const STOP: Duration = Duration::from_secs(8);
/// Lines of a log to show after a failure.
const TAIL: usize = 15;

/// Runs a program that ignores its standard input, and stops it when standard input closes. The last such program removes
/// the folder. `$1` is the folder, the rest is the command. The program gets 5 s before it is killed.
const KEEPER: &str = r#"
folder=$1; shift
runs="$folder/runs.$$"
: >"$runs"
exec 3<&0
"$@" 3<&- </dev/null & program=$!
{
  cat <&3 >/dev/null
  : >"$folder/over"
  kill "$program"
  tries=0
  while kill -0 "$program" && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -9 "$program"
} 2>/dev/null &
keeper=$!
exec 3<&-
wait "$program"; status=$?
kill "$keeper" 2>/dev/null
rm -f "$runs"
[ -e "$folder/over" ] && ! ls "$folder"/runs.* >/dev/null 2>&1 && rm -rf "$folder"
exit "$status"
"#;

/// New folder that only its owner can enter. Removed on drop.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tokenbus-demo-{}", system::random_id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The keeper script may have removed the folder already.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) struct Child {
    /// Name for messages.
    pub(super) name: String,
    /// Address at which it listens, if it does.
    pub(super) address: String,
    process: process::Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
}

impl Child {
    /// Starts this program, which stops by itself when its standard input closes.
    pub(super) fn start(name: &str, mut command: Command, folder: &Folder) -> anyhow::Result<Self> {
        command.stdout(Stdio::piped()).kill_on_drop(true);
        Self::spawn(name, command, folder)
    }

    /// Starts another program under a keeper script, which stops it when the script's standard input closes.
    pub(super) fn start_kept(name: &str, command: &Command, folder: &Folder) -> anyhow::Result<Self> {
        let command = command.as_std();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(folder.path()).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => keeper.env(name, value),
                None => keeper.env_remove(name),
            };
        }
        keeper.stdout(Stdio::null());
        Self::spawn(name, keeper, folder)
    }

    fn spawn(name: &str, mut command: Command, folder: &Folder) -> anyhow::Result<Self> {
        let log = folder.path().join(format!("{name}.log"));
        // A separate process group: Ctrl-C then reaches only the demo, which stops the processes in order.
        command.stdin(Stdio::piped()).stderr(File::create(&log)?).process_group(0);
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = process.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { name: name.to_owned(), address: String::new(), process, stdout, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// Reads the next line of standard output. Later lines stay unread, but the pipe stays open.
    pub(super) async fn line(&mut self) -> anyhow::Result<String> {
        let Some(stdout) = &mut self.stdout else { bail!("{} prints nothing", self.name) };
        let line = timeout(Duration::from_secs(20), stdout.next_line()).await;
        line.ok().and_then(Result::ok).flatten().with_context(|| format!("{} did not print its address", self.name))
    }

    /// Fails if the process has exited.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} exited unexpectedly: {status}", self.name),
        }
    }

    /// Stops the process and waits for its exit.
    pub(super) async fn stop(&mut self) {
        drop(self.process.stdin.take());
        if timeout(STOP, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }

    /// Returns the last lines of the log.
    pub(super) fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kept_program_and_its_folder_end_with_standard_input() {
        let folder = Folder::new().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut kept = Child::start_kept("sleep", &command, &folder).unwrap();
        kept.must_run().unwrap();
        drop(kept.process.stdin.take());
        let status = timeout(STOP, kept.process.wait()).await.unwrap().unwrap();
        assert!(!status.success());
        assert!(!folder.path().exists());
    }

    #[tokio::test]
    async fn the_folder_stays_until_the_last_kept_program_ends() {
        let folder = Folder::new().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let kept = ["one", "two"].map(|name| Child::start_kept(name, &command, &folder).unwrap());
        // Both keeper scripts count themselves before one of them ends.
        let runs = || std::fs::read_dir(folder.path()).unwrap().flatten().filter(is_count).count();
        while runs() < kept.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let [mut one, mut two] = kept;
        two.stop().await;
        assert!(folder.path().exists());
        one.must_run().unwrap();
        one.stop().await;
        assert!(!folder.path().exists());
    }

    fn is_count(entry: &std::fs::DirEntry) -> bool {
        entry.file_name().to_string_lossy().starts_with("runs.")
    }

    #[tokio::test]
    async fn a_kept_program_that_ends_is_noticed_and_leaves_its_log() {
        let folder = Folder::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such store >&2; exit 3"]);
        let mut kept = Child::start_kept("program", &command, &folder).unwrap();
        // Not `wait`: it closes standard input, which makes the keeper script remove the folder.
        let ended = async {
            loop {
                if let Some(status) = kept.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert_eq!(timeout(STOP, ended).await.unwrap().code(), Some(3));
        assert_eq!(kept.tail(), "no such store");
        assert!(kept.must_run().unwrap_err().to_string().contains("exited unexpectedly"));
    }
}
