//! A RELP client that keeps the ledger.

use crate::common::ledger::Account;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Frames that a client has on their way without an answer, as librelp does.
const WINDOW: u64 = 128;

/// Sends lines until the server is gone; an answer `200 OK` is an acknowledgement.
pub fn client(mut stream: TcpStream, account: &Account) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let offers = "relp_version=0\nrelp_software=logweir-tests,1\ncommands=syslog";
    if writeln!(stream, "1 open {} {offers}", offers.len()).is_err() || !is_answered(&mut reader) {
        return;
    }
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while is_answered(&mut reader) {
                account.acked.fetch_add(1, Ordering::SeqCst);
            }
            // The sender may wait for an answer that never comes.
            gone.store(true, Ordering::SeqCst);
        });
        let (mut line, mut frame) = (Vec::new(), Vec::new());
        for number in 0.. {
            line.clear();
            account.line(number, &mut line);
            line.pop();
            frame.clear();
            let _ = write!(frame, "{} syslog {} ", number + 2, line.len());
            frame.extend_from_slice(&line);
            frame.push(b'\n');
            while number >= account.acked() + WINDOW && !gone.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_micros(200));
            }
            account.sent.store(number + 1, Ordering::SeqCst);
            if gone.load(Ordering::SeqCst) || stream.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
}

/// Reads `TXNR rsp LENGTH DATA`; false at the end or where it is not 200.
fn is_answered(reader: &mut impl BufRead) -> bool {
    let mut word = || {
        let mut bytes = Vec::new();
        reader.read_until(b' ', &mut bytes).ok()?;
        String::from_utf8(bytes).ok()
    };
    let (Some(_), Some(command), Some(length)) = (word(), word(), word()) else { return false };
    let Ok(length) = length.trim().parse::<usize>() else { return false };
    let mut data = vec![0; length + 1];
    command.trim() == "rsp" && reader.read_exact(&mut data).is_ok() && data.starts_with(b"200")
}
