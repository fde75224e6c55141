//! Commands of the demo's nats-servers: one, or a cluster of three on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;

use super::Options;
use super::process::Folder;

const NODES: u32 = 3;

/// A nats-server to start.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) command: Command,
    /// Folder in which the server writes its ports file.
    pub(super) ports_folder: PathBuf,
}

/// Returns the servers that the options ask for.
pub(super) fn commands(options: &Options, folder: &Folder) -> anyhow::Result<Vec<Server>> {
    let Some(configs) = &options.cluster else {
        return Ok(vec![server(options, folder, "nats-server", &options.nats_config)?]);
    };
    let routes = free_addresses(NODES).context("no free ports for the cluster")?;
    let all = routes.join(",");
    let nodes = (1..).zip(&routes).map(|(number, route)| {
        let config = configs.join(format!("node{number}.conf"));
        let mut node = server(options, folder, &format!("nats-server-{number}"), &config)?;
        node.command.args(["--cluster", route, "--routes", &all]);
        Ok(node)
    });
    nodes.collect()
}

fn server(options: &Options, folder: &Folder, name: &str, config: &Path) -> anyhow::Result<Server> {
    let ports_folder = folder.path().join(name);
    std::fs::create_dir(&ports_folder).with_context(|| ports_folder.display().to_string())?;
    let mut command = Command::new(&options.nats_server);
    command.arg("-c").arg(config).args(["-p", "-1", "-sd"]).arg(ports_folder.join("store"));
    command.arg("--ports_file_dir").arg(&ports_folder);
    Ok(Server { name: name.to_owned(), command, ports_folder })
}

/// Free addresses for the routes between nodes. Each node must know them before it starts. The listeners stay open until
/// all ports are chosen, so that no port is chosen twice.
fn free_addresses(count: u32) -> std::io::Result<Vec<String>> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(format!("nats://{}", listener.local_addr()?))).collect()
}

/// Returns the client URL from the server's ports file, or `None` while the file is missing or incomplete.
pub(super) fn address(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let ports: Ports = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports.nats.into_iter().next()
}
