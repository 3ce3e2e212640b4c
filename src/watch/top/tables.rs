//! Listeners and shards. In a narrow terminal the columns of least use are left out; names and headers are whole as long as
//! anything is.

use super::fit::{cut, width};
use super::once::time;
use crate::watch::scrape::{View, printable, short, short_bytes, short_share};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row, Table};

/// A buffer this full is near its end.
pub const FULL: f64 = 0.7;
/// Figures are not left out for more of a name than this.
const NAME: usize = 16;

/// A column of figures.
#[derive(Debug)]
struct Column {
    head: &'static str,
    /// Enough for its header and usual figures.
    width: usize,
    /// The greatest is left out first.
    rank: u8,
}

const fn column(head: &'static str, width: usize, rank: u8) -> Column {
    Column { head, width, rank }
}

const LISTENER: [Column; 7] = [
    column("lines/s", 7, 0),
    column("bytes/s", 7, 2),
    column("received", 8, 4),
    column("durable", 7, 3),
    column("in flight", 9, 6),
    column("dropped", 7, 1),
    column("at risk", 7, 5),
];

const SHARD: [Column; 8] = [
    column("conns", 6, 4),
    column("buffer", 6, 0),
    column("written/s", 9, 2),
    column("write p99", 9, 5),
    column("syncs/s", 7, 6),
    column("sync p50", 8, 7),
    column("sync p99", 8, 1),
    column("waits", 6, 3),
];

/// One line of a table.
struct Entry {
    name: String,
    figures: Vec<String>,
    style: Style,
}

/// Which columns there is room for behind a name of so many, by place.
fn fitting(columns: &[Column], name: usize, room: usize) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| name + shown.iter().map(|i| columns[*i].width + 1).sum::<usize>();
    while needed(&shown) > room {
        let Some(least) = shown.iter().copied().max_by_key(|i| columns[*i].rank) else { break };
        shown.retain(|i| *i != least);
    }
    shown
}

fn table(title: &'static str, columns: &[Column], entries: &[Entry], area: Rect) -> Table<'static> {
    let room = usize::from(area.width);
    let longest = entries.iter().map(|e| width(&e.name)).max().unwrap_or(0);
    let shown = fitting(columns, longest.min(NAME).max(title.len()), room);
    let figures: usize = shown.iter().map(|i| columns[*i].width + 1).sum();
    // Two blanks between columns read better than one, where no name is cut for them.
    let is_wide = figures + shown.len() + longest.max(title.len()) <= room;
    let spacing = if is_wide { 2 } else { 1 };
    let name = room.saturating_sub(figures + if is_wide { shown.len() } else { 0 });
    let head = shown.iter().map(|i| Line::raw(columns[*i].head).right_aligned());
    let head = Row::new(std::iter::once(Line::raw(cut(title, name))).chain(head)).style(soft());
    let rows = entries.iter().map(|entry| {
        let figure = |i: &usize| cut(entry.figures.get(*i).map_or("", String::as_str), columns[*i].width);
        let cells = shown.iter().map(|i| Line::raw(figure(i)).right_aligned());
        Row::new(std::iter::once(Line::raw(cut(&entry.name, name))).chain(cells)).style(entry.style)
    });
    let widths = shown.iter().map(|i| Constraint::Length(columns[*i].width as u16));
    Table::new(rows, std::iter::once(Constraint::Fill(1)).chain(widths)).header(head).column_spacing(spacing)
}

fn soft() -> Style {
    Style::default().add_modifier(Modifier::DIM)
}

fn warned(is_so: bool) -> Style {
    if is_so { Style::default().fg(Color::Red) } else { Style::default() }
}

/// Listeners, from the one that was scrolled to.
pub fn draw_listeners(frame: &mut Frame<'_>, view: &View, scroll: usize, area: Rect) {
    let first = scroll.min(view.listeners.len().saturating_sub(1));
    let entries = view.listeners.iter().skip(first).map(|l| Entry {
        name: printable(&l.name),
        figures: vec![
            short(l.lines),
            short_bytes(l.bytes),
            short(l.received),
            short(l.durable),
            short(l.in_flight),
            short(l.dropped),
            short(l.at_risk),
        ],
        style: warned(l.drops > 0.0 || l.at_risk > 0.0),
    });
    let entries: Vec<Entry> = entries.take(usize::from(area.height)).collect();
    frame.render_widget(table("listener", &LISTENER, &entries, area), area);
}

/// Shards, from the one that was scrolled to.
pub fn draw_shards(frame: &mut Frame<'_>, view: &View, scroll: usize, area: Rect) {
    let first = scroll.min(view.shards.len().saturating_sub(1));
    let entries = view.shards.iter().skip(first).map(|s| Entry {
        name: if s.is_full { format!("{} FULL", printable(&s.name)) } else { printable(&s.name) },
        figures: vec![
            short(s.connections),
            short_share(s.buffer, 0),
            short_bytes(s.appended),
            time(s.write.p99),
            short(s.syncs),
            time(s.sync.p50),
            time(s.sync.p99),
            short_share(s.backpressure, 0),
        ],
        style: warned(s.is_full || s.buffer > FULL),
    });
    let entries: Vec<Entry> = entries.take(usize::from(area.height)).collect();
    frame.render_widget(table("shard", &SHARD, &entries, area), area);
}
