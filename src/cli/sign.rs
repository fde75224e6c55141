//! `sign`: signs an HTTP request as a NATS user and prints its headers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use nkeys::{KeyPair, KeyPairType};
use url::Url;

use super::print::print_line;
use crate::secret::Secret;
use crate::signed::{self, HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP, SCHEME, SignedRequest};
use crate::system;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Credentials file of the user, with JWT and nkey seed.
    #[arg(long, value_name = "FILE", required_unless_present = "nkey", conflicts_with_all = ["nkey", "jwt"])]
    creds: Option<PathBuf>,
    /// File with the user's nkey seed.
    #[arg(long, value_name = "FILE", requires = "jwt")]
    nkey: Option<PathBuf>,
    /// File with the user's JWT.
    #[arg(long, value_name = "FILE", requires = "nkey")]
    jwt: Option<PathBuf>,
    /// File with the request's body, byte for byte.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// HTTP method.
    method: String,
    /// URL, exactly as it will be sent.
    url: Url,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { creds, nkey, jwt, body, json, method, url } = options;
    let (jwt, seed) = match (creds, nkey, jwt) {
        (Some(creds), _, _) => read_credentials(creds)?,
        (None, Some(nkey), Some(jwt)) => (read(jwt)?, read(nkey)?),
        _ => bail!("pass --creds, or --nkey and --jwt"),
    };
    let user = KeyPair::from_seed(seed.expose()).ok().filter(|key| key.key_pair_type() == KeyPairType::User);
    let user = user.context("not the nkey seed of a user (SU…)")?;
    let body = match body {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => Vec::new(),
    };
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let request = SignedRequest {
        jwt,
        timestamp: system::now().as_second(),
        nonce: system::random_id(),
        method: method.to_uppercase(),
        target: Secret::new(target),
        body_hash: signed::hash(&body),
    };
    let signature = user.sign(request.text().expose().as_bytes()).context("cannot sign")?;
    let headers = [
        ("authorization", format!("{SCHEME} {}", request.jwt.expose())),
        (HEADER_TIMESTAMP, request.timestamp.to_string()),
        (HEADER_NONCE, request.nonce),
        (HEADER_SIGNATURE, BASE64_URL_SAFE_NO_PAD.encode(signature)),
    ];
    if *json {
        let headers: serde_json::Map<_, _> =
            headers.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
        return print_line(&serde_json::Value::Object(headers).to_string());
    }
    headers.iter().try_for_each(|(name, value)| print_line(&format!("{name}: {value}")))
}

fn read(path: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Secret::new(text.trim()))
}

/// Reads JWT and seed from a credentials file. Each is the first line after its `-----BEGIN …` line.
fn read_credentials(path: &Path) -> anyhow::Result<(Secret, Secret)> {
    let text = read(path)?;
    let part = |name: &str| {
        let rest = text.expose().split_once(&format!("BEGIN {name}"))?.1;
        rest.lines().skip(1).map(str::trim).find(|line| !line.is_empty()).map(Secret::new)
    };
    let found = part("NATS USER JWT").zip(part("USER NKEY SEED"));
    found.with_context(|| format!("{}: not a credentials file with a user's JWT and nkey seed", path.display()))
}
