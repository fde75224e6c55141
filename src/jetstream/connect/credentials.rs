//! Logins by a credentials file or an nkey. The file is read at each connection, because a user's JWT ends and is renewed in
//! place.

use std::path::{Path, PathBuf};

use async_nats::Auth;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use nkeys::KeyPair;

use super::{ConnectError, file};
use crate::config;
use crate::secret::Secret;
use crate::system;

/// The file that proves who this process is.
#[derive(Debug, Clone)]
pub(in crate::jetstream) enum Credentials {
    /// A user's JWT and its seed.
    Creds(PathBuf),
    /// A user's seed.
    Nkey(PathBuf),
}

impl Credentials {
    /// Returns none if the settings name no file.
    pub(in crate::jetstream) fn of(settings: &config::Nats) -> Option<Self> {
        let given = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        given(&settings.creds).map(Self::Creds).or_else(|| given(&settings.nkey).map(Self::Nkey))
    }

    // Without async IO, because the client needs a future that is `Sync`. The file is small, and read once a connection.
    pub(in crate::jetstream) fn read(&self) -> Result<Secret, ConnectError> {
        let (Self::Creds(path) | Self::Nkey(path)) = self;
        std::fs::read_to_string(path).map(Secret::new).map_err(|source| file(path, source))
    }

    /// Returns the file if its JWT has expired by this machine's clock.
    pub(super) fn expired(&self) -> Option<&Path> {
        let Self::Creds(path) = self else { return None };
        let text = self.read().ok()?;
        let end = end_of(jwt_and_seed(text.expose())?.0)?;
        (end < system::now().as_second()).then_some(path)
    }

    /// Answers the server's nonce.
    pub(in crate::jetstream) fn answer(&self, nonce: &[u8]) -> Result<Auth, ConnectError> {
        let text = self.read()?;
        let mut auth = Auth::new();
        let seed = match self {
            Self::Creds(path) => {
                let found = jwt_and_seed(text.expose());
                let (jwt, seed) = found.ok_or_else(|| ConnectError::NoJwt { path: path.display().to_string() })?;
                auth.jwt = Some(jwt.to_owned());
                seed
            }
            Self::Nkey(_) => text.expose().trim(),
        };
        let key = KeyPair::from_seed(seed)?;
        if matches!(self, Self::Nkey(_)) {
            auth.nkey = Some(key.public_key());
        }
        auth.signature = Some(key.sign(nonce)?);
        Ok(auth)
    }
}

/// Returns the end of a JWT in seconds since 1970. The signature is the server's to check.
fn end_of(jwt: &str) -> Option<i64> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&claims).ok()?.get("exp")?.as_i64()
}

/// Returns the two values of a credentials file: each is the line after a `-----BEGIN …` line.
pub(in crate::jetstream) fn jwt_and_seed(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut value = || {
        lines.find(|line| line.starts_with("-----BEGIN "))?;
        lines.next()
    };
    Some((value()?, value()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_files_hold_a_jwt_and_a_seed() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, &str)>) {
            assert_eq!(jwt_and_seed(text), expected, "{text}");
        }
        let jwt = "-----BEGIN NATS USER JWT-----\neyJ.a.b\n------END NATS USER JWT------\n";
        let seed = "-----BEGIN USER NKEY SEED-----\r\n\r\nSUAX\r\n------END USER NKEY SEED------\r\n";
        check(&format!("{jwt}\n*** IMPORTANT ***\n\n{seed}"), Some(("eyJ.a.b", "SUAX")));
        check(jwt, None);
        check("", None);
    }
}
