//! Questions to a person on a terminal.

use std::io::{BufRead, Write};

use anyhow::bail;

use crate::foreign_text::escape;

pub(super) struct Dialog<R, W> {
    pub(super) input: R,
    pub(super) output: W,
}

impl<R: BufRead, W: Write> Dialog<R, W> {
    pub(super) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.output, "{}", escape(line))?)
    }

    /// Returns what a flag has set, or asks until there is an answer. An empty answer takes the default.
    pub(super) fn answer(
        &mut self,
        given: Option<String>,
        question: &str,
        default: Option<&str>,
    ) -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given);
        }
        loop {
            match default {
                Some(default) if !default.is_empty() => write!(self.output, "{question} [{}]: ", escape(default))?,
                Some(_) | None => write!(self.output, "{question}: ")?,
            }
            self.output.flush()?;
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                bail!("the input ended before the question was answered");
            }
            match (line.trim(), default) {
                ("", Some(default)) => return Ok(default.to_owned()),
                ("", None) => {}
                (answer, _) => return Ok(answer.to_owned()),
            }
        }
    }
}
