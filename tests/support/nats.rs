//! A real nats-server on the configuration that the project ships.

mod secrets;
mod small_disk;

pub(crate) use self::secrets::generate;
use self::secrets::passwords;
use super::child::{Running, signal};
use super::root;
use super::wait::{PATIENCE, eventually};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;
use tokenbus::subject::NodeCall;
use tokio::time::{sleep, timeout};

/// A running server with its accounts, a store of its own and a port of its own.
pub(crate) struct Nats {
    /// Its client URL.
    pub(crate) url: String,
    secrets: HashMap<String, String>,
    server: &'static str,
    config: PathBuf,
    process: Running,
    others: Vec<Running>,
    nodes: Option<Nodes>,
    folder: TempDir,
    /// True if its streams have the sizes of the shipped configuration.
    pub(crate) has_large_streams: bool,
}

/// Ports of a cluster's nodes, for clients and for routes, and the addresses at which each of them looks for the others.
pub(crate) struct Nodes {
    pub(crate) clients: [u16; 3],
    pub(crate) routes: [u16; 3],
    pub(crate) peers: [String; 3],
}

impl Nats {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let secrets = generate(folder.path());
        Self::on(binary(), root().join("nats/local.conf"), secrets, folder).await
    }

    /// The same without syncing writes, for benches that fill a store first.
    pub(crate) async fn start_unsynced() -> Self {
        let nats = Self::edited(&[("sync_interval: always", "sync_interval: 2m")], &[]).await;
        Self { has_large_streams: true, ..nats }
    }

    /// A server with a copy of the configuration in which the first text of each edit is replaced by the second. The
    /// additional users get passwords.
    pub(crate) async fn edited(edits: &[(&str, &str)], users: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut secrets = generate(folder.path());
        secrets.extend(passwords(users));
        copy_config(folder.path(), edits);
        Self::on(binary(), folder.path().join("local.conf"), secrets, folder).await
    }

    /// A server on a folder that has the secrets (`local.env`) and the store of another one.
    pub(crate) async fn on_folder(folder: TempDir) -> Self {
        let secrets = generate(folder.path());
        Self::on(binary(), root().join("nats/local.conf"), secrets, folder).await
    }

    /// A server on that configuration, whose users have no passwords.
    pub(crate) async fn configured(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("server.conf");
        std::fs::write(&path, config).expect("the folder can be written");
        Self::on(binary(), path, HashMap::new(), folder).await
    }

    async fn on(server: &'static str, config: PathBuf, secrets: HashMap<String, String>, folder: TempDir) -> Self {
        let process = serve(server, (&config, folder.path()), &secrets, "-1");
        let url = ports(folder.path()).await;
        Self {
            url,
            secrets,
            server,
            config,
            process,
            others: Vec::new(),
            nodes: None,
            folder,
            has_large_streams: false,
        }
    }

    /// A cluster of three, on the ports given for clients and for routes. [`Nats::kill`] kills its first node.
    pub(crate) async fn cluster(clients: [u16; 3], routes: [u16; 3]) -> Self {
        Self::edited_cluster((clients, routes), &[], &[]).await
    }

    /// The same with a copy of the configuration, as in [`Nats::edited`].
    pub(crate) async fn edited_cluster(ports: ([u16; 3], [u16; 3]), edits: &[(&str, &str)], users: &[&str]) -> Self {
        let all = ports.1.map(|port| format!("nats://127.0.0.1:{port}")).join(",");
        let nodes = Nodes { clients: ports.0, routes: ports.1, peers: [(); 3].map(|()| all.clone()) };
        Self::on_nodes(nodes, edits, users).await
    }

    /// A cluster whose nodes reach each other at the addresses in [`Nodes::peers`] only.
    pub(crate) async fn linked_cluster(nodes: Nodes) -> Self {
        // A node tells the others at which address they may reach it. Nothing listens at this one.
        Self::on_nodes(nodes, &[("  name: tokenbus\n", "  name: tokenbus\n  advertise: \"127.0.0.1:1\"\n")], &[]).await
    }

    async fn on_nodes(nodes: Nodes, edits: &[(&str, &str)], users: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut secrets, server) = (generate(folder.path()), binary());
        secrets.extend(passwords(users));
        copy_config(folder.path(), edits);
        let mut running = (0..3).map(|number| {
            std::fs::create_dir(folder.path().join(format!("node{}", number + 1))).expect("a folder for the node");
            serve_node(number, (server, folder.path()), &secrets, &nodes)
        });
        let process = running.next().expect("there are three");
        let others = running.collect();
        for port in nodes.clients {
            let address = format!("127.0.0.1:{port}");
            timeout(PATIENCE, listening(&address)).await.expect("every node listens");
        }
        let url = nodes.clients.map(|port| format!("nats://127.0.0.1:{port}")).join(",");
        let config = root().join("nats/local.conf");
        Self { url, secrets, server, config, process, others, nodes: Some(nodes), folder, has_large_streams: false }
    }

    fn node(&mut self, number: usize) -> &mut Running {
        if number == 0 { &mut self.process } else { &mut self.others[number - 1] }
    }

    /// Ends that node, or the one server, with SIGKILL.
    pub(crate) async fn kill_node(&mut self, number: usize) {
        self.node(number).kill().await;
    }

    /// Starts that node, or the one server, again after [`Nats::kill_node`].
    pub(crate) async fn start_node(&mut self, number: usize) {
        let Some(nodes) = &self.nodes else { return self.restart_once_killed().await };
        *self.node(number) = serve_node(number, (self.server, self.folder.path()), &self.secrets, nodes);
    }

    /// Ends that node, or the one server, with SIGTERM, and starts it again.
    pub(crate) async fn restart_node(&mut self, number: usize) {
        self.signal_node(number, "TERM");
        self.node(number).ended().await;
        self.start_node(number).await;
    }

    /// Sends a signal to that node, or to the one server.
    pub(crate) fn signal_node(&mut self, number: usize, name: &str) {
        signal(self.node(number).pid(), name);
    }

    /// Ends another node of the cluster with SIGKILL.
    pub(crate) async fn kill_another(&mut self) {
        self.others.pop().expect("a node is left").kill().await;
    }

    /// The number of nodes in addition to the first.
    pub(crate) fn others(&self) -> usize {
        self.others.len()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Ends it with SIGTERM, at which it writes the positions of its consumers.
    pub(crate) async fn stop(&mut self) {
        signal(self.process.pid(), "TERM");
        self.process.ended().await;
    }

    /// Waits until it has been killed, then starts it again on the same store and port, and waits until it answers.
    pub(crate) async fn restart_once_killed(&mut self) {
        self.process.ended().await;
        let address = self.url.trim_start_matches("nats://").to_owned();
        let (_, port) = address.rsplit_once(':').expect("the URL names a port");
        self.process = serve(self.server, (&self.config, self.folder.path()), &self.secrets, port);
        timeout(PATIENCE, listening(&address)).await.expect("nats-server listens again");
    }

    /// Replaces a text of the configuration of [`Nats::edited`] and restarts the server with it.
    pub(crate) async fn restart_edited(&mut self, from: &str, to: &str) {
        for file in ["local.conf", "server.conf"] {
            let path = self.folder.path().join(file);
            let text = std::fs::read_to_string(&path).expect("a copied file");
            std::fs::write(&path, text.replace(from, to)).expect("the folder can be written");
        }
        self.stop().await;
        self.restart_once_killed().await;
    }

    /// The password of a user.
    pub(crate) fn password(&self, user: &str) -> &str {
        let name = format!("NATS_{}_PASSWORD", user.to_uppercase());
        self.secrets.get(&name).unwrap_or_else(|| panic!("nats/generate-local makes no {name}"))
    }

    /// A connection as that user.
    pub(crate) async fn connect(&self, user: &str) -> async_nats::Client {
        let connect = async {
            loop {
                match self.login_of(user).connect(self.url.split(',').collect::<Vec<_>>()).await {
                    // A server that has just started on a busy machine may not read a login within its two seconds.
                    Err(error) if format!("{error:?}").contains("Authentication Timeout") => {}
                    connected => return connected.expect("the server lets its users in"),
                }
            }
        };
        timeout(PATIENCE, connect).await.expect("the server reads a login")
    }

    /// How that user connects.
    pub(crate) fn login_of(&self, user: &str) -> async_nats::ConnectOptions {
        async_nats::ConnectOptions::with_user_and_password(user.to_owned(), self.password(user).to_owned())
            .custom_inbox_prefix(format!("_INBOX_{user}"))
    }

    /// JetStream for a connection. A busy machine may not sync a write within the client's own five seconds.
    pub(crate) fn jetstream(client: async_nats::Client) -> async_nats::jetstream::Context {
        let mut jetstream = async_nats::jetstream::new(client);
        jetstream.set_timeout(PATIENCE);
        jetstream
    }

    /// An API key, written into the bucket as a worker writes one: `tokenbus api-keys` needs a worker that runs.
    pub(crate) async fn api_key(&self, account: &str, role: &str) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let id = format!("{:012x}", rand::random::<u64>() >> 16);
        let secret = encode(&rand::random::<[u8; 32]>());
        let stored = json!({
            "hash": encode(&Sha256::digest(secret.as_bytes())), "account": account, "role": role, "name": "",
            "created": "2026-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z",
        });
        let jetstream = Self::jetstream(self.connect("setup").await);
        let sent = jetstream.publish(format!("$KV.oauth_api_keys.{id}"), stored.to_string().into()).await;
        sent.expect("sent").await.expect("the bucket takes it");
        format!("tb_{id}_{secret}")
    }

    /// Waits until the server has processed everything that this client sent.
    pub(crate) async fn flush(client: &async_nats::Client) {
        client.request("$SYS.REQ.USER.INFO", "".into()).await.expect("the server says who we are");
    }

    /// Waits until a worker serves nodes' calls. It starts to serve gateways' calls independently, possibly earlier. An
    /// endpoint appears in the service's description once the server knows its subscription.
    pub(crate) async fn serves_nodes(&self) {
        let operator = self.connect("operator").await;
        eventually("all calls of nodes are served", async || {
            let Ok(description) = operator.request("$SRV.INFO.tokenbus", "".into()).await else { return false };
            let description: serde_json::Value =
                serde_json::from_slice(&description.payload).expect("a description is JSON");
            description["endpoints"].as_array().is_some_and(|endpoints| endpoints.len() == NodeCall::ALL.len())
        })
        .await;
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("log")).unwrap_or_default()
    }

    /// URL of the server's own profiles, if it was started with `prof_port`.
    pub(crate) fn profile_url(&self) -> Option<String> {
        ports_file(self.folder.path())?.profile.into_iter().next()
    }

    /// The folder of the server's streams.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

/// The server's binary, fetched once a run.
pub(crate) fn binary() -> &'static str {
    static SERVER: LazyLock<String> = LazyLock::new(|| output(&mut Command::new(root().join("nats/bring-nats"))));
    &SERVER
}

/// Copies the configuration of one server and of a cluster, with the first text of each edit replaced by the second.
fn copy_config(folder: &Path, edits: &[(&str, &str)]) {
    let files = [
        "local.conf",
        "server.conf",
        "pings.conf",
        "accounts.conf",
        "tenants.conf",
        "cluster/node1.conf",
        "cluster/node2.conf",
        "cluster/node3.conf",
    ];
    let read = |file| std::fs::read_to_string(root().join("nats").join(file)).expect("a shipped file");
    let mut texts = files.map(read);
    for (from, to) in edits {
        assert!(texts.iter().any(|text| text.contains(from)), "no file of nats/ has {from}");
        texts = texts.map(|text| text.replace(from, to));
    }
    std::fs::create_dir(folder.join("cluster")).expect("the folder can be written");
    for (file, text) in files.iter().zip(texts) {
        std::fs::write(folder.join(file), text).expect("the folder can be written");
    }
}

async fn listening(address: &str) {
    while tokio::net::TcpStream::connect(address).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Starts a node of a cluster, counted from 0, on its configuration in the folder.
fn serve_node(
    number: usize,
    (server, folder): (&str, &Path),
    secrets: &HashMap<String, String>,
    nodes: &Nodes,
) -> Running {
    let (own, name) = (format!("nats://127.0.0.1:{}", nodes.routes[number]), format!("node{}", number + 1));
    Running::start(Path::new(server), &folder.join(&name).join("log"), |command| {
        command.envs(secrets).arg("-c").arg(folder.join(format!("cluster/{name}.conf")));
        command.args(["-p", &nodes.clients[number].to_string(), "--cluster", &own, "--routes", &nodes.peers[number]]);
        command.arg("-sd").arg(folder.join(&name).join("store"));
    })
}

fn serve(server: &str, (config, folder): (&Path, &Path), secrets: &HashMap<String, String>, port: &str) -> Running {
    Running::start(Path::new(server), &folder.join("log"), |command| {
        command.envs(secrets).arg("-c").arg(config);
        command.args(["-p", port, "--ports_file_dir"]).arg(folder).arg("-sd").arg(folder.join("store"));
    })
}

/// The client URL, from the file that the server writes once it listens.
pub(crate) async fn ports(folder: &Path) -> String {
    let poll = async {
        loop {
            if let Some(url) = ports_file(folder).and_then(|ports| ports.nats.into_iter().next()) {
                return url;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("nats-server listens; nats/bring-nats says which one it is")
}

fn ports_file(folder: &Path) -> Option<Ports> {
    let files = std::fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path());
    let mut text = files.filter(|path| path.extension().is_some_and(|it| it == "ports"));
    text.find_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
}

/// A script's output without the final newline.
fn output(command: &mut Command) -> String {
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("bash runs the script");
    assert!(output.status.success(), "{command:?} failed; its output is above");
    String::from_utf8(output.stdout).expect("a script prints text").trim_end().to_owned()
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
    #[serde(default)]
    profile: Vec<String>,
}
