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
    #[error("unconfirmed lists {0}, which is no field of a profile")]
    Unconfirmed(String),
    #[error("{field} must be {expected}")]
    About { field: &'static str, expected: &'static str },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

fn path(chain: &[Integration]) -> String {
    chain.iter().map(Integration::as_str).collect::<Vec<_>>().join(" → ")
}
