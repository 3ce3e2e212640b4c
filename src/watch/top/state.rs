//! What `top` knows: the last answers, the figures made from them, and what the reader has chosen to see.

use super::Answer;
use crate::watch::scrape::{Scrape, View, Window};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Answers that the small plots show at most.
const HISTORY: usize = 240;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Draw again.
    Go,
    /// End.
    Quit,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub struct State {
    /// `127.0.0.1:9610`
    pub admin: String,
    /// What the last two answers come to; `None`: there was none yet.
    pub view: Option<View>,
    /// Why the server is not ready.
    pub why: Option<String>,
    /// Why there is no answer, and since when.
    pub gone: Option<(String, Instant)>,
    /// Nothing is asked for.
    pub is_paused: bool,
    /// First listener and shard that is shown.
    pub scroll: usize,
    /// Lines a second.
    pub lines: VecDeque<u64>,
    /// Bytes a second.
    pub bytes: VecDeque<u64>,
    /// Buffer in use, in per mille.
    pub buffer: VecDeque<u64>,
    /// 99th percentile of syncs, in microseconds.
    pub sync: VecDeque<u64>,
    last: Option<(Instant, Scrape)>,
}

fn push(history: &mut VecDeque<u64>, value: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    // `as` saturates, and makes 0 of what is no number.
    history.push_back(value as u64);
}

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(admin: impl Into<String>) -> State {
        State { admin: admin.into(), ..State::default() }
    }

    /// Takes an answer in.
    pub fn take(&mut self, answer: Answer) {
        match answer.result {
            Ok((scrape, why)) => {
                // Across a gap rates would be means over it; they begin anew.
                let before = if self.gone.take().is_some() { None } else { self.last.take() };
                let (then, before) = before.unwrap_or_else(|| (answer.at, scrape.clone()));
                let seconds = answer.at.duration_since(then).as_secs_f64();
                let mut window = Window { before, after: scrape, seconds };
                if !window.is_of_one_run() {
                    window = Window { before: window.after.clone(), after: window.after, seconds: 0.0 };
                }
                let view = View::new(&window);
                if window.seconds > 0.0 {
                    push(&mut self.lines, view.lines);
                    push(&mut self.bytes, view.bytes);
                    push(&mut self.buffer, view.buffer * 1000.0);
                    push(&mut self.sync, view.sync.p99.unwrap_or(0.0) * 1e6);
                }
                self.view = Some(view);
                self.why = why;
                self.last = Some((answer.at, window.after));
            }
            Err(error) => {
                let since = self.gone.take().map_or(answer.at, |(_, since)| since);
                self.gone = Some((error, since));
            }
        }
    }

    /// Rows that can be scrolled.
    fn rows(&self) -> usize {
        self.view.as_ref().map_or(0, |v| v.listeners.len().max(v.shards.len()))
    }

    /// Does what a key asks for.
    pub fn key(&mut self, key: KeyEvent) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Go;
        }
        let last = self.rows().saturating_sub(1);
        match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Step::Quit,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Step::Quit,
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                // What happened meanwhile is no rate of now.
                self.last = None;
            }
            KeyCode::Down | KeyCode::Char('j') => self.scroll = (self.scroll + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = (self.scroll + 10).min(last),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = last,
            KeyCode::Char(digit @ '1'..='9') => self.scroll = (digit as usize - '1' as usize).min(last),
            _ => {}
        }
        Step::Go
    }

    /// How long the server has been gone.
    #[must_use]
    pub fn gone_for(&self, now: Instant) -> Option<Duration> {
        self.gone.as_ref().map(|(_, since)| now.saturating_duration_since(*since))
    }
}
