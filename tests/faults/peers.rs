//! Other servers under the same ledger, configured as a careful operator would, and as they come. What they lose is reported,
//! not judged: only that the ledger could be kept is asserted.

use crate::common::image::{FileSystem, Image};
use crate::common::ledger::{self, Account, Dice, Findings, row, times};
use crate::common::{await_that, scratch, skipped};
use crate::relp;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

/// Sends plain lines. Nothing ever comes back, so what the socket took counts as handed over.
fn plain_client(mut stream: TcpStream, account: &Account) {
    let mut line = Vec::new();
    for number in 0.. {
        line.clear();
        account.line(number, &mut line);
        account.sent.store(number + 1, Ordering::SeqCst);
        if stream.write_all(&line).is_err() {
            return;
        }
        account.acked.store(number + 1, Ordering::SeqCst);
    }
}

struct Peer {
    name: &'static str,
    variant: &'static str,
    client: fn(TcpStream, &Account),
    /// Configuration for a port and the file that lines go to.
    config: fn(u16, &Path) -> String,
    /// The program with a configuration and a directory of its own.
    command: fn(&Path, &Path) -> Command,
    note: &'static str,
}

fn rsyslogd(config: &Path, work: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.args(["-n", "-f", config.to_str().unwrap(), "-i", work.join("pid").to_str().unwrap()]);
    command
}

fn syslog_ng(config: &Path, work: &Path) -> Command {
    let root = PathBuf::from(std::env::var_os("LOGWEIR_SYSLOG_NG").unwrap_or_else(|| "/".into()));
    let library = root.join("usr/lib/syslog-ng");
    let modules =
        std::fs::read_dir(&library).ok().and_then(|mut d| d.next()?.ok()).map_or(library.clone(), |e| e.path());
    let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
    command.env("LD_LIBRARY_PATH", format!("{}:{}", library.display(), root.join("usr/lib").display()));
    let in_work = |name: &str| work.join(name).to_str().unwrap().to_string();
    command.args(["-F", "--no-caps", "--module-path", modules.to_str().unwrap(), "-f", config.to_str().unwrap()]);
    command.args(["-R", &in_work("persist"), "-p", &in_work("pid"), "-c", &in_work("control")]);
    command
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "rsyslog 8.2302, RELP",
        variant: "as it comes (main queue in memory)",
        client: relp::client,
        config: |port, file| {
            format!(
                "module(load=\"imrelp\")\ntemplate(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
                 input(type=\"imrelp\" port=\"{port}\" address=\"127.0.0.1\")\n\
                 action(type=\"omfile\" file=\"{}\" template=\"raw\")\n",
                file.display()
            )
        },
        command: rsyslogd,
        note: "acknowledged when in the queue",
    },
    Peer {
        name: "rsyslog 8.2302, RELP",
        variant: "careful: ruleset without a queue, omfile sync=on, asyncWriting=off, flushOnTXEnd=on",
        client: relp::client,
        config: |port, file| {
            format!(
                "module(load=\"imrelp\")\ntemplate(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
                 input(type=\"imrelp\" port=\"{port}\" address=\"127.0.0.1\" ruleset=\"direct\")\n\
                 ruleset(name=\"direct\" queue.type=\"Direct\") {{\n\
                 action(type=\"omfile\" file=\"{}\" template=\"raw\" sync=\"on\" asyncWriting=\"off\" flushOnTXEnd=\"on\")\n}}\n",
                file.display()
            )
        },
        command: rsyslogd,
        note: "acknowledged when the action has run",
    },
    Peer {
        name: "syslog-ng 3.38, TCP",
        variant: "as it comes",
        client: plain_client,
        config: |port, file| {
            format!(
                "@version: 3.38\nsource s {{ network(ip(127.0.0.1) port({port}) transport(\"tcp\") flags(no-parse)); }};\n\
                 destination d {{ file(\"{}\" template(\"$MSG\\n\")); }};\nlog {{ source(s); destination(d); }};\n",
                file.display()
            )
        },
        command: syslog_ng,
        note: "never acknowledges: counted is what the sockets took",
    },
    Peer {
        name: "syslog-ng 3.38, TCP",
        variant: "careful: fsync(yes), flush-lines(1), flow control",
        client: plain_client,
        config: |port, file| {
            format!(
                "@version: 3.38\nsource s {{ network(ip(127.0.0.1) port({port}) transport(\"tcp\") flags(no-parse)); }};\n\
                 destination d {{ file(\"{}\" template(\"$MSG\\n\") fsync(yes) flush-lines(1)); }};\n\
                 log {{ source(s); destination(d); flags(flow-control); }};\n",
                file.display()
            )
        },
        command: syslog_ng,
        note: "never acknowledges: counted is what the sockets took",
    },
];

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(peer: &Peer, work: &Path, file: &Path) -> Result<(Running, SocketAddr), String> {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = work.join("peer.conf");
    std::fs::write(&config, (peer.config)(address.port(), file)).unwrap();
    let said = std::fs::File::create(work.join("said")).unwrap();
    let mut command = (peer.command)(&config, work);
    command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
    let mut running = Running(command.spawn().map_err(|e| format!("{}: {e}", peer.name))?);
    let mut ended = None;
    await_that("the peer to listen", || {
        ended = running.0.try_wait().unwrap();
        ended.is_some() || TcpStream::connect(address).is_ok()
    });
    match ended {
        Some(status) => {
            let said = std::fs::read_to_string(work.join("said")).unwrap();
            Err(format!("{} ended, {status}: {}", peer.name, said.trim()))
        }
        None => Ok((running, address)),
    }
}

/// Has three clients send until `fault` has ended the peer; what was acknowledged before.
fn under_load(
    peer: &Peer,
    address: SocketAddr,
    pages: &[Account],
    moment: u64,
    written: impl Fn() -> u64,
    fault: impl FnOnce(),
) -> std::collections::HashMap<u32, u64> {
    std::thread::scope(|scope| {
        for account in pages {
            let stream = TcpStream::connect(address).unwrap();
            scope.spawn(move || (peer.client)(stream, account));
        }
        await_that("acknowledgements", || ledger::acked_in_all(pages) > moment && written() > moment * 60);
        let before = ledger::acked_now(pages);
        fault();
        before
    })
}

#[test]
fn peers_under_the_same_ledger() {
    let test = "peers_under_the_same_ledger";
    let faults = times("LOGWEIR_PEER_FAULTS", 1);
    for (which, peer) in PEERS.iter().enumerate() {
        let dir = scratch();
        let image = match Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 320 << 20) {
            Ok(image) => image,
            Err(why) => return skipped(test, &why),
        };
        let (mut killed, mut cut) = (Findings::default(), Findings::default());
        let mut missing = None;
        for round in 0..faults * 2 {
            let is_cut = round % 2 == 1;
            let mut dice = Dice::new(test, (which as u64) << 20 | round);
            let moment = 500 + dice.below(3000);
            let data = if is_cut { image.mount.join("data") } else { dir.path().join("data") };
            let file = data.join("peer/000-0000000001.log");
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            // Its directory is there and durable before, as an installed system has it.
            nix::unistd::sync();
            let (mut running, address) = match start(peer, dir.path(), &file) {
                Ok(started) => started,
                Err(why) => {
                    missing = Some(why);
                    break;
                }
            };
            let written = || std::fs::metadata(&file).map_or(0, |m| m.len());
            let pages: Vec<Account> = (0..3).map(|i| Account { unpromised: true, ..Account::new(i, 300) }).collect();
            let before = under_load(peer, address, &pages, moment, written, || {
                if is_cut {
                    image.cut_power();
                }
                running.0.kill().unwrap();
                running.0.wait().unwrap();
            });
            drop(running);
            if is_cut {
                image.reboot();
            }
            let found = if data.exists() { ledger::check(&data, &pages, &before) } else { Findings::default() };
            if is_cut {
                cut.add(&found)
            } else {
                killed.add(&found)
            }
            let _ = std::fs::remove_dir_all(&data);
        }
        if let Some(why) = missing {
            skipped(&format!("{test}: {}", peer.name), &why);
            continue;
        }
        assert!(killed.acked > 0 && cut.acked > 0);
        row(&format!("peer, kill -9: {}", peer.name), peer.variant, faults, &killed, None, peer.note);
        row(&format!("peer, power cut A on ext4: {}", peer.name), peer.variant, faults, &cut, None, peer.note);
    }
    for (peer, command) in [("Vector", "vector"), ("Fluent Bit", "fluent-bit")] {
        if Command::new(command).arg("--version").output().is_err() {
            skipped(&format!("{test}: {peer}"), "not installed, and no package of it in the distribution");
        }
    }
}
