//! `logweir tail`

use super::select::{Line, Out, Select, each_line, named};
use crate::log::cat::segments;
use crate::log::content::OnDisk;
use crate::log::names::SegmentId;
use crate::log::timeline::{self, Span, Timed};
use crate::output::complain;
use clap::Args;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two looks for new lines.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Which lines.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    select: Select,
    /// Go on printing lines as they are written, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many lines of each stream.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 10)]
    lines: usize,
}

/// Prints the last lines of each stream, its shards merged by the time of writing, and those that follow.
pub fn run(args: &TailArgs) -> ExitCode {
    match print(args, &mut Out::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(args: &TailArgs, out: &mut impl Write) -> io::Result<()> {
    let mut streams: BTreeMap<String, Follow> = BTreeMap::new();
    let mut shown: Option<String> = None;
    let mut is_first = true;
    loop {
        let names = match args.select.streams() {
            // It is made by the server when it starts.
            Err(e) if args.follow && e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let several = names.len() > 1;
        for name in names {
            let dir = args.select.data_dir.join(&name);
            if !streams.contains_key(&name) {
                // Of a stream that came while we followed, all lines are new.
                let last = if is_first { args.lines } else { usize::MAX };
                match Follow::begin(&dir, last) {
                    Err(e) if args.follow && e.kind() == io::ErrorKind::NotFound => continue,
                    other => drop(streams.insert(name.clone(), other.map_err(|e| named(&e, "stream", &dir))?)),
                }
            }
            let Some(stream) = streams.get_mut(&name) else { continue };
            let lines = match stream.begun.take() {
                Some(lines) => lines,
                None => stream.next_lines().map_err(|e| named(&e, "stream", &dir))?,
            };
            for line in lines {
                if args.select.json {
                    line.write_json(&name, out)?;
                    continue;
                }
                if several && shown.as_ref() != Some(&name) {
                    let between = if shown.is_some() { "\n" } else { "" };
                    writeln!(out, "{between}==> {name} <==")?;
                    shown = Some(name.clone());
                }
                out.write_all(&line.bytes)?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()?;
        is_first = false;
        if !args.follow {
            return Ok(());
        }
        if crate::output::reader_is_gone() {
            return Ok(());
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// How far one stream was read.
struct Follow {
    dir: PathBuf,
    /// For each shard its segment, as far as it was read.
    shards: BTreeMap<u16, Reading>,
    /// The lines to begin with.
    begun: Option<Vec<Line>>,
}

struct Reading {
    segment: Timed,
    at: u64,
}

impl Follow {
    /// The last lines of a stream, and where to go on.
    fn begin(dir: &Path, last: usize) -> io::Result<Follow> {
        let mut by_shard: BTreeMap<u16, Vec<SegmentId>> = BTreeMap::new();
        for id in segments(dir)? {
            by_shard.entry(id.shard).or_default().push(id);
        }
        let (mut shards, mut lines) = (BTreeMap::new(), Vec::new());
        for (shard, ids) in by_shard {
            let mut of_shard: VecDeque<Line> = VecDeque::new();
            for id in ids.into_iter().rev() {
                // The newest may be a spare one, made ahead: it is empty until the one before is finished.
                let Some(segment) = timeline::open(&OnDisk, dir, id)?.filter(has_text) else { continue };
                let wanted = last - of_shard.len();
                let (found, at) = last_lines(&segment, wanted)?;
                found.into_iter().rev().for_each(|line| of_shard.push_front(line));
                shards.entry(shard).or_insert(Reading { segment, at });
                if of_shard.len() >= last {
                    break;
                }
            }
            lines.extend(of_shard);
        }
        sort(&mut lines);
        let surplus = lines.len().saturating_sub(last);
        lines.drain(..surplus);
        Ok(Follow { dir: dir.to_path_buf(), shards, begun: Some(lines) })
    }

    /// Lines that were written since.
    fn next_lines(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let ids = segments(&self.dir)?;
        for id in &ids {
            // Whatever is older than what a shard was read of has been read.
            let reading = match self.shards.entry(id.shard) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let Some(segment) = timeline::open(&OnDisk, &self.dir, *id)? else { continue };
                    entry.insert(Reading { segment, at: 0 })
                }
            };
            if *id < reading.segment.id {
                continue;
            }
            if *id > reading.segment.id {
                let Some(segment) = timeline::open(&OnDisk, &self.dir, *id)?.filter(has_text) else { continue };
                // The one before is finished once something is in the one behind it: what is in it now is all.
                read_on(&self.dir, reading, &mut lines)?;
                *reading = Reading { segment, at: 0 };
            }
            read_on(&self.dir, reading, &mut lines)?;
        }
        sort(&mut lines);
        Ok(lines)
    }
}

fn has_text(segment: &Timed) -> bool {
    !segment.spans.is_empty()
}

/// By the time of writing; what has the same time stays in its order, which is that of its shard.
fn sort(lines: &mut [Line]) {
    lines.sort_by_key(|line| line.wall_ns.unwrap_or(u64::MAX));
}

/// Reads what has come behind the point that was reached. The file stays open: it may have another name by now, or none.
fn read_on(dir: &Path, reading: &mut Reading, lines: &mut Vec<Line>) -> io::Result<()> {
    let len = reading.segment.content.size()?;
    if len <= reading.at {
        return Ok(());
    }
    let id = reading.segment.id;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    // The trail lags behind the text; what it does not know yet came just now.
    let known = timeline::open(&OnDisk, dir, id)?.map(|timed| timed.spans).unwrap_or_default();
    let mut at = reading.at;
    for span in known.into_iter().filter(|span| span.to > reading.at && span.wall_ns.is_some()) {
        let span = Span { from: at.max(span.from), to: span.to.min(len), ..span };
        if span.from < span.to {
            at = each_line(&*reading.segment.content, id, span, |line| {
                lines.push(line);
                Ok(())
            })?;
        }
    }
    if at < len {
        let span = Span { from: at, to: len, wall_ns: Some(now) };
        at = each_line(&*reading.segment.content, id, span, |line| {
            lines.push(line);
            Ok(())
        })?;
    }
    reading.at = at;
    Ok(())
}

/// The last lines of a segment, at most so many, and where its whole lines end.
fn last_lines(segment: &Timed, most: usize) -> io::Result<(VecDeque<Line>, u64)> {
    let mut lines = VecDeque::new();
    let mut end = 0;
    // Spans from the end: few are read where few lines are wanted.
    for span in segment.spans.iter().rev() {
        if lines.len() >= most && end > 0 {
            break;
        }
        let wanted = most - lines.len().min(most);
        let mut here: VecDeque<Line> = VecDeque::new();
        let at = each_line(&*segment.content, segment.id, *span, |line| {
            here.push_back(line);
            if here.len() > wanted {
                here.pop_front();
            }
            Ok(())
        })?;
        end = end.max(at);
        here.into_iter().rev().for_each(|line| lines.push_front(line));
    }
    Ok((lines, end))
}
