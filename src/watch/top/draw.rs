//! Draws one frame of the screen, at any size. It leaves out what does not fit, and figures last.

use super::State;
use super::figures::lines;
use super::fit::cut;
use super::head::headline;
use super::tables::{draw_listeners, draw_shards};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Paragraph, Sparkline};
use std::collections::VecDeque;
use std::time::Instant;

fn soft() -> Style {
    Style::default().add_modifier(Modifier::DIM)
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &State, now: Instant) {
    let area = frame.area();
    let head_of = |view| Paragraph::new(headline(state, view, now, area.width));
    let Some(view) = &state.view else {
        let [head, _] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
        return frame.render_widget(head_of(None), head);
    };
    let lines = lines(view, area.width);
    let figures = lines.len() as u16;
    let plots = if area.height < figures + 10 { 0 } else { 3 };
    let listeners = (view.listeners.len() as u16).saturating_add(1);
    let shards = (view.shards.len() as u16).saturating_add(1);
    let parts = [
        Constraint::Length(1),
        Constraint::Length(plots),
        Constraint::Length(figures),
        Constraint::Max(listeners.min(area.height / 3).max(2)),
        Constraint::Max(shards),
        Constraint::Min(0),
        Constraint::Length(u16::from(area.height > 6)),
    ];
    let [head, plot, figures, listener, shard, _, foot] = Layout::vertical(parts).areas(area);
    frame.render_widget(head_of(Some(view)), head);
    if plots > 0 {
        draw_plots(frame, state, plot);
    }
    frame.render_widget(Paragraph::new(lines), figures);
    draw_listeners(frame, view, state.scroll, listener);
    draw_shards(frame, view, state.scroll, shard);
    if state.gone.is_some() {
        // What is not of now looks so; the first line says since when.
        let below = area.intersection(Rect { y: area.y.saturating_add(1), ..area });
        frame.buffer_mut().set_style(below, Style::reset().add_modifier(Modifier::DIM));
    }
    let paused = if state.is_paused { "PAUSED, p goes on" } else { "p pause" };
    let keys = cut(&format!("q quit  {paused}  arrows or 1-9 scroll"), usize::from(foot.width));
    frame.render_widget(Paragraph::new(keys).style(soft()), foot);
}

fn draw_plots(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let plots =
        [("lines/s", &state.lines), ("bytes/s", &state.bytes), ("buffer", &state.buffer), ("sync p99", &state.sync)];
    let areas: [Rect; 4] = Layout::horizontal([Constraint::Ratio(1, 4); 4]).spacing(1).areas(area);
    for ((name, history), area) in plots.into_iter().zip(areas) {
        let [title, plot] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Paragraph::new(name).style(soft()), title);
        let sparkline = Sparkline::default().style(Style::default().fg(Color::Cyan));
        let sparkline = if name == "buffer" { sparkline.max(1000) } else { sparkline };
        frame.render_widget(sparkline.data(newest(history, plot.width)), plot);
    }
}

fn newest(history: &VecDeque<u64>, width: u16) -> Vec<u64> {
    let skip = history.len().saturating_sub(usize::from(width));
    history.iter().skip(skip).copied().collect()
}
