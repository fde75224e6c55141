//! The profiles of `config/providers`. Each is parsed and checked once, when it is first needed.

use tokio::sync::OnceCell;

use super::{InvalidProfile, Profile, Profiles};
use crate::subject::Integration;

/// Ids and texts, by id. `build.rs` lists the files.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

static PARSED: [OnceCell<Profile>; FILES.len()] = [const { OnceCell::const_new() }; FILES.len()];

pub(super) fn ids() -> impl Iterator<Item = Integration> {
    FILES.iter().filter_map(|(id, _)| Integration::parse(id).ok())
}

pub(super) fn text(id: &Integration) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == id.as_str()).map(|(_, text)| *text)
}

/// Returns a profile without anything from the operator's folder. Checked by the strictest rules, so it is valid by any.
pub(super) async fn parsed(id: &Integration) -> Result<Option<&'static Profile>, InvalidProfile> {
    let found = FILES.iter().zip(&PARSED).find(|((known, _), _)| *known == id.as_str());
    let Some(((_, text), cell)) = found else { return Ok(None) };
    cell.get_or_try_init(|| Profiles::default().parse(id, text)).await.map(Some)
}
