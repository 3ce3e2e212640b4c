//! The ledger's checker on files made by hand: each kind of wrong is seen, and only that.

use crate::common::ledger::{Account, Findings, check};
use crate::common::scratch;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// What is found where ten lines were sent, five acknowledged, and `change` made the file.
fn found(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Findings {
    let dir = scratch();
    let account = Account::new(7, 300);
    account.sent.store(10, Ordering::SeqCst);
    let mut lines: Vec<Vec<u8>> = (0..10)
        .map(|number| {
            let mut line = Vec::new();
            account.line(number, &mut line);
            line
        })
        .collect();
    change(&mut lines);
    std::fs::create_dir(dir.path().join("default")).unwrap();
    std::fs::write(dir.path().join("default/000-0000000001.log"), lines.concat()).unwrap();
    Findings { first: None, ..check(dir.path(), [&account], &HashMap::from([(7, 5)])) }
}

const GOOD: Findings = Findings {
    lines: 10,
    acked: 5,
    acked_lost: 0,
    corrupted: 0,
    torn_shown: 0,
    reordered: 0,
    phantom: 0,
    duplicate: 0,
    gaps: 0,
    first: None,
};

#[test]
fn the_checker_sees_each_kind_of_wrong() {
    assert_eq!(found(|_| {}), GOOD);
    assert_eq!(found(|lines| lines.truncate(5)), Findings { lines: 5, ..GOOD });
    assert_eq!(found(|lines| lines.truncate(4)), Findings { lines: 4, acked_lost: 1, ..GOOD });
    assert_eq!(found(|lines| drop(lines.remove(2))), Findings { lines: 9, acked_lost: 1, gaps: 1, ..GOOD });
    assert_eq!(found(|lines| drop(lines.remove(7))), Findings { lines: 9, gaps: 1, ..GOOD });
    assert_eq!(found(|lines| lines.swap(7, 8)), Findings { reordered: 1, ..GOOD });
    assert_eq!(found(|lines| lines[9] = lines[8].clone()), Findings { lines: 9, duplicate: 1, ..GOOD });
    assert_eq!(found(|lines| lines[9][50] ^= 1), Findings { lines: 9, corrupted: 1, ..GOOD });
    assert_eq!(found(|lines| lines[9].truncate(200)), Findings { lines: 9, torn_shown: 1, ..GOOD });
    let torn = |lines: &mut Vec<Vec<u8>>| {
        lines[9].truncate(50);
        lines[9].push(b'\n');
    };
    assert_eq!(found(torn), Findings { lines: 9, torn_shown: 1, ..GOOD });
    let tail = |lines: &mut Vec<Vec<u8>>| drop(lines[9].drain(..30));
    assert_eq!(found(tail), Findings { lines: 9, corrupted: 1, ..GOOD });
    let phantom = |lines: &mut Vec<Vec<u8>>| {
        let mut line = Vec::new();
        Account::new(7, 300).line(10, &mut line);
        lines.push(line);
    };
    assert_eq!(found(phantom), Findings { phantom: 1, ..GOOD });
    assert_eq!(found(|lines| lines.push(b"\n".to_vec())), Findings { corrupted: 1, ..GOOD });
}
