//! Stored values of form 1, in which only secrets were sealed. `tokenbus setup` replaces the entries and the
//! tombstones; other records stay.

mod migrate;
mod tombstones;

use super::config::WholeConfig;
use super::{Store, StoreError, parse};
use crate::connection::StoredConnection;
use crate::integration::IntegrationOauthConfig;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::CONNECTIONS;

pub(crate) use self::migrate::Migrated;

impl Store {
    /// Opens a config with sealed secrets. They are bound to the token endpoint and the client.
    pub(super) fn config_of_form_1(
        &self,
        bucket: &str,
        key: &str,
        sequence: u64,
        config: &[u8],
    ) -> Result<WholeConfig, StoreError> {
        let config: IntegrationOauthConfig<String> = parse(bucket, key, config)?;
        let bound_to = format!("{} {}", config.token_url, config.client_id);
        let opened = config.map_secrets(|field, sealed| {
            if sealed.is_empty() {
                return Ok(Secret::default());
            }
            let context = SealContext { bucket, key, field, sequence, bound_to: &bound_to };
            self.keyring.open(context, &sealed).map_err(StoreError::seal(format!("{bucket}/{key}")))
        });
        WholeConfig::new(opened?)
    }

    /// Opens a connection's entry with sealed tokens.
    pub(super) fn connection_of_form_1(&self, kv_key: &str, value: &[u8]) -> Result<StoredConnection, StoreError> {
        let mut stored: StoredConnection = parse(CONNECTIONS, kv_key, value)?;
        let connection = &mut stored.connection;
        for (field, token) in
            [("access_token", &mut connection.access_token), ("refresh_token", &mut connection.refresh_token)]
        {
            let Some(sealed) = token.take() else { continue };
            let sequence = connection.sequence;
            let context = SealContext { bucket: CONNECTIONS, key: kv_key, field, sequence, bound_to: "" };
            let opened = self.keyring.open(context, sealed.expose());
            *token = Some(opened.map_err(StoreError::seal(format!("{CONNECTIONS}/{kv_key}")))?);
        }
        Ok(stored)
    }
}
