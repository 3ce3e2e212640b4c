//! What clients sent and what they were promised, and the oracle that holds the files against it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How sure a client was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// In memory.
    Received,
    /// Survives a kill.
    Written,
    /// Survives a power cut.
    Durable,
}

/// One connection.
#[derive(Debug, Default)]
struct Account {
    /// Lines 0 to this were sent, at least in part.
    sent: u64,
    /// Ranges of lines that were promised.
    promised: Vec<(u64, u64, Promise)>,
}

/// What the oracle found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Findings {
    pub acked_lost: u64,
    pub corrupted: u64,
    pub torn_shown: u64,
    pub reordered: u64,
    pub phantom: u64,
    pub duplicate: u64,
}

/// All connections of all processes.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<u32, Account>,
}

/// Line `n` of a connection, newline included: the same whenever it is asked for.
pub fn line(conn: u32, n: u64) -> Vec<u8> {
    let hash = (u64::from(conn) << 32 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut line = format!("c{conn} n{n} ").into_bytes();
    match hash >> 60 {
        0..8 => line.extend(std::iter::repeat_n(b'a' + (hash % 26) as u8, (hash >> 32 & 63) as usize)),
        8..13 => line.extend(std::iter::repeat_n(b'A' + (hash % 26) as u8, (hash >> 32 & 1023) as usize)),
        13 | 14 => line.extend(std::iter::repeat_n(b'0' + (hash % 10) as u8, 1000 + (hash >> 32 & 2047) as usize)),
        // Looks like a hole wherever it lies.
        _ => line.extend(std::iter::repeat_n(0, 700 + (hash >> 32 & 1023) as usize)),
    }
    line.extend_from_slice(b".\n");
    line
}

impl Ledger {
    /// A connection begins.
    pub fn open(&mut self) -> u32 {
        let conn = self.accounts.len() as u32;
        self.accounts.insert(conn, Account::default());
        conn
    }

    /// Its next line goes out.
    pub fn send(&mut self, conn: u32) -> Vec<u8> {
        let account = self.accounts.get_mut(&conn).unwrap();
        account.sent += 1;
        line(conn, account.sent - 1)
    }

    pub fn sent(&self, conn: u32) -> u64 {
        self.accounts[&conn].sent
    }

    /// Lines `from` to `to` of a connection are promised.
    pub fn promise(&mut self, conn: u32, from: u64, to: u64, promise: Promise) {
        let account = self.accounts.get_mut(&conn).unwrap();
        assert!(to <= account.sent, "connection {conn}: {to} lines acknowledged, {} sent", account.sent);
        if from < to {
            super::fiber::note(["received", "written", "durable"][promise as usize], u64::from(conn) << 32 | to);
            account.promised.push((from, to, promise));
        }
    }

    /// The power went: what was promised for less may be gone for good.
    pub fn forget_below(&mut self, least: Promise) {
        self.accounts.values_mut().for_each(|a| a.promised.retain(|(_, _, promise)| *promise >= least));
    }

    /// Holds files, in reading order, against what was promised for `least` or more. Also the number of lines that are there,
    /// by connection.
    pub fn judge(&self, files: &[(PathBuf, Vec<u8>)], least: Promise) -> (Findings, BTreeMap<u32, u64>, Vec<String>) {
        let (mut found, mut complaints) = (Findings::default(), Vec::new());
        let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (path, content) in files {
            let mut lines: Vec<&[u8]> = content.split_inclusive(|b| *b == b'\n').collect();
            if lines.last().is_some_and(|l| !l.ends_with(b"\n")) {
                lines.pop(); // readers do not show it, and an active file may end so
            }
            for line in lines {
                self.place(path, line, &mut seen, &mut found, &mut complaints);
            }
        }
        for (conn, account) in &self.accounts {
            let there = seen.entry(*conn).or_default();
            there.sort_unstable();
            for (from, to, _) in account.promised.iter().filter(|(_, _, promise)| *promise >= least) {
                let lost = (*from..*to).filter(|n| there.binary_search(n).is_err()).count() as u64;
                if lost > 0 {
                    complaints.push(format!("connection {conn}: {lost} of lines {from}..{to} are gone"));
                }
                found.acked_lost += lost;
            }
        }
        let counts = seen.into_iter().map(|(conn, numbers)| (conn, numbers.len() as u64)).collect();
        (found, counts, complaints)
    }

    fn place(
        &self,
        path: &Path,
        text: &[u8],
        seen: &mut BTreeMap<u32, Vec<u64>>,
        found: &mut Findings,
        complaints: &mut Vec<String>,
    ) {
        let document = super::common::apis::line_of_document(text).map(|line| [&line[..], b"\n"].concat());
        let text = document.as_deref().unwrap_or(text);
        let shown = || String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        let Some((conn, n)) = parse(text) else {
            found.phantom += 1;
            return complaints.push(format!("{}: nobody sent {:?}", path.display(), shown()));
        };
        if self.accounts.get(&conn).is_none_or(|a| n >= a.sent) {
            found.phantom += 1;
            return complaints.push(format!("{}: not sent yet: {:?}", path.display(), shown()));
        }
        let whole = line(conn, n);
        if text != whole {
            let torn = whole.starts_with(text.strip_suffix(b"\n").unwrap_or(text));
            *(if torn { &mut found.torn_shown } else { &mut found.corrupted }) += 1;
            return complaints.push(format!(
                "{}: {} of {} bytes: {:?}",
                path.display(),
                text.len(),
                whole.len(),
                shown()
            ));
        }
        let numbers = seen.entry(conn).or_default();
        if numbers.contains(&n) {
            found.duplicate += 1;
        } else {
            if numbers.last().is_some_and(|last| *last > n) {
                found.reordered += 1;
                complaints.push(format!("{}: connection {conn}: {n} after {:?}", path.display(), numbers.last()));
            }
            numbers.push(n);
        }
    }
}

fn parse(line: &[u8]) -> Option<(u32, u64)> {
    let mut words = line.split(|b| *b == b' ');
    let number =
        |word: Option<&[u8]>, letter: u8| std::str::from_utf8(word?.strip_prefix(&[letter])?).ok()?.parse::<u64>().ok();
    let conn = number(words.next(), b'c')?;
    Some((u32::try_from(conn).ok()?, number(words.next(), b'n')?))
}

#[test]
fn the_oracle_sees_each_kind_of_wrong() {
    let mut ledger = Ledger::default();
    let conn = ledger.open();
    let lines: Vec<Vec<u8>> = (0..4).map(|_| ledger.send(conn)).collect();
    ledger.promise(conn, 0, 3, Promise::Durable);
    let judge = |parts: &[&[u8]]| ledger.judge(&[("f".into(), parts.concat())], Promise::Durable).0;
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| lines[i].as_slice());
    assert_eq!(judge(&[a, b, c, d]), Findings::default());
    assert_eq!(judge(&[a, c]), Findings { acked_lost: 1, ..Findings::default() });
    assert_eq!(judge(&[a, c, b]), Findings { reordered: 1, ..Findings::default() });
    assert_eq!(judge(&[a, b, b, c]), Findings { duplicate: 1, ..Findings::default() });
    let cut = [&d[..d.len() - 2], b"\n"].concat();
    assert_eq!(judge(&[a, b, c, &cut]), Findings { torn_shown: 1, ..Findings::default() });
    let mut changed = d.to_vec();
    let middle = d.len() - 2;
    changed[middle] = b'?';
    assert_eq!(judge(&[a, b, c, &changed]), Findings { corrupted: 1, ..Findings::default() });
    assert_eq!(judge(&[a, b, c, &line(conn, 9)]), Findings { phantom: 1, ..Findings::default() });
    assert_eq!(judge(&[a, b, c, b"noise\n"]), Findings { phantom: 1, ..Findings::default() });
}
