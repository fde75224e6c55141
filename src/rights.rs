//! The rights of a credential: its scopes, the networks that it may be used from, and its end.
//!
//! A credential with the scope `keys:write` makes keys. No key has more rights than the credential that made it
//! ([`Rights::derive`]), so a leaked narrow key cannot be exchanged for a wider one.

mod networks;
mod scope;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use self::networks::Networks;
pub(crate) use self::scope::{Scope, Scopes};

/// A name for a set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// All scopes. Configs also need an account in `auth.admin_accounts`, and so do API keys without
    /// `auth.self_service_keys`.
    Admin,
    /// The scopes in `auth.member_scopes`.
    Member,
}

/// The scopes of a key: a fixed set, or those that its role has at the time of its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grant {
    Role(Role),
    Scopes(Scopes),
}

impl Grant {
    /// `member` is the set of the role `member`.
    #[must_use]
    pub(crate) fn scopes(&self, member: &Scopes) -> Scopes {
        match self {
            Self::Role(Role::Admin) => Scopes::all(),
            Self::Role(Role::Member) => member.clone(),
            Self::Scopes(scopes) => scopes.clone(),
        }
    }
}

/// The scopes, networks and end of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) scopes: Scopes,
    pub(crate) networks: Networks,
    /// Latest end of a key that the credential creates. `None` for credentials that are not keys: a person's JWT lives for
    /// minutes and may create a key for months.
    pub(crate) end: Option<Timestamp>,
}

/// The wished rights of a new key.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub grant: Grant,
    /// If empty, the key gets the networks of its creator.
    pub networks: Networks,
    pub end: End,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// The time that the caller wants: granted or refused.
    At(Timestamp),
    /// The default, which the creator's own end may bring forward.
    AtMost(Timestamp),
}

/// The rights of a new key, none of them wider than those of its creator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Derived {
    pub grant: Grant,
    pub networks: Networks,
    pub end: Timestamp,
}

/// A wish for more than the credential has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooWide {
    #[error("the key would have scopes that this credential lacks: {0}; name fewer in `scopes`")]
    Scopes(Scopes),
    #[error("the network {0} is not within the networks of this credential")]
    Network(ipnet::IpNet),
    #[error("the key would outlive this credential, which ends at {0}; name a smaller `expires_days`, or none")]
    End(Timestamp),
}

impl Rights {
    /// All scopes, from everywhere: the rights of the account ADMIN.
    #[must_use]
    pub(crate) fn all() -> Self {
        Self::of(Scopes::all())
    }

    /// These scopes, from everywhere.
    #[must_use]
    pub(crate) fn of(scopes: Scopes) -> Self {
        Self { scopes, networks: Networks::default(), end: None }
    }

    /// Returns the rights of a key that this credential creates. `member` are the scopes of the role `member`.
    pub(crate) fn derive(&self, wish: Wish, member: &Scopes) -> Result<Derived, TooWide> {
        let Wish { grant, networks, end } = wish;
        let scopes = grant.scopes(member);
        let lacking = scopes.without(&self.scopes);
        if !lacking.is_empty() {
            return Err(TooWide::Scopes(lacking));
        }
        // `auth.member_scopes` may grow later. Only a creator with all scopes is then still as wide as the role.
        let grant = if self.scopes == Scopes::all() { grant } else { Grant::Scopes(scopes) };
        let networks = if networks.is_empty() { self.networks.clone() } else { networks };
        if let Some(outside) = networks.first_outside(&self.networks) {
            return Err(TooWide::Network(outside));
        }
        let end = match (end, self.end) {
            (End::At(wished), Some(own)) if wished > own => return Err(TooWide::End(own)),
            (End::AtMost(latest), Some(own)) => latest.min(own),
            (End::At(end) | End::AtMost(end), _) => end,
        };
        Ok(Derived { grant, networks, end })
    }
}

#[cfg(test)]
mod tests;
