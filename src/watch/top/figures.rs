//! The figures of the whole server with their names: two to a line where that fits, and the account of every line.

use super::fit::{cut, width, wrapped};
use super::once::{reasons, shipping, time};
use super::tables::FULL;
use crate::watch::scrape::view::Latency;
use crate::watch::scrape::{View, short, short_bytes, short_share};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// From this width on names are in full, and each second figure begins at the same place.
const WIDE: u16 = 72;

/// One figure.
struct Figure {
    /// Its name, and a shorter one for narrow terminals.
    names: [&'static str; 2],
    value: String,
    style: Style,
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn soft() -> Style {
    Style::default().add_modifier(Modifier::DIM)
}

fn warned(is_so: bool) -> Style {
    if is_so { bold().fg(Color::Red) } else { bold() }
}

fn shown(of: Latency) -> String {
    format!("{} / {}", time(of.p50), time(of.p99))
}

fn figures(view: &View) -> Vec<Figure> {
    let figure = |name, short_name, value, is_bad| Figure { names: [name, short_name], value, style: warned(is_bad) };
    let pauses = format!("{}, {}/s", short_share(view.backpressure, 1), short(view.pauses));
    let connections = format!("{}, {}/s new", short(view.connections), short(view.accepted));
    let is_room_low = view.room.is_some_and(|(free, size)| free < size * 0.05);
    vec![
        figure("lines/s", "lines/s", short(view.lines), false),
        figure("bytes/s", "bytes/s", short_bytes(view.bytes), false),
        figure("buffer", "buffer", short_share(view.buffer, 1), view.buffer > FULL),
        figure("connections", "connections", connections, false),
        figure("backpressure", "waits", pauses, view.backpressure > 0.05),
        figure("ack 50/99 %", "ack 50/99", shown(view.ack), false),
        figure("write 50/99 %", "write 50/99", shown(view.write), false),
        figure("sync 50/99 %", "sync 50/99", shown(view.sync), false),
        figure("dropped", "dropped", format!("{}/s", short(view.drops)), view.drops > 0.0),
        figure("disk free", "disk free", view.room_text(), is_room_low),
    ]
}

/// The terms of the account, as words.
fn account(view: &View) -> Vec<Span<'static>> {
    let t = view.terms;
    let term = |text: String, is_bad| Span::styled(text, warned(is_bad));
    vec![
        term(short(t.received), false),
        term(format!("= {} durable", short(t.durable)), false),
        term(format!("+ {} written", short(t.written)), false),
        term(format!("+ {} in flight", short(t.in_flight)), false),
        term(format!("+ {} dropped", short(t.dropped)), false),
        term(format!("+ {} at risk,", short(t.at_risk)), t.at_risk > 0.0),
        term(format!("left over {}", short(t.unaccounted)), t.unaccounted != 0.0),
    ]
}

/// All of it for a terminal of this width.
pub fn lines(view: &View, columns: u16) -> Vec<Line<'static>> {
    let is_wide = columns >= WIDE;
    let (name_width, half) = if is_wide { (14, 36) } else { (12, usize::from(columns / 2)) };
    let name = |text: &str| Span::styled(format!("{text:<name_width$}"), soft());
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut open = None;
    for figure in figures(view) {
        let name = name(figure.names[usize::from(!is_wide)]);
        let is_short = name_width + width(&figure.value) < half;
        let spans =
            [name, Span::styled(format!("{:<1$}", figure.value, half.saturating_sub(name_width)), figure.style)];
        match open.take().and_then(|place: usize| lines.get_mut(place)) {
            Some(line) if is_wide || is_short => line.extend(spans),
            _ => {
                open = (is_wide || is_short).then_some(lines.len());
                lines.push(Line::from(spans.to_vec()));
            }
        }
    }
    let room = usize::from(columns).saturating_sub(name_width);
    lines.push(Line::from(vec![name("  in all"), Span::raw(cut(&reasons(&view.dropped), room))]));
    if view.lost.all > 0.0 {
        // It is in no term of the account: it never was in the server's hands.
        let text = format!("{} datagrams before reception, {}/s", short(view.lost.all), short(view.lost.a_second));
        lines.push(Line::from(vec![name("lost"), Span::styled(cut(&text, room), warned(view.lost.a_second > 0.0))]));
    }
    for target in &view.targets {
        let is_bad = !target.is_up || target.lost > 0.0;
        lines.push(Line::from(vec![name("shipping"), Span::styled(cut(&shipping(target), room), warned(is_bad))]));
    }
    for (i, words) in wrapped(account(view), room, |word| word.width()).into_iter().enumerate() {
        let mut line = Line::from(name(if i == 0 { "received" } else { "" }));
        for (place, word) in words.into_iter().enumerate() {
            line.extend((place > 0).then(|| Span::raw(" ")));
            line.push_span(word);
        }
        lines.push(line);
    }
    lines
}
