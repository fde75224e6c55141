//! Subjects of config records.

use super::{CONFIG, Integration, ROOT};

/// Subject to which a worker publishes a config's record. The stream stores it under [`config_subject`].
#[must_use]
pub(crate) fn config_record_subject(integration: &Integration) -> String {
    format!("oauth.record.{CONFIG}.{integration}")
}

/// Subject under which a config's record is stored.
#[must_use]
pub(crate) fn config_subject(integration: &Integration) -> String {
    format!("{ROOT}.{CONFIG}.{integration}")
}

/// Returns the integration of a config record's subject.
#[must_use]
pub(crate) fn parse_config_subject(subject: &str) -> Option<Integration> {
    let path = subject.strip_prefix(ROOT)?.strip_prefix('.')?;
    Integration::parse(path.strip_prefix(CONFIG)?.strip_prefix('.')?).ok()
}
