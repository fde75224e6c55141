//! `keys`, `keys-create`, `keys-revoke`: an admin's calls about the API keys of its own account.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::{Value, json};

use super::list::{self, Page};
use super::status::Failure;
use super::{CallError, bad_request};
use crate::auth::api_key::{self, CreateError, NewKey};
use crate::auth::{ADMINS_ONLY, Role, VerifiedCaller};
use crate::store::StoreError;
use crate::worker::context::Context;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    name: String,
    #[serde(default = "member")]
    role: Role,
    #[serde(default = "expires_days")]
    expires_days: u16,
    #[serde(default)]
    rate_limit: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    key_id: String,
}

fn member() -> Role {
    Role::Member
}

fn expires_days() -> u16 {
    api_key::EXPIRES_DAYS
}

pub(super) async fn list(context: &Context, caller: &VerifiedCaller, page: &Page) -> Result<Value, CallError> {
    check_admin(context, caller)?;
    let keys = api_key::list(&context.nats, Some(&caller.account)).await.map_err(StoreError::from)?;
    let entries: BTreeMap<String, Value> = keys.iter().map(|key| (key.id.clone(), json!(key))).collect();
    let ids: Vec<String> = entries.keys().cloned().collect();
    list::page_of(page, &ids, |id: String| std::future::ready(Ok(entries.get(&id).cloned()))).await
}

pub(super) async fn create(context: &Context, caller: &VerifiedCaller, wanted: Wanted) -> Result<Value, CallError> {
    check_admin(context, caller)?;
    let Wanted { name, role, expires_days, rate_limit } = wanted;
    let lifetime = api_key::days(expires_days).map_err(|error| bad_request(format!("expires_days {error}")))?;
    let new = NewKey { account: caller.account.clone(), role, name, lifetime, rate_limit };
    let (key, listed) = match api_key::create(&context.nats, new, &caller.actor).await {
        Ok(made) => made,
        Err(error @ CreateError::Name) => return Err(bad_request(error)),
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
    check_admin(context, caller)?;
    let (nats, account) = (&context.nats, Some(&caller.account));
    match api_key::revoke(nats, &named.key_id, account, &caller.actor).await.map_err(StoreError::from)? {
        Some(_) => Ok(json!({ "message": "success" })),
        None => Err(CallError::Refused(Failure::NotFound, "no API key with that id".to_owned())),
    }
}

fn check_admin(context: &Context, caller: &VerifiedCaller) -> Result<(), CallError> {
    if caller.is_admin(&context.config.auth.admin_accounts) {
        return Ok(());
    }
    Err(CallError::Refused(Failure::Unauthorized, ADMINS_ONLY.to_owned()))
}
