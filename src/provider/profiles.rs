//! Profiles of providers: those built in from `config/providers`, and the operator's own in `oauth.providers_dir`.
//!
//! A profile is read when a config that names it is put, so a changed file counts from the next PUT. A stored config has
//! the fields of its profile and doesn't change with it.

mod built_in;
mod error;
mod profile;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;
use tracing::warn;

pub(crate) use self::error::{InvalidProfile, ProfileError};
#[cfg(test)]
use self::profile::Verified;
pub(crate) use self::profile::{About, Profile};
use crate::config::Oauth;
use crate::integration::UrlRules;
use crate::subject::Integration;
use crate::telemetry::describe_error;

/// Most profiles that build on each other.
const MAX_CHAIN: usize = 4;
/// Largest file, as the largest body of a PUT.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Files of the operator's folder that a list reads.
const MAX_FILES: usize = 1000;
const EXTENSION: &str = "toml";

/// The profiles that a process knows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Profiles<'a> {
    /// The operator's own. A file with the id of a built-in profile replaces that profile.
    folder: Option<&'a Path>,
    rules: UrlRules,
}

impl<'a> Profiles<'a> {
    pub(crate) fn new(settings: &'a Oauth) -> Self {
        let folder = settings.providers_dir.as_path();
        let rules = UrlRules { allow_insecure_urls: settings.allow_insecure_urls };
        Self { folder: (!folder.as_os_str().is_empty()).then_some(folder), rules }
    }

    /// The URLs that a profile may contain.
    pub(crate) fn rules(self) -> UrlRules {
        self.rules
    }

    /// Adds the fields of the profile that a config names as `provider`, and what every config with a profile may leave out.
    ///
    /// # Errors
    /// [`ProfileError`] if there is no such profile, if its file is not valid, or if the config lacks what it asks for.
    pub(crate) async fn apply(self, body: Value, integration: &Integration) -> Result<Value, ProfileError> {
        let Value::Object(given) = body else { return Ok(body) };
        match given.get("provider") {
            Some(Value::String(id)) => {
                let profile = self.find(id).await?;
                let asked = &profile.about.ask;
                if !asked.is_empty() && !given.contains_key("variables") {
                    return Err(ProfileError::Asked { id: profile.id, asked: asked.clone() });
                }
                Ok(profile.config(given, integration))
            }
            Some(Value::Null) | None => Ok(Value::Object(given)),
            Some(_) => Err(ProfileError::Unknown),
        }
    }

    /// The built-in profiles alone.
    pub(crate) fn built_in(self) -> Self {
        Self { folder: None, ..self }
    }

    /// Reads a profile by the text of its id.
    pub(crate) async fn find(self, id: &str) -> Result<Profile, ProfileError> {
        // The id is a caller's text and must not lead out of the folder: it has no dot and no slash.
        let id = Integration::parse(id).ok().ok_or(ProfileError::Unknown)?;
        let invalid = |why| ProfileError::Invalid { id: id.clone(), why };
        if let Some(profile) = self.purely_built_in(&id).await.map_err(invalid)? {
            return Ok(profile.clone());
        }
        let Source { text, is_from_folder } =
            self.source(&id, &[]).await.map_err(invalid)?.ok_or(ProfileError::Unknown)?;
        let profile = self.parse(&id, &text).await.map_err(invalid)?;
        Ok(Profile { is_operators_own: profile.is_operators_own || is_from_folder, ..profile })
    }

    /// Returns the ids of all profiles in order.
    pub(crate) async fn ids(self) -> Result<BTreeSet<Integration>, ProfileError> {
        Ok(built_in::ids().chain(self.own().await.map_err(ProfileError::Folder)?).collect())
    }

    /// Returns the ids of the files in the operator's folder.
    pub(crate) async fn own(self) -> std::io::Result<Vec<Integration>> {
        let mut ids = Vec::new();
        let Some(folder) = self.folder else { return Ok(ids) };
        let mut entries = tokio::fs::read_dir(folder).await?;
        while let Some(entry) = entries.next_entry().await?
            && ids.len() < MAX_FILES
        {
            let path = entry.path();
            let id = path.file_stem().and_then(|stem| Integration::parse(stem.to_str()?).ok());
            let is_profile = path.extension().is_some_and(|extension| extension == EXTENSION);
            ids.extend(id.filter(|_| is_profile));
        }
        Ok(ids)
    }

    /// Logs each file in the operator's folder that is not valid, so that the operator knows before a config needs it.
    pub(crate) async fn log_invalid(self) {
        let own = match self.own().await {
            Ok(own) => own,
            Err(error) => return warn!("cannot read the folder of `oauth.providers_dir`: {error}"),
        };
        for id in own {
            if let Err(error) = self.find(id.as_str()).await {
                warn!("{}", describe_error(&error));
            }
        }
    }

    /// Parses the text of a profile, adds the fields of the profiles that it extends, and checks the result.
    pub(crate) async fn parse(self, id: &Integration, text: &str) -> Result<Profile, InvalidProfile> {
        // The file, and then the profiles that it extends. `chain` has their ids.
        let (mut files, mut chain) = (vec![profile::parse(text)?], vec![id.clone()]);
        let mut is_operators_own = false;
        while let Some(parent) = files.last_mut().and_then(|file| file.remove("extends")) {
            let parent = parent.as_str().and_then(|parent| Integration::parse(parent).ok());
            let parent = parent.ok_or_else(|| inherited(&chain, InvalidProfile::Extends))?;
            let source = self.source(&parent, &chain).await?;
            // A file may extend the built-in profile of its own id, but that one not itself again.
            let uses = chain.iter().filter(|used| **used == parent).count();
            if uses > 1 || (uses == 1 && source.is_none()) {
                chain.push(parent);
                return Err(InvalidProfile::Circle(chain));
            }
            let Some(Source { text, is_from_folder }) = source else {
                return Err(inherited(&chain, InvalidProfile::NoParent(parent)));
            };
            chain.push(parent);
            if chain.len() > MAX_CHAIN {
                return Err(InvalidProfile::TooLong(chain));
            }
            is_operators_own |= is_from_folder;
            files.push(profile::parse(&text).map_err(|why| inherited(&chain, why))?);
        }
        let fields = files.iter().rev().cloned().reduce(merge).unwrap_or_default();
        let owner = |why: &InvalidProfile| {
            let depth_in = |file| why.field().map_or(0, |field| profile::depth(file, field));
            // The first of the deepest: its value counts.
            (0..files.len()).rev().max_by_key(|index| files.get(*index).map_or(0, depth_in)).unwrap_or_default()
        };
        let profile = Profile::checked(id, fields, self.rules)
            .map_err(|why| inherited(chain.get(..=owner(&why)).unwrap_or_default(), why))?;
        Ok(Profile { is_operators_own, chain, ..profile })
    }

    /// Returns a built-in profile; `None` if a file in the folder replaces it or a profile that it extends.
    async fn purely_built_in(self, id: &Integration) -> Result<Option<&'static Profile>, InvalidProfile> {
        let Some(profile) = built_in::parsed(id).await? else { return Ok(None) };
        for id in &profile.chain {
            if let Some(path) = self.path(id)
                && tokio::fs::try_exists(path).await?
            {
                return Ok(None);
            }
        }
        Ok(Some(profile))
    }

    /// Returns the path of a file in the operator's folder.
    fn path(self, id: &Integration) -> Option<PathBuf> {
        self.folder.map(|folder| folder.join(id.as_str()).with_extension(EXTENSION))
    }

    /// Returns the text of a profile. A file of the folder may extend the built-in profile of its own id, so an id in
    /// `chain` is not looked up in the folder again.
    async fn source(self, id: &Integration, chain: &[Integration]) -> Result<Option<Source>, InvalidProfile> {
        if let Some(path) = self.path(id).filter(|_| !chain.contains(id))
            && let Some(text) = read_file(&path).await?
        {
            return Ok(Some(Source { text, is_from_folder: true }));
        }
        Ok(built_in::text(id).map(|text| Source { text: text.to_owned(), is_from_folder: false }))
    }
}

/// Names the last profile of a chain in an error about it, unless it is the one that is read.
fn inherited(chain: &[Integration], why: InvalidProfile) -> InvalidProfile {
    match chain {
        [_, .., parent] => InvalidProfile::Inherited { parent: parent.clone(), why: Box::new(why) },
        _ => why,
    }
}

/// The text of a profile.
struct Source {
    text: String,
    /// True for a file of the operator's folder.
    is_from_folder: bool,
}

/// Reads a profile's file; `None` if there is none. A pipe or a device could block the worker, or never end.
pub(crate) async fn read_file(path: &Path) -> Result<Option<String>, InvalidProfile> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) if !metadata.is_file() => return Err(InvalidProfile::NotAFile),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut text = Vec::new();
    // The file may have grown since.
    tokio::fs::File::open(path).await?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).await?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(InvalidProfile::TooLarge);
    }
    Ok(Some(String::from_utf8(text)?))
}

/// Adds the fields of a child to those of its parent. Objects are merged by key; of other values the child's count.
fn merge(mut parent: Map<String, Value>, child: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in child {
        let merged = match (parent.remove(&name), value) {
            (Some(Value::Object(of_parent)), Value::Object(of_child)) => Value::Object(merge(of_parent, of_child)),
            (_, value) => value,
        };
        parent.insert(name, merged);
    }
    parent
}

#[cfg(test)]
mod tests;
