//! The names that subjects are made of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that does not fit; the text says which form is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an account's public key.
    #[error("account must be the public nkey of a NATS account: 56 characters beginning with A, with a valid checksum")]
    Account,
    /// Not an integration id.
    #[error(
        "integration_id must be 1 to 64 letters, digits, `_` or `-`, begin with a letter or digit, and not begin with `oauth-`"
    )]
    Integration,
    /// Not a connection id.
    #[error("connection_id must be 1 to 64 letters, digits, `_` or `-`, and begin with a letter or digit")]
    Connection,
    /// Not a subject of that kind.
    #[error("not a subject of this service")]
    Subject,
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_account(text: &str) -> bool {
    text.len() == 56
        && text.starts_with('A')
        && nkeys::KeyPair::from_public_key(text).is_ok_and(|key| key.key_pair_type() == nkeys::KeyPairType::Account)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $error:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the form.
            ///
            /// # Errors
            /// When the text does not have it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err($error) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// A NATS account's public nkey (`A…`, 56 characters; prefix, checksum and key type checked).
    Account, NameError::Account, is_account
);
name!(
    /// An OAuth provider as configured here (`slack`).
    Integration, NameError::Integration, |text| is_name(text) && !text.starts_with("oauth-")
);
name!(
    /// What one account calls its connection at one integration (`workspace1`).
    ConnectionName, NameError::Connection, is_name
);
