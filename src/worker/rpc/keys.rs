//! `keys`, `keys-create`, `keys-revoke`: calls about API keys, of an account's own admin or of the account ADMIN.
//!
//! A key never has more rights than the credential that makes it, and belongs to the same account. Only a credential of an
//! account in `auth.admin_accounts` makes keys for another account; the account ADMIN lists and revokes those.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::{Value, json};

use super::list::{self, Page};
use super::status::Failure;
use super::{CallError, CallIds, Checked, bad_request, replayed};
use crate::auth::api_key::{self, Author, CreateError, NewKey};
use crate::auth::{ADMINS_ONLY, VerifiedCaller};
use crate::jetstream::NatsError;
use crate::rights::{Grant, Networks, Rights, Role, Scopes, Wish};
use crate::store::StoreError;
use crate::subject::Account;
use crate::worker::context::Context;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// By default, the caller's.
    #[serde(default)]
    pub(super) account: Option<Account>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    scopes: Option<Scopes>,
    #[serde(default)]
    networks: Networks,
    #[serde(default)]
    expires_days: Option<u16>,
    #[serde(default)]
    rate_limit: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    key_id: String,
}

pub(super) async fn list(context: &Context, caller: &VerifiedCaller, page: &Page) -> Result<Value, CallError> {
    check_manages(context, caller, &caller.account)?;
    list_of(context, Some(&caller.account), page).await
}

/// Lists the keys of one account, or of all.
pub(super) async fn list_of(context: &Context, account: Option<&Account>, page: &Page) -> Result<Value, CallError> {
    let keys = api_key::list(&context.nats, account, context.auth.member()).await.map_err(StoreError::from)?;
    let entries: BTreeMap<String, Value> = keys.iter().map(|key| (key.id.clone(), json!(key))).collect();
    let ids: Vec<String> = entries.keys().cloned().collect();
    list::page_of(page, &ids, list::page_bytes(context), |id: String| std::future::ready(Ok(entries.get(&id).cloned())))
        .await
}

pub(super) async fn create(
    context: &Context,
    Checked { caller, ids, permit: _ }: Checked<'_>,
    mut wanted: Wanted,
) -> Result<Value, CallError> {
    let account = wanted.account.take().unwrap_or_else(|| caller.account.clone());
    check_manages(context, caller, &account)?;
    create_for(context, ids, (account, wanted), &caller.rights, &author(context, caller)).await
}

/// Creates a key with rights that `rights` include.
pub(super) async fn create_for(
    context: &Context,
    ids: &CallIds,
    (account, wanted): (Account, Wanted),
    rights: &Rights,
    author: &Author<'_>,
) -> Result<Value, CallError> {
    let Wanted { account: _, name, role, scopes, networks, expires_days, rate_limit } = wanted;
    let grant = match (role, scopes) {
        (Some(_), Some(_)) => return Err(bad_request("name either `role` or `scopes`")),
        (None, Some(scopes)) => Grant::Scopes(scopes),
        (role, None) => Grant::Role(role.unwrap_or(Role::Member)),
    };
    let end = api_key::end_of(expires_days, context.clock.now());
    let end = end.map_err(|error| bad_request(format!("expires_days {error}")))?;
    let member = context.auth.member();
    let rights = rights.derive(Wish { grant, networks, end }, member).map_err(bad_request)?;
    let id = api_key::id_from(ids.random("api key").map_err(StoreError::seal("api key"))?);
    let new = NewKey { id, account, rights, name, rate_limit };
    let (key, listed) = match api_key::create(&context.nats, new, author, member).await {
        Ok(made) => made,
        Err(error @ CreateError::Name) => return Err(bad_request(error)),
        Err(CreateError::Nats(NatsError::WrongLastSequence)) => return Err(replayed()),
        Err(CreateError::Nats(error)) => return Err(StoreError::from(error).into()),
    };
    let mut body = json!(listed);
    if let Some(fields) = body.as_object_mut() {
        // Shown only here: the store has just the hash.
        fields.insert("key".to_owned(), key.expose().into());
    }
    Ok(body)
}

pub(super) async fn revoke(context: &Context, caller: &VerifiedCaller, named: &Named) -> Result<Value, CallError> {
    check_manages(context, caller, &caller.account)?;
    revoke_of(context, Some(&caller.account), named, &author(context, caller)).await?;
    Ok(json!({ "message": "success" }))
}

/// Revokes a key of one account, or of any. Returns its account.
pub(super) async fn revoke_of(
    context: &Context,
    account: Option<&Account>,
    named: &Named,
    author: &Author<'_>,
) -> Result<Account, CallError> {
    let revoked = api_key::revoke(&context.nats, &named.key_id, account, author).await.map_err(StoreError::from)?;
    revoked.ok_or_else(|| CallError::Refused(Failure::NotFound, "no API key with that id".to_owned()))
}

fn author<'a>(context: &Context, caller: &'a VerifiedCaller) -> Author<'a> {
    Author { actor: &caller.actor, origin: caller.origin.for_events(context.config.events.client_address) }
}

/// Checks that the caller, whose credential has the scope, may manage keys of the account.
fn check_manages(context: &Context, caller: &VerifiedCaller, account: &Account) -> Result<(), CallError> {
    let auth = &context.config.auth;
    let is_global = auth.admin_accounts.contains(&caller.account);
    if is_global || (auth.self_service_keys && caller.account == *account) {
        return Ok(());
    }
    context.auth.count_refused_admin(caller, "api_keys");
    Err(CallError::Refused(Failure::Unauthorized, ADMINS_ONLY.to_owned()))
}
