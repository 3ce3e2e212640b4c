//! Draws one frame of the screen, at any size. It leaves out what does not fit, and figures last.

use super::State;
use super::once::{reasons, time};
use crate::watch::scrape::view::Latency;
use crate::watch::scrape::{View, printable, short, short_bytes};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Sparkline, Table};
use std::collections::VecDeque;
use std::time::Instant;

/// A buffer this full is near its end.
const FULL: f64 = 0.7;

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn soft() -> Style {
    Style::default().add_modifier(Modifier::DIM)
}

fn warned(is_so: bool) -> Style {
    if is_so { bold().fg(Color::Red) } else { bold() }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, state: &State, now: Instant) {
    let area = frame.area();
    let Some(view) = &state.view else {
        let [head, _] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(area);
        return frame.render_widget(Paragraph::new(headline(state, None, now)), head);
    };
    let small = area.height < 18;
    let plots = if small { 0 } else { 3 };
    let listeners = (view.listeners.len() as u16).saturating_add(1);
    let shards = (view.shards.len() as u16).saturating_add(1);
    let parts = [
        Constraint::Length(1),
        Constraint::Length(plots),
        Constraint::Length(8),
        Constraint::Max(listeners.min(area.height / 3).max(2)),
        Constraint::Max(shards),
        Constraint::Min(0),
        Constraint::Length(u16::from(area.height > 6)),
    ];
    let [head, plot, figures, listener, shard, _, foot] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(headline(state, Some(view), now)), head);
    if plots > 0 {
        draw_plots(frame, state, plot);
    }
    frame.render_widget(Paragraph::new(lines(view)), figures);
    draw_listeners(frame, view, state.scroll, listener);
    draw_shards(frame, view, state.scroll, shard);
    let paused = if state.is_paused { "PAUSED, p goes on" } else { "p pause" };
    let keys = format!("q quit  {paused}  arrows or 1-9 scroll");
    frame.render_widget(Paragraph::new(keys).style(soft()), foot);
}

fn headline<'a>(state: &'a State, view: Option<&View>, now: Instant) -> Line<'a> {
    let mut spans = vec![Span::styled("logweir ", bold()), Span::raw(printable(&state.admin)), Span::raw("  ")];
    match (&state.gone, view) {
        (Some((error, _)), _) => {
            let seconds = state.gone_for(now).unwrap_or_default().as_secs();
            let text = format!("NO ANSWER for {seconds} s, trying again ({})", printable(error));
            spans.push(Span::styled(text, warned(true)));
        }
        (None, None) => spans.push(Span::raw("asking")),
        (None, Some(view)) if view.is_ready => {
            spans.push(Span::styled("ready", bold().fg(Color::Green)));
            spans.push(Span::styled(format!("  engine {}", printable(&view.engine)), soft()));
        }
        (None, Some(_)) => {
            let why = state.why.as_deref().unwrap_or("no reason given");
            spans.push(Span::styled(format!("NOT READY: {}", printable(why)), warned(true)));
        }
    }
    Line::from(spans)
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

fn shown(of: Latency) -> String {
    format!("{} / {}", time(of.p50), time(of.p99))
}

/// Names and figures, two or three to a line.
fn lines(view: &View) -> Vec<Line<'static>> {
    let name = |text: &str| Span::styled(format!("{text:<14}"), soft());
    let figure = |text: String, style: Style| Span::styled(format!("{text:<22}"), style);
    let t = view.terms;
    let account = format!(
        "{} = {} durable + {} written + {} in flight",
        short(t.received),
        short(t.durable),
        short(t.written),
        short(t.in_flight)
    );
    let rest =
        format!(" + {} dropped + {} at risk, left over {}", short(t.dropped), short(t.at_risk), short(t.unaccounted));
    vec![
        Line::from(vec![
            name("lines/s"),
            figure(short(view.lines), bold()),
            name("bytes/s"),
            figure(short_bytes(view.bytes), bold()),
        ]),
        Line::from(vec![
            name("buffer"),
            figure(format!("{:.1} %", view.buffer * 100.0), warned(view.buffer > FULL)),
            name("connections"),
            figure(format!("{}, {}/s new", short(view.connections), short(view.accepted)), bold()),
        ]),
        Line::from(vec![
            name("backpressure"),
            figure(
                format!("{:.1} %, {}/s", view.backpressure * 100.0, short(view.pauses)),
                warned(view.backpressure > 0.05),
            ),
            name("ack 50/99 %"),
            figure(shown(view.ack), bold()),
        ]),
        Line::from(vec![
            name("write 50/99 %"),
            figure(shown(view.write), bold()),
            name("sync 50/99 %"),
            figure(shown(view.sync), bold()),
        ]),
        Line::from(vec![
            name("dropped"),
            figure(format!("{}/s", short(view.drops)), warned(view.drops > 0.0)),
            name("disk free"),
            figure(view.room_text(), warned(view.room.is_some_and(|(free, size)| free < size * 0.05))),
        ]),
        Line::from(vec![name("  in all"), Span::raw(reasons(&view.dropped))]),
        Line::from(vec![name("received"), Span::styled(account, bold())]),
        Line::from(vec![name(""), Span::styled(rest, warned(t.unaccounted != 0.0 || t.at_risk > 0.0))]),
    ]
}

/// Right-aligned figures behind a name.
fn row(cells: Vec<String>, style: Style) -> Row<'static> {
    let mut cells = cells.into_iter();
    let first = Line::from(cells.next().unwrap_or_default());
    Row::new(std::iter::once(first).chain(cells.map(|c| Line::from(c).right_aligned()))).style(style)
}

fn table(head: &[&str], rows: Vec<Row<'static>>, widths: &[Constraint]) -> Table<'static> {
    let head = row(head.iter().map(|h| (*h).to_string()).collect(), soft());
    Table::new(rows, widths.to_vec()).header(head).column_spacing(1)
}

fn draw_listeners(frame: &mut Frame<'_>, view: &View, scroll: usize, area: Rect) {
    let rows = view.listeners.iter().skip(scroll.min(view.listeners.len().saturating_sub(1))).map(|l| {
        let cells = [l.lines, l.received, l.durable, l.in_flight, l.dropped, l.at_risk].map(short);
        let [lines, received, durable, in_flight, dropped, at_risk] = cells;
        let bytes = short_bytes(l.bytes);
        let style = if l.drops > 0.0 || l.at_risk > 0.0 { Style::default().fg(Color::Red) } else { Style::default() };
        row(vec![printable(&l.name), lines, bytes, received, durable, in_flight, dropped, at_risk], style)
    });
    let head = ["listener", "lines/s", "bytes/s", "received", "durable", "in flight", "dropped", "at risk"];
    let mut widths = vec![Constraint::Fill(1)];
    widths.extend([8, 8, 9, 9, 9, 8, 8].map(Constraint::Length));
    frame.render_widget(table(&head, rows.collect(), &widths), area);
}

fn draw_shards(frame: &mut Frame<'_>, view: &View, scroll: usize, area: Rect) {
    let rows = view.shards.iter().skip(scroll.min(view.shards.len().saturating_sub(1))).map(|s| {
        let style = if s.is_full || s.buffer > FULL { Style::default().fg(Color::Red) } else { Style::default() };
        let name = if s.is_full { format!("{} FULL", printable(&s.name)) } else { printable(&s.name) };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let cells = vec![
            name,
            short(s.connections),
            percent(s.buffer),
            short_bytes(s.appended),
            time(s.write.p99),
            short(s.syncs),
            time(s.sync.p50),
            time(s.sync.p99),
            percent(s.backpressure),
        ];
        row(cells, style)
    });
    let head = ["shard", "conns", "buffer", "written/s", "write p99", "syncs/s", "sync p50", "sync p99", "waits"];
    let mut widths = vec![Constraint::Fill(1)];
    widths.extend([6, 6, 9, 9, 7, 9, 9, 6].map(Constraint::Length));
    frame.render_widget(table(&head, rows.collect(), &widths), area);
}
