//! A server on a disk that fills up.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tokio::time::timeout;

use super::super::child::Running;
use super::super::wait::{PATIENCE, eventually};
use super::{Nats, binary, copy_config, generate, listening};

/// Runs a server, given after the folder, on a disk of its own, and obeys the files that appear in the folder.
const SMALL_DISK: &str = r#"
folder=$1; shift
mount -t tmpfs -o size=24m tmpfs "$folder/store" || exit 1
while :; do
  "$@" & server=$!
  while [ ! -e "$folder/restart" ]; do
    if [ -e "$folder/fill" ]; then dd if=/dev/zero of="$folder/store/fill" bs=4k 2>/dev/null; rm "$folder/fill"; fi
    if [ -e "$folder/free" ]; then rm "$folder/store/fill" "$folder/free"; fi
    sleep 0.05
  done
  kill -9 $server; wait $server; rm "$folder/restart"
done
"#;

impl Nats {
    /// A server whose store is a disk of 24 MiB, on which [`Nats::ask_disk`] acts. Its limits exceed the disk. Returns `None` where
    /// users may not mount such a disk.
    pub(crate) async fn on_small_disk() -> Option<Self> {
        let mut namespace = Command::new("unshare");
        if !namespace.args(["-rmpf", "true"]).status().is_ok_and(|status| status.success()) {
            let _ = writeln!(std::io::stderr(), "skipped: unshare makes no namespace, so no disk was filled");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let secrets = generate(folder.path());
        copy_config(folder.path(), &[("max_memory_store: 64MB", "max_file_store: 2GB, max_memory_store: 64MB")]);
        std::fs::create_dir(folder.path().join("store")).expect("the folder can be written");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let (_, port) = address.rsplit_once(':').expect("the address has a port");
        let (server, config) = (binary(), folder.path().join("local.conf"));
        let process = Running::start(Path::new("unshare"), &folder.path().join("log"), |command| {
            command.envs(&secrets).args(["-rmpf", "--kill-child", "sh", "-c", SMALL_DISK, "sh"]);
            command.arg(folder.path()).arg(server).arg("-c").arg(&config).args(["-p", port]);
            command.arg("-sd").arg(folder.path().join("store"));
        });
        timeout(PATIENCE, listening(&address)).await.expect("nats-server listens");
        let (url, others) = (format!("nats://{address}"), Vec::new());
        Some(Self { url, secrets, server, config, process, others, nodes: None, folder, has_large_streams: false })
    }

    /// Has the small disk filled (`fill`) or emptied (`free`), or the server on it killed and started again (`restart`).
    pub(crate) async fn ask_disk(&self, order: &str) {
        let file = self.folder.path().join(order);
        std::fs::write(&file, "").expect("the folder can be written");
        eventually("the disk obeys", async || !file.exists()).await;
        let address = self.url.trim_start_matches("nats://");
        timeout(PATIENCE, listening(address)).await.expect("nats-server listens");
    }
}
