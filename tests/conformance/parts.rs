//! Shared by the suite's tests.

pub(crate) mod cable;
pub(crate) mod chromium;
pub(crate) mod client;
pub(crate) mod install;
pub(crate) mod landing;
pub(crate) mod nats_cli;
pub(crate) mod provider;
pub(crate) mod scripted_bus;
pub(crate) mod visitor;
pub(crate) mod webdriver;
pub(crate) mod world;
