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

    /// Returns what a flag has set, or asks until there is an answer that `judge` finds no problem with. An empty answer takes
    /// the default.
    pub(super) fn answer(
        &mut self,
        given: Option<String>,
        question: &str,
        default: Option<&str>,
        judge: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<String> {
        if let Some(given) = given {
            return judge(&given).map_or(Ok(given), |problem| bail!("{question}: {problem}"));
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
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                ("", None) => continue,
                (answer, _) => answer,
            };
            match judge(answer) {
                Some(problem) => self.tell(&problem)?,
                None => return Ok(answer.to_owned()),
            }
        }
    }
}
