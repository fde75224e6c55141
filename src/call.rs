//! The calls between gateways and workers, and the HTTP operations that make them: one table of their names, their routes,
//! and the content of signed requests.
//!
//! All matches on [`Call`] and [`Operation`] are exhaustive. A new call does not compile without an operation, a rule for
//! signed requests and a handler in the worker; a new operation does not compile without a route and a handler in the
//! gateway.

mod question;

pub(crate) use self::question::Question;
use crate::subject::{self, NodeCall, Verb};

/// Path of start links, which the gateway writes into answers.
pub(crate) const START_PATH: &str = "/hub/integrations/oauth-start";

/// Path of callbacks.
pub(crate) const CALLBACK_PATH: &str = "/hub/integrations/oauth-callback";

/// Declares an enum and its list of all variants, so that the list cannot miss one.
macro_rules! listed_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

listed_enum! {
    /// A call of a gateway to the workers, on `oauth.edge.<name>`.
    pub enum Call {
        /// Checks that a worker answers and reaches the streams and buckets.
        Ready,
        /// Returns the login that a state belongs to. The state is the credential.
        State,
        /// Returns what became of a login, also after its state was used. The state is the credential, with the browser's
        /// cookie if the login is bound.
        Outcome,
        /// Returns who asks for what with a start link, for its page. The ticket in the link is the credential, and
        /// stays usable.
        Ticket,
        /// Uses up the ticket of a start link and returns the provider's URL. The ticket is the credential.
        Start,
        /// Returns the account that the credential acts for. Precedes a command about a config.
        Whoami,
        Config,
        Configs,
        /// Returns a provider's profile.
        Provider,
        Providers,
        Keys,
        KeysCreate,
        KeysRevoke,
        Token,
        List,
        Login,
        Refresh,
        Delete,
    }
}

listed_enum! {
    /// A call of the account ADMIN, on `oauth.admin.<name>`. The account is the credential.
    pub(crate) enum AdminCall {
        /// Lists API keys of one account or of all.
        Keys,
        KeysCreate,
        KeysRevoke,
        /// Returns audit events in the order in which they were stored.
        Events,
        /// Lists dead letters.
        Dead,
        /// Returns advice on how to get a dead letter's command done.
        DeadRetry,
        DeadDrop,
    }
}

impl AdminCall {
    /// The last token of the call's subject.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::KeysCreate => "keys-create",
            Self::KeysRevoke => "keys-revoke",
            Self::Events => "events",
            Self::Dead => "dead",
            Self::DeadRetry => "dead-retry",
            Self::DeadDrop => "dead-drop",
        }
    }

    pub(crate) fn subject(self) -> String {
        subject::admin_call(self.as_str())
    }

    pub(crate) fn parse_subject(subject: &str) -> Option<Self> {
        let name = subject::parse_admin_call(subject)?;
        Self::ALL.iter().copied().find(|call| call.as_str() == name)
    }
}

listed_enum! {
    /// An operation of the HTTP interface: a method on one path or several.
    pub(crate) enum Operation {
        Callback,
        CallbackForm,
        StartPage,
        Start,
        ListConfigs,
        GetConfig,
        PutConfig,
        DeleteConfig,
        ListProviders,
        GetProvider,
        Login,
        ListConnections,
        Token,
        Refresh,
        Revoke,
        ListKeys,
        CreateKey,
        RevokeKey,
        Health,
        Ready,
        Metrics,
        OpenApi,
    }
}

/// A method and the path patterns that take it. `{name}` in a pattern matches one segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) paths: &'static [&'static str],
}

/// The part of a signed HTTP request that must equal the call's body, so that the gateway cannot use the signature for
/// another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignedContent {
    /// The names in the path and the parameters of the query.
    PathAndQuery,
    /// The parameters of the query. The command that follows the call is checked against the path.
    Query,
    /// Signed requests cannot make this call.
    NotSigned,
}

impl Call {
    /// The last token of the call's subject.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::State => "state",
            Self::Outcome => "outcome",
            Self::Ticket => "ticket",
            Self::Start => "start",
            Self::Whoami => "whoami",
            Self::Config => "config",
            Self::Configs => "configs",
            Self::Provider => "provider",
            Self::Providers => "providers",
            Self::Keys => "keys",
            Self::KeysCreate => "keys-create",
            Self::KeysRevoke => "keys-revoke",
            Self::Token => NodeCall::Token.as_str(),
            Self::List => NodeCall::List.as_str(),
            Self::Login => NodeCall::Login.as_str(),
            Self::Refresh => NodeCall::Refresh.as_str(),
            Self::Delete => NodeCall::Delete.as_str(),
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|call| call.as_str() == name)
    }

    pub(crate) fn subject(self) -> String {
        subject::edge_call(self.as_str())
    }

    /// Subject of the call's second try: all workers for a call that only reads, one worker for a call whose second try does no
    /// harm. Each try of a login begins a login of its own, a second refresh joins the first, and a second deletion finds the
    /// first one's tombstone. Of other calls, only the first try is sent.
    pub(crate) fn again(self) -> Option<String> {
        match self {
            Self::Keys | Self::Login | Self::Refresh | Self::Delete => Some(self.subject()),
            Self::Start | Self::KeysCreate | Self::KeysRevoke => None,
            Self::State
            | Self::Whoami
            | Self::Config
            | Self::Configs
            | Self::Provider
            | Self::Providers
            | Self::Token
            | Self::List
            | Self::Ready
            | Self::Outcome
            | Self::Ticket => Some(subject::again_call(self.as_str())),
        }
    }

    pub(crate) fn parse_subject(subject: &str) -> Option<Self> {
        let again = || subject::parse_again_call(subject).and_then(Self::parse).filter(|call| call.only_reads());
        subject::parse_edge_call(subject).and_then(Self::parse).or_else(again)
    }

    /// The HTTP operations that make this call.
    pub(crate) fn operations(self) -> &'static [Operation] {
        match self {
            Self::Ready => &[Operation::Ready],
            Self::State => &[Operation::Callback, Operation::CallbackForm],
            Self::Outcome => &[Operation::Callback],
            Self::Ticket => &[Operation::StartPage],
            Self::Start => &[Operation::Start],
            Self::Whoami => &[Operation::PutConfig, Operation::DeleteConfig],
            Self::Config => &[Operation::GetConfig],
            Self::Configs => &[Operation::ListConfigs],
            Self::Provider => &[Operation::GetProvider],
            Self::Providers => &[Operation::ListProviders],
            Self::Keys => &[Operation::ListKeys],
            Self::KeysCreate => &[Operation::CreateKey],
            Self::KeysRevoke => &[Operation::RevokeKey],
            Self::Token => &[Operation::Token],
            Self::List => &[Operation::ListConnections],
            Self::Login => &[Operation::Login],
            Self::Refresh => &[Operation::Refresh],
            Self::Delete => &[Operation::Revoke],
        }
    }

    pub(crate) fn signed_content(self) -> SignedContent {
        match self {
            Self::Config
            | Self::Configs
            | Self::Provider
            | Self::Providers
            | Self::Token
            | Self::List
            | Self::Login
            | Self::Refresh
            | Self::Delete => SignedContent::PathAndQuery,
            Self::Whoami => SignedContent::Query,
            // The first five carry no credential. The others are for admins, and a signer is never one.
            Self::Ready
            | Self::State
            | Self::Outcome
            | Self::Ticket
            | Self::Start
            | Self::Keys
            | Self::KeysCreate
            | Self::KeysRevoke => SignedContent::NotSigned,
        }
    }

    /// Returns true if all workers may carry out the call at once.
    pub(crate) fn only_reads(self) -> bool {
        self.again().is_some_and(|again| again != self.subject())
    }

    /// Returns true for a call that leads to a command. `State` is one of them: the callback's command follows it.
    pub(crate) fn leads_to_command(self) -> bool {
        matches!(self, Self::State | Self::Refresh | Self::Delete)
    }

    /// Returns true if the worker may start a command and wait for it. Such a call may take as long as a command.
    pub(crate) fn starts_command(self) -> bool {
        match self {
            Self::Token | Self::Refresh | Self::Delete => true,
            Self::Ready
            | Self::State
            | Self::Outcome
            | Self::Ticket
            | Self::Start
            | Self::Whoami
            | Self::Config
            | Self::Configs
            | Self::Provider
            | Self::Providers
            | Self::Keys
            | Self::KeysCreate
            | Self::KeysRevoke
            | Self::List
            | Self::Login => false,
        }
    }
}

impl Operation {
    /// HEAD has no route: on the callback it would use up the state, and no client needs it elsewhere.
    pub(crate) fn route(self) -> Route {
        match self {
            Self::Callback => Route::get(&[CALLBACK_PATH]),
            Self::CallbackForm => Route::post(&[CALLBACK_PATH]),
            Self::StartPage => Route::get(&[START_PATH]),
            Self::Start => Route::post(&[START_PATH]),
            Self::ListConfigs => Route::get(&["/hub/integrations/oauth-config"]),
            Self::GetConfig => Route::get(&[
                "/hub/integrations/oauth-config/{integration_id}",
                "/hub/integrations/{integration_id}/oauth-config",
            ]),
            Self::PutConfig => Route::put(&["/hub/integrations/{integration_id}/oauth-config"]),
            Self::DeleteConfig => Route::delete(&["/hub/integrations/{integration_id}/oauth-config"]),
            Self::ListProviders => Route::get(&["/hub/providers"]),
            Self::GetProvider => Route::get(&["/hub/providers/{provider}"]),
            Self::Login => Route::get(&["/hub/integrations/{integration_id}/oauth-login/{connection_id}"]),
            Self::ListConnections => Route::get(&[
                "/hub/integrations/oauth-connections",
                "/hub/integrations/{integration_id}/oauth-connections",
            ]),
            Self::Token => Route::get(&["/hub/integrations/{integration_id}/oauth-token/{connection_id}"]),
            Self::Refresh => Route::get(&["/hub/integrations/{integration_id}/oauth-refresh-token/{connection_id}"]),
            Self::Revoke => Route::delete(&["/hub/integrations/{integration_id}/oauth-connections/{connection_id}"]),
            Self::ListKeys => Route::get(&["/hub/api-keys"]),
            Self::CreateKey => Route::post(&["/hub/api-keys"]),
            Self::RevokeKey => Route::delete(&["/hub/api-keys/{key_id}"]),
            Self::Health => Route::get(&["/healthz"]),
            Self::Ready => Route::get(&["/readyz"]),
            Self::Metrics => Route::get(&["/metrics"]),
            Self::OpenApi => Route::get(&["/openapi.json"]),
        }
    }

    /// The operation that sends a command of this verb. Only workers send refreshes and revocations.
    pub(crate) fn of_command(verb: Verb) -> Option<Self> {
        match verb {
            Verb::Exchange => Some(Self::Callback),
            Verb::Put => Some(Self::PutConfig),
            Verb::Delete => Some(Self::DeleteConfig),
            Verb::Refresh | Verb::Revoke => None,
        }
    }

    /// Returns the placeholders of the first pattern that matches, each with its segment of the path. Segments stay
    /// percent-encoded.
    pub(crate) fn names<'a>(self, method: &str, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
        let route = self.route();
        if route.method != method {
            return None;
        }
        route.paths.iter().find_map(|pattern| names(pattern, path))
    }
}

impl Route {
    const fn get(paths: &'static [&'static str]) -> Self {
        Self { method: "GET", paths }
    }

    const fn put(paths: &'static [&'static str]) -> Self {
        Self { method: "PUT", paths }
    }

    const fn post(paths: &'static [&'static str]) -> Self {
        Self { method: "POST", paths }
    }

    const fn delete(paths: &'static [&'static str]) -> Self {
        Self { method: "DELETE", paths }
    }
}

fn names<'a>(pattern: &'static str, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut names = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(names),
            (Some(wanted), Some(given)) => match wanted.strip_prefix('{').and_then(|wanted| wanted.strip_suffix('}')) {
                Some(name) => names.push((name, given)),
                None if wanted == given => {}
                None => return None,
            },
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
}

#[cfg(test)]
mod tests;
