//! Calls of gateways. Each is authenticated by the credential that it carries, or by the state or ticket that it asks about.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::status::Failure;
use super::{CallError, CallIds, Checked, QUEUE, Running, answer_call, keys, list, log_and_build_answer, login};
use super::{no_config, outcome, parse, providers, sealed, send, shortened};
use crate::auth::{AuthError, Purpose, VerifiedCaller};
use crate::call::{Call, Question};
use crate::command::{Credential, Origin};
use crate::jetstream::ConnectError;
use crate::jetstream::receiver::{Received, Receiver, Subscription};
use crate::login::{UNKNOWN_STATE, hash_of};
use crate::oauth::callback;
use crate::protocol::calls::SealedCall;
use crate::protocol::{commands, origin, topology};
use crate::secret::Secret;
use crate::store::{FoundLogin, StoreError};
use crate::subject::{self, Integration, NodeCall};
use crate::telemetry::traces;
use crate::worker::context::{Busy, CallPermit, Calls, Context, Room};

/// Text for callers whose credential an empty store does not know.
const STORE_EMPTY: &str = "the store is empty, and no operator has confirmed that; an operator finds more at `/readyz` and in the worker's log";

/// Serves calls until `stop`, then finishes the running ones.
pub(super) async fn serve(context: Arc<Context>, stop: CancellationToken) -> Result<(), ConnectError> {
    // Second tries reach all workers: the one that has the first try may be stopped.
    let subscriptions = vec![
        Subscription { subject: subject::EDGE_CALLS.to_owned(), queue: Some(QUEUE) },
        Subscription { subject: subject::AGAIN_CALLS.to_owned(), queue: None },
    ];
    let receiver =
        Receiver::new(&context.nats, &context.config.nats, "tokenbus worker: calls of gateways", subscriptions)?;
    let running = Running::new(Arc::clone(&context), (HeaderMap::new(), sealed::busy()));
    let start = |message: Received| {
        let Some(reply) = message.reply.clone() else { return };
        // A refused call is not opened, which takes as much of the CPU as a read. So its account is not known.
        let queued = if is_own(&message.subject) {
            context.limits.gateway_calls.queue_first()
        } else if running.is_full() {
            Err(Busy)
        } else {
            permits(&context, &message.subject).queue_of(&SealedCall::client_of(&message.payload))
        };
        let Ok(queued) = queued else { return running.refuse(reply) };
        running.start_queued(queued, reply, async move |context, permit, reply| {
            // Boxed, because the future of a call is large.
            Box::pin(answer(context, message, permit, reply)).await;
        });
    };
    receiver.run(start, stop).await;
    running.drain().await;
    Ok(())
}

/// Returns the permits for a call of that subject. Lists exchange theirs once their account is known.
fn permits<'a>(context: &'a Context, subject: &str) -> &'a Arc<Calls> {
    if Call::parse_subject(subject).is_some_and(Call::leads_to_command) {
        &context.limits.command_calls
    } else {
        &context.limits.gateway_calls
    }
}

/// Returns true for a call that a gateway makes on its own, and not for each request of a client.
fn is_own(subject: &str) -> bool {
    Call::parse_subject(subject).map_or_else(|| subject::is_seal_key_call(subject), |call| call == Call::Ready)
}

async fn answer(context: Arc<Context>, message: Received, permit: Arc<CallPermit>, reply: String) {
    let call = Call::parse_subject(&message.subject);
    let serve = async |question, ids| {
        let Question { credential, origin, traceparent, body } = question;
        let traceparent = traceparent.as_deref().map(shortened);
        let span = info_span!("call", call = call.map_or("unknown", Call::as_str), traceparent);
        let unverified = UnverifiedCaller { credential, origin, ids, permit };
        let done = match call {
            Some(call) => {
                let traced = traces::call(call.as_str());
                traces::continued(&traced, traceparent.as_deref());
                // Boxed, because the future of a call is large.
                let done = Box::pin(dispatch(&context, call, unverified, body.get().as_bytes()));
                done.instrument(span.clone()).instrument(traced).await
            }
            None => Err(CallError::Refused(Failure::NotFound, "no such call".to_owned())),
        };
        log_and_build_answer(&span, done)
    };
    let answer = Box::pin(sealed::answer(&context, &message, serve)).await;
    send(&context, reply, HeaderMap::new(), answer).await;
}

/// A caller before its credential is checked.
struct UnverifiedCaller {
    credential: Option<Credential>,
    origin: Origin,
    ids: CallIds,
    permit: Arc<CallPermit>,
}

/// A caller with the right to run its call.
struct Admitted {
    caller: VerifiedCaller,
    ids: CallIds,
    permit: Arc<CallPermit>,
}

impl Admitted {
    fn checked(&self) -> Checked<'_> {
        let Self { caller, ids, permit } = self;
        Checked { caller, ids, permit }
    }
}

/// Checks the credential. Exchanges the permit of a call for a page, which takes long.
async fn admit(
    context: &Context,
    call: Call,
    unverified: UnverifiedCaller,
    body: &[u8],
) -> Result<Admitted, CallError> {
    let UnverifiedCaller { credential, origin, ids, permit } = unverified;
    let credential = credential.as_ref().ok_or(AuthError::Missing)?;
    let caller = match context.auth.authenticate(credential, Purpose::Call { call, body }, &origin).await {
        // An empty store knows no API key. The caller's may be right.
        Err(AuthError::Rejected(_)) if is_unconfirmed(context).await? => {
            return Err(CallError::Refused(Failure::Unavailable, STORE_EMPTY.to_owned()));
        }
        caller => caller?,
    };
    context.auth.admit(&caller)?;
    if !matches!(call, Call::List | Call::Configs | Call::Providers | Call::Keys) {
        return Ok(Admitted { caller, ids, permit });
    }
    let queued = context.limits.lists.queue(caller.account.as_str())?;
    permit.release();
    Ok(Admitted { caller, ids, permit: Arc::new(queued.permit().await?) })
}

/// Returns true while the store is empty and no operator has confirmed that. Asks NATS only if this worker has seen it empty.
async fn is_unconfirmed(context: &Context) -> Result<bool, StoreError> {
    Ok(context.data_is_gone.load(Ordering::Relaxed) && origin::check(&context.nats).await?.is_err())
}

async fn dispatch(
    context: &Context,
    call: Call,
    unverified: UnverifiedCaller,
    body: &[u8],
) -> Result<Value, CallError> {
    let permit = Arc::clone(&unverified.permit);
    let admitted = admit(context, call, unverified, body);
    match call {
        Call::Ready => ready(context, body).await,
        Call::State => state(context, parse(body)?, &permit).await,
        Call::Outcome => outcome::outcome(context, parse(body)?).await,
        Call::Ticket => login::describe(context, parse(body)?).await,
        Call::Start => login::start(context, parse(body)?).await,
        Call::Whoami => Ok(whoami(context, &admitted.await?.caller)),
        Call::Config => config(context, &admitted.await?.caller, &parse::<ConfigQuestion>(body)?).await,
        Call::Configs => {
            let _admitted = admitted.await?;
            list::configs(context, parse(body)?).await
        }
        Call::Provider => {
            let _admitted = admitted.await?;
            providers::get(context, &parse(body)?).await
        }
        Call::Providers => {
            let _admitted = admitted.await?;
            providers::list(context).await
        }
        Call::Keys => keys::list(context, &admitted.await?.caller, &parse(body)?).await,
        Call::KeysCreate => keys::create(context, admitted.await?.checked(), parse(body)?).await,
        Call::KeysRevoke => keys::revoke(context, &admitted.await?.caller, &parse(body)?).await,
        Call::Token => answer_call(context, admitted.await?.checked(), NodeCall::Token, body).await,
        Call::List => answer_call(context, admitted.await?.checked(), NodeCall::List, body).await,
        Call::Login => answer_call(context, admitted.await?.checked(), NodeCall::Login, body).await,
        Call::Refresh => answer_call(context, admitted.await?.checked(), NodeCall::Refresh, body).await,
        Call::Delete => answer_call(context, admitted.await?.checked(), NodeCall::Delete, body).await,
    }
}

/// Checks that a worker takes commands, that the streams and buckets of logins, refreshes and reads answer, and that the
/// server stores a message.
/// Workers check this, because a gateway has no permission for the JetStream API. Dead letters, nonces and checkpoints
/// are left out: not every login, refresh or read needs them.
async fn ready(context: &Context, question: &[u8]) -> Result<Value, CallError> {
    // `null` from a gateway that has nothing to add.
    let question: Option<ReadyQuestion> = parse(question)?;
    if question.is_some_and(|question| question.test_writes) {
        context.nats.set_lacks_space(true);
    }
    // A worker whose clock is off takes no commands, but any worker may be asked.
    if let Err(error) = context.clock.check()
        && !commands::has_worker(&context.nats).await.map_err(StoreError::from)?
    {
        return Err(CallError::Refused(Failure::Unavailable, error.to_string()));
    }
    let reachable = topology::check_reachable(&context.nats).await;
    reachable.map_err(|error| CallError::Refused(Failure::Unavailable, error.to_string()))?;
    let confirmed = origin::check(&context.nats).await.map_err(StoreError::from)?;
    confirmed.map_err(|error| CallError::Refused(Failure::Unavailable, error.to_string()))?;
    let room = context.room.check_all(&context.nats).await;
    room.map_err(|error| CallError::Refused(Failure::Unavailable, error.to_string()))?;
    let majority = Room::check_majority(&context.nats).await;
    majority.map_err(|error| CallError::Refused(Failure::Unavailable, error.to_string()))?;
    Ok(json!({ "ready": true, "tracks_restarts": context.restarts.are_tracked() }))
}

fn whoami(context: &Context, caller: &VerifiedCaller) -> Value {
    let may_change_configs = caller.may_change_configs(&context.config.auth.admin_accounts);
    // The question precedes a change of a config, which the gateway then refuses.
    if !may_change_configs {
        context.auth.count_refused_admin(caller, "configs");
    }
    json!({
        "account": caller.account,
        "scopes": caller.rights.scopes,
        "admin": may_change_configs,
        "seal_to": context.store.keyring.seal_to(),
    })
}

#[derive(Deserialize)]
struct ReadyQuestion {
    /// The server has left a command of this gateway unanswered.
    #[serde(default)]
    test_writes: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateQuestion {
    state: Secret,
    /// Id of the asking command: a login that this command has consumed itself does not count as used.
    #[serde(default)]
    command_id: Option<String>,
    /// True to learn which parameters of the callback are read.
    #[serde(default)]
    parameters: bool,
}

/// Returns the login that a state belongs to. The state is the credential. The gateway asks before it queues a callback.
async fn state(context: &Context, question: StateQuestion, permit: &CallPermit) -> Result<Value, CallError> {
    match context.store.login(&hash_of(&question.state)).await? {
        FoundLogin::Pending { login, .. } if question.parameters => {
            let config = context.store.config(&login.integration).await?;
            Ok(json!({ "parameters": config.map(|config| callback::parameters(&config)) }))
        }
        FoundLogin::Pending { account, login, revision: _ } => {
            if question.command_id.is_none() {
                permit.reserve();
            }
            Ok(json!({
                "account": account,
                "integration_id": login.integration,
                "integration_name": login.integration_name,
                "connection_id": login.name,
                "return_to": login.return_to,
                "seal_to": context.store.keyring.seal_to(),
            }))
        }
        FoundLogin::Used { command_id, .. } if Some(&command_id) == question.command_id.as_ref() => {
            Ok(json!({ "command_id": command_id }))
        }
        FoundLogin::Unknown | FoundLogin::Used { .. } => {
            Err(CallError::Refused(Failure::Unauthorized, UNKNOWN_STATE.to_owned()))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigQuestion {
    integration_id: Integration,
    /// True to see all settings, if the caller may change them.
    #[serde(default)]
    settings: bool,
}

async fn config(context: &Context, caller: &VerifiedCaller, question: &ConfigQuestion) -> Result<Value, CallError> {
    let config = context.store.config(&question.integration_id).await?.ok_or_else(no_config)?;
    let mut shown = json!(config.basic());
    if question.settings
        && caller.may_change_configs(&context.config.auth.admin_accounts)
        && let Some(fields) = shown.as_object_mut()
    {
        let settings = config.shown().map_err(StoreError::unreadable("a config to be shown"))?;
        fields.insert("settings".to_owned(), settings.into());
    }
    Ok(shown)
}
