//! The client for providers and webhooks, and the receivers of webhooks.

use std::sync::Arc;

use anyhow::Context as _;
use tracing::warn;
use url::Url;

use crate::config::{self, AccountWebhooks, Config, Webhooks};
use crate::event::EventKind;
use crate::provider::{Authorities, Client, Guard, Settings};
use crate::secret::Secret;
use crate::subject::Account;
use crate::webhook::{Receiver, Webhook};

/// Builds the client that the settings ask for.
pub(in crate::cli) async fn client(config: &Config) -> anyhow::Result<Client> {
    let authorities = Authorities::load(&config.oauth.ca).await?;
    let settings = Settings {
        guard: guard(config),
        extra_ca_pem: authorities.pem(),
        proxy: config.oauth.proxy.clone(),
        no_proxy: config.oauth.no_proxy.clone(),
        ..Settings::default()
    };
    Ok(Client::new(&settings)?)
}

fn guard(config: &Config) -> Guard {
    Guard {
        allowed_hosts: config.oauth.allowed_hosts.clone(),
        allow_insecure_urls: config.oauth.allow_insecure_urls,
        nat64_prefixes: config.oauth.nat64_prefixes.clone(),
    }
}

/// Operators expect that these variables are used.
pub(super) fn log_unused_proxy(config: &Config) {
    let is_set = |name: &&str| config::env(name).is_some_and(|value| !value.is_empty());
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    if let Some(name) = names.iter().find(|name| is_set(name)).filter(|_| config.oauth.proxy.is_none()) {
        warn!("{name} is set and not used: set `oauth.proxy` if providers are reached through a proxy");
    }
}

/// The receivers of events: one of all accounts' events, and those of single accounts.
pub(in crate::cli) fn receivers(config: &Config) -> anyhow::Result<Vec<Arc<Receiver>>> {
    let guard = guard(config);
    let receiver = |account: Option<&Account>, url: &Url, secrets: [&Secret; 2], events: &[EventKind]| {
        let section = account.map_or("webhooks".to_owned(), |account| format!("accounts.{account}.webhooks"));
        guard.check_url(url).with_context(|| format!("{section}.url"))?;
        let [secret, previous] = secrets;
        let webhook = Webhook::new(url.clone(), secret, previous).with_context(|| format!("{section}.secret"))?;
        anyhow::Ok(Arc::new(Receiver { account: account.cloned(), events: events.to_vec(), webhook }))
    };
    let mut receivers = Vec::new();
    let Webhooks { url, secret, previous_secret, events } = &config.webhooks;
    if let Some(url) = url {
        receivers.push(receiver(None, url, [secret, previous_secret], events)?);
    }
    for (account, settings) in &config.accounts {
        let Some(AccountWebhooks { url, secret, previous_secret, events: own }) = &settings.webhooks else { continue };
        let events = own.as_ref().unwrap_or(events);
        receivers.push(receiver(Some(account), url, [secret, previous_secret], events)?);
    }
    Ok(receivers)
}
