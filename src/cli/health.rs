//! `health`: asks a process on this machine whether it is alive or ready, for images without an HTTP client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use rustls_pki_types::ServerName;
use url::{Host, Url};

use super::print::print_line;
use crate::config::{Config, Http};
use crate::provider::{Health, OwnProcess, OwnTls, own_health};

/// The setting of the gateway's address.
const LISTEN: &str = "http.listen";
/// Longest wait for the answer. Longer than the gateway's readiness check, which may take 10 s, so that its reason arrives.
const TIMEOUT: Duration = Duration::from_secs(12);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Ask whether the process is ready (`/readyz`), not only whether it is alive (`/healthz`).
    #[arg(long)]
    ready: bool,
    /// Role of the process: a worker answers at `http.metrics_listen`, a gateway at `http.listen`.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Gateway and worker in one process.
    All,
    /// The HTTP gateway.
    Edge,
    /// A worker.
    Worker,
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let http = &config.http;
    let (setting, address) = listener(http, options.role)?;
    let has_tls = setting == LISTEN && !http.tls_cert.as_os_str().is_empty();
    ensure!(address.port() != 0, "`{setting}` has port 0, so the port of the running process is not known");
    let (scheme, path) = (if has_tls { "https" } else { "http" }, if options.ready { "/readyz" } else { "/healthz" });
    let address = reachable(address);
    let tls = if has_tls {
        let name = certificate_name(http.public_url.as_ref(), address).context("`http.public_url`")?;
        Some(OwnTls { name, ca_pem: read_ca(&http.health_ca)? })
    } else {
        None
    };
    let url = format!("{scheme}://{address}{path}");
    let process = OwnProcess { address, path, tls };
    let Health { status, text } = own_health(process, TIMEOUT).await.with_context(|| url.clone())?;
    if status != 200 {
        bail!("{url} answers {status}: {}", text.trim());
    }
    print_line(text.trim())
}

/// The name or address that the gateway's certificate must have: the one by which others reach the gateway.
fn certificate_name(public_url: Option<&Url>, address: SocketAddr) -> anyhow::Result<ServerName<'static>> {
    Ok(match public_url.and_then(Url::host) {
        Some(Host::Domain(name)) => ServerName::try_from(name.to_owned())?,
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).into(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).into(),
        None => address.ip().into(),
    })
}

/// The setting and the address of the listener that answers a process on this machine.
fn listener(http: &Http, role: Role) -> anyhow::Result<(&'static str, SocketAddr)> {
    // A trusted proxy has to begin with a header, and this command sends none.
    let address = reachable(http.listen).ip().to_canonical();
    let is_proxy = http.proxy_protocol && http.trusted_proxies.iter().any(|network| network.contains(&address));
    match (role, http.metrics_listen) {
        (Role::All | Role::Edge, _) if !is_proxy => Ok((LISTEN, http.listen)),
        (_, Some(address)) => Ok(("http.metrics_listen", address)),
        (Role::Worker, None) => bail!("a worker answers only if `http.metrics_listen` is set"),
        (Role::All | Role::Edge, None) => bail!(
            "`http.trusted_proxies` has this machine, so the gateway expects a header of the PROXY protocol from it: set \
             `http.metrics_listen`, which answers without one"
        ),
    }
}

fn read_ca(path: &Path) -> anyhow::Result<Option<String>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let pem = std::fs::read_to_string(path);
    pem.map(Some).with_context(|| format!("http.health_ca: cannot read {}", path.display()))
}

/// The address at which a listener on all addresses is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}
