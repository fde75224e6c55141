//! Shared by all test suites: real servers and the program itself, as processes.

pub(crate) mod child;
pub(crate) mod nats;
pub(crate) mod tokenbus;
pub(crate) mod wait;

use std::path::Path;

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
