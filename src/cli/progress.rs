//! The progress bar of backups.

use indicatif::{ProgressBar, ProgressStyle};

use crate::backup::Step;

/// Hidden if standard error is not a terminal.
const BAR: &str = "{prefix:22} {wide_bar} {bytes} of {total_bytes} {bytes_per_sec}";

pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new() -> anyhow::Result<Self> {
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(BAR)?);
        Ok(Self(bar))
    }

    pub(super) fn show(&self, step: Step<'_>) {
        match step {
            Step::Begins(stream, bytes) => {
                self.0.reset();
                self.0.set_length(bytes);
                self.0.set_prefix(stream.to_owned());
            }
            Step::Bytes(bytes) => self.0.inc(bytes),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
