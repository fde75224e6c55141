//! Servers of a bench. Their configuration has one account with one user that may do everything, so that builds with different
//! NATS users run on them.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};

use crate::support::child::Running;
use crate::support::nats::{binary, ports};

/// User and password of the one NATS user.
pub(crate) const USER: &str = "worker";
pub(crate) const PASSWORD: &str = "bench";
/// Pause between two questions whether a new cluster has its leader.
const PAUSE: Duration = Duration::from_millis(100);

/// One server, or the nodes of a cluster.
pub(crate) struct Servers {
    /// Client URLs, separated by commas.
    pub(crate) url: String,
    nodes: Vec<Running>,
}

impl Servers {
    /// Starts so many nodes, and waits until they have a leader.
    pub(crate) async fn start(folder: &Path, nodes: usize, sync_interval: &str) -> Self {
        let listeners: Vec<TcpListener> =
            (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let routes: Vec<String> = listeners
            .iter()
            .map(|listener| format!("nats://{}", listener.local_addr().expect("it is bound")))
            .collect();
        drop(listeners);
        let (mut processes, mut urls) = (Vec::new(), Vec::new());
        for (number, route) in routes.iter().enumerate() {
            let own = folder.join(format!("node{number}"));
            std::fs::create_dir(&own).expect("the folder can be written");
            let cluster = if nodes == 1 {
                String::new()
            } else {
                format!("cluster {{ name: bench, listen: \"{}\", routes: {routes:?} }}\n", &route["nats://".len()..])
            };
            processes.push(serve(&own, &format!("server_name: bench{number}\n{cluster}"), sync_interval));
            urls.push(ports(&own).await);
        }
        let servers = Self { url: urls.join(","), nodes: processes };
        let jetstream = async_nats::jetstream::new(servers.connect().await);
        while jetstream.query_account().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        servers
    }

    pub(crate) async fn connect(&self) -> Client {
        let options = ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
        options.connect(self.url.split(',').collect::<Vec<_>>()).await.expect("the server lets its user in")
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().map(Running::pid)
    }
}

fn serve(folder: &Path, head: &str, sync_interval: &str) -> Running {
    let config = folder.join("server.conf");
    let text = format!(
        "{head}jetstream {{ store_dir: \"{}\", sync_interval: {sync_interval}, cipher: chachapoly, key: bench_key, \
         max_file_store: 12GB }}\n\
         accounts {{ OAUTH {{ jetstream: enabled, users: [{{ user: {USER}, password: {PASSWORD} }}] }} }}\n",
        folder.join("store").display()
    );
    std::fs::write(&config, text).expect("the folder can be written");
    Running::start(Path::new(binary()), &folder.join("server.log"), |command| {
        command.arg("-c").arg(&config).args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"]).arg(folder);
    })
}
