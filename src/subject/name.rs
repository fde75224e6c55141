//! The names that subjects are built from. A value of these types is valid.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name or subject that is not valid. The text says which form is required.
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
    /// Not a subject of the expected kind.
    #[error("not a subject of this service")]
    Subject,
}

/// Returns true if the text has the form of our ids: 128 bits in base64url, 22 characters.
#[must_use]
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 22 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_account(text: &str) -> bool {
    text.len() == 56
        && text.starts_with('A')
        // Form and checksum, without the curve point: this runs several times for each read.
        && nkeys::from_public_key(text).is_ok()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $error:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Validates the text.
            ///
            /// # Errors
            /// Says which form is required.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.to_owned())) } else { Err($error) }
            }

            /// The name as text.
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
    /// A NATS account, by its public nkey: 56 characters that begin with `A`. Checksum and key type are validated.
    Account, NameError::Account, is_account
);
name!(
    /// An OAuth provider, by the id of its config, such as `acme`.
    Integration, NameError::Integration, |text| is_name(text) && !text.starts_with("oauth-")
);
name!(
    /// The name that an account chose for a connection at one integration, such as `workspace1`.
    ConnectionName, NameError::Connection, is_name
);
