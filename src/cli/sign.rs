//! `sign`: the headers of a request that a NATS user signs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use nkeys::{KeyPair, KeyPairType};
use url::Url;

use super::print::say;
use crate::secret::Secret;
use crate::signed::{self, HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP, SCHEME, SignedRequest};
use crate::system;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The user's credentials file, with its JWT and its nkey seed.
    #[arg(long, value_name = "FILE", required_unless_present = "nkey", conflicts_with_all = ["nkey", "jwt"])]
    creds: Option<PathBuf>,
    /// A file with the user's nkey seed.
    #[arg(long, value_name = "FILE", requires = "jwt")]
    nkey: Option<PathBuf>,
    /// A file with the user's JWT.
    #[arg(long, value_name = "FILE", requires = "nkey")]
    jwt: Option<PathBuf>,
    /// A file with the request's body, sent as it is.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The request's method.
    method: String,
    /// The request's URL, as it is sent.
    url: Url,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let Options { creds, nkey, jwt, body, json, method, url } = options;
    let (jwt, seed) = match (creds, nkey, jwt) {
        (Some(creds), _, _) => parts(creds)?,
        (None, Some(nkey), Some(jwt)) => (read(jwt)?, read(nkey)?),
        _ => bail!("give --creds, or --nkey and --jwt"),
    };
    let user = KeyPair::from_seed(seed.expose()).ok().filter(|key| key.key_pair_type() == KeyPairType::User);
    let user = user.context("not the nkey seed of a user (SU…)")?;
    let body = match body {
        Some(path) => std::fs::read(path).with_context(|| path.display().to_string())?,
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
        return say(&serde_json::Value::Object(headers).to_string());
    }
    headers.iter().try_for_each(|(name, value)| say(&format!("{name}: {value}")))
}

fn read(path: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Secret::new(text.trim()))
}

/// JWT and seed of a credentials file: the lines behind `-----BEGIN …` and before `------END …`.
fn parts(path: &Path) -> anyhow::Result<(Secret, Secret)> {
    let text = read(path)?;
    let part = |name: &str| {
        let behind = text.expose().split_once(&format!("BEGIN {name}"))?.1;
        behind.lines().skip(1).map(str::trim).find(|line| !line.is_empty()).map(Secret::new)
    };
    let found = part("NATS USER JWT").zip(part("USER NKEY SEED"));
    found.with_context(|| format!("{}: no credentials file with a user's JWT and nkey seed", path.display()))
}
