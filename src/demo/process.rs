//! Processes that never outlive the demo: each ends when its standard input closes, which the system does for
//! whatever way the demo ends.

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

/// How long a process may take to end once it is told to.
const STOP: Duration = Duration::from_secs(8);
/// Lines of a log that are shown after a failure.
const TAIL: usize = 15;

/// Runs a program that knows nothing of our standard input: stops it when that closes, and then clears up the folder.
/// `$1` is the folder, the rest is the command. The subshell gives it 5 s before it is killed.
const KEEPER: &str = r#"
folder=$1; shift
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
[ -e "$folder/over" ] && rm -rf "$folder"
exit "$status"
"#;

/// A new folder that only its owner can enter; removed when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it in the system's temporary folder.
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tokenbus-demo-{}", system::random_id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The keeper may have been first.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running process.
pub(super) struct Child {
    /// What it is called here.
    pub(super) name: &'static str,
    process: process::Child,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
}

impl Child {
    /// Starts a program of ours, which stops by itself when its standard input closes.
    pub(super) fn start(name: &'static str, mut command: Command, folder: &Folder) -> anyhow::Result<Self> {
        command.stdout(Stdio::piped()).kill_on_drop(true);
        Self::spawn(name, command, folder)
    }

    /// Starts any other program, under a keeper that stops it when the keeper's standard input closes.
    pub(super) fn start_kept(name: &'static str, command: &Command, folder: &Folder) -> anyhow::Result<Self> {
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

    fn spawn(name: &'static str, mut command: Command, folder: &Folder) -> anyhow::Result<Self> {
        let log = folder.path().join(format!("{name}.log"));
        // A group of its own: Ctrl-C on the terminal is ours to hear, and we stop one after the other.
        command.stdin(Stdio::piped()).stderr(File::create(&log)?).process_group(0);
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = process.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { name, process, stdout, log })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// The next line it prints. Later lines stay unread, but the pipe open.
    pub(super) async fn line(&mut self) -> anyhow::Result<String> {
        let Some(stdout) = &mut self.stdout else { bail!("{} prints nothing", self.name) };
        let line = timeout(Duration::from_secs(20), stdout.next_line()).await;
        line.ok().and_then(Result::ok).flatten().with_context(|| format!("{} did not say where it listens", self.name))
    }

    /// # Errors
    /// When it has ended.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}", self.name),
        }
    }

    /// Has it end, and waits for that.
    pub(super) async fn stop(&mut self) {
        drop(self.process.stdin.take());
        if timeout(STOP, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }

    /// The end of its log.
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
    async fn a_kept_program_that_ends_is_noticed_and_leaves_its_log() {
        let folder = Folder::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such store >&2; exit 3"]);
        let mut kept = Child::start_kept("program", &command, &folder).unwrap();
        // Not by `wait`: that closes standard input, which tells the keeper to clear up.
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
        assert!(kept.must_run().unwrap_err().to_string().contains("ended by itself"));
    }
}
