use std::collections::BTreeMap;
use std::io;
use std::string::FromUtf8Error;

use crate::integration::ConfigError;
use crate::subject::Integration;

/// The profile that a config or a person names cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("provider must be the id of a profile; `tokenbus providers list` and GET /hub/providers list them")]
    Unknown,
    #[error("the profile {id} cannot be used: {why}")]
    Invalid {
        id: Integration,
        #[source]
        why: InvalidProfile,
    },
    /// The config leaves out `variables`, of which the profile has only examples.
    #[error(
        "variables must be in the config: the profile {id} cannot know {}. Give each one value: {{\"{}\": {{\"values\": [\"…\"], \
         \"default\": \"…\"}}, …}}",
        asked.iter().map(|(name, what)| format!("{name} ({what})")).collect::<Vec<_>>().join(", "),
        asked.keys().next().map_or("", String::as_str)
    )]
    Asked { id: Integration, asked: BTreeMap<String, String> },
    #[error("cannot read the folder of `oauth.providers_dir`")]
    Folder(#[source] io::Error),
}

/// A file that is no valid profile. The texts name fields, and contain values only where no secret belongs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidProfile {
    #[error("cannot read its file")]
    Unreadable(#[from] io::Error),
    #[error("it is no regular file")]
    NotAFile,
    #[error("its file is not plain text")]
    NotText(#[from] FromUtf8Error),
    #[error("its file has more than 64 KiB")]
    TooLarge,
    #[error("line {line} is not valid TOML: {problem}")]
    Toml { line: usize, problem: String },
    #[error("{0} must not hold `nan` or `inf`")]
    NotFinite(String),
    #[error("extends must be the id of a profile")]
    Extends,
    #[error("its profiles extend each other in a circle: {}", path(.0))]
    Circle(Vec<Integration>),
    #[error("it extends too many profiles: {}; at most 4 may build on each other", path(.0))]
    TooLong(Vec<Integration>),
    #[error("extends names {0}, and no profile has that id")]
    NoParent(Integration),
    #[error("{0} belongs to the config of one app, not to a profile")]
    Private(&'static str),
    #[error("unconfirmed lists {0}, which the profile does not set")]
    Unconfirmed(String),
    #[error("{field} must be {expected}")]
    About { field: &'static str, expected: &'static str },
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file itself does not set the field, or its parent cannot be read.
    #[error("{why} (in the profile {parent}, which it extends)")]
    Inherited { parent: Integration, why: Box<Self> },
}

impl InvalidProfile {
    /// Returns the path of the field that the error is about.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Self::NotFinite(field) => Some(field),
            Self::Private(field) | Self::About { field, .. } => Some(field),
            Self::Unconfirmed(_) => Some("unconfirmed"),
            Self::Config(error) => error.field(),
            Self::Unreadable(_)
            | Self::NotAFile
            | Self::NotText(_)
            | Self::TooLarge
            | Self::Toml { .. }
            | Self::Extends
            | Self::Circle(_)
            | Self::TooLong(_)
            | Self::NoParent(_)
            | Self::Inherited { .. } => None,
        }
    }
}

fn path(chain: &[Integration]) -> String {
    chain.iter().map(Integration::as_str).collect::<Vec<_>>().join(" → ")
}
