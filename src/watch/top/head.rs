//! The first line: whose server it is and how it is.

use super::State;
use super::fit::{cut, width};
use crate::watch::scrape::{View, printable};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use std::time::Instant;

/// Most columns of the name of a host.
const HOST: usize = 40;

/// As much as fits into so many columns: the state first, then which server it is.
pub fn headline(state: &State, view: Option<&View>, now: Instant, columns: u16) -> Line<'static> {
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let red = bold.fg(Color::Red);
    let (text, style) = match (&state.gone, view) {
        (Some((error, _)), _) => {
            let seconds = state.gone_for(now).unwrap_or_default().as_secs();
            (format!("NO ANSWER for {seconds} s, trying again ({})", printable(error)), red)
        }
        (None, None) => ("asking".into(), Style::default()),
        (None, Some(view)) if view.is_ready => ("ready".into(), bold.fg(Color::Green)),
        (None, Some(_)) => {
            let why = state.why.as_deref().unwrap_or("no reason given");
            (format!("NOT READY: {}", printable(why)), red)
        }
    };
    let mut spans = vec![Span::styled("logweir ", bold), Span::raw(printable(&state.admin)), Span::raw("  ")];
    let mut left = usize::from(columns).saturating_sub(spans.iter().map(Span::width).sum());
    let text = cut(&text, left);
    left = left.saturating_sub(width(&text));
    spans.push(Span::styled(text, style));
    for part in view.map(|view| parts(view, state.gone.is_some())).unwrap_or_default() {
        if width(&part) + 2 <= left {
            left -= width(&part) + 2;
            spans.push(Span::styled(format!("  {part}"), Style::default().add_modifier(Modifier::DIM)));
        }
    }
    Line::from(spans)
}

/// Which server it is, the most useful first. One that is gone is up no more.
fn parts(view: &View, is_gone: bool) -> Vec<String> {
    let about = &view.about;
    let engine = (!is_gone && view.is_ready && !view.engine.is_empty()).then(|| format!("engine {}", view.engine));
    let parts = [
        about.host.as_ref().map(|host| cut(host, HOST)),
        about.uptime_text().filter(|_| !is_gone),
        about.version.clone(),
        engine,
        about.data_dir.as_ref().map(|dir| format!("data in {dir}")),
    ];
    parts.into_iter().flatten().map(|part| printable(&part)).collect()
}
