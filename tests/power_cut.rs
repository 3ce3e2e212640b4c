//! Power cuts on a real ext4: an image on a loop device, shut down without flushing its journal at a random moment
//! (`EXT4_IOC_SHUTDOWN`), mounted again. What was acknowledged as durable before the cut began must be there.

mod common;

use common::{Server, await_that, scratch};
use std::collections::HashMap;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cuts in `cargo test`; LOGWEIR_POWER_CUTS asks for more.
const CUTS: u64 = 6;
/// `_IOR('X', 125, __u32)`, fs/ext4/ext4.h
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Neither data nor journal are flushed.
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

/// A mounted image; unmounted when dropped.
struct Image {
    file: PathBuf,
    mount: PathBuf,
}

fn run(command: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(command).args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{command}: {error}")),
    }
}

impl Image {
    fn new(dir: &Path) -> Result<Image, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to mount".into());
        }
        let (file, mount) = (dir.join("image"), dir.join("mount"));
        let made = std::fs::File::create(&file).map_err(|e| e.to_string())?;
        made.set_len(192 << 20).map_err(|e| e.to_string())?;
        std::fs::create_dir(&mount).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", "-F", file.to_str().unwrap()])?;
        let image = Image { file, mount };
        image.mount()?;
        Ok(image)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", self.file.to_str().unwrap(), self.mount.to_str().unwrap()])
    }

    fn cut_power(&self) {
        let dir = std::fs::File::open(&self.mount).unwrap();
        let flags = EXT4_GOING_FLAGS_NOLOGFLUSH;
        // SAFETY: the descriptor is open and the call reads one u32 through the pointer.
        let rc = unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
        assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    }

    fn remount(&self) {
        await_that("unmount", || run("umount", &[self.mount.to_str().unwrap()]).is_ok());
        self.mount().unwrap();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.mount.to_str().unwrap()]);
    }
}

#[test]
fn durable_lines_survive_power_cuts() {
    let dir = scratch();
    let image = match Image::new(dir.path()) {
        Ok(image) => image,
        Err(why) => return common::skipped("durable_lines_survive_power_cuts", &why),
    };
    let cuts: u64 = std::env::var("LOGWEIR_POWER_CUTS").ok().and_then(|c| c.parse().ok()).unwrap_or(CUTS);
    let data = image.mount.join("data");
    let config = dir.path().join("logweir.toml");
    // Both ways of writing, and rotations in between.
    let text = "[buffer]\nmemory = \"16MiB\"\n[storage]\nsegment_size = \"2MiB\"\nreserve_step = \"1MiB\"\nsync_interval = \"5ms\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\n[listener.plain]\naddress = \"tcp://127.0.0.1:0\"\n";
    std::fs::write(&config, text).unwrap();
    let start = |io: &str| {
        let args = ["--config", config.to_str().unwrap(), "--set", io];
        Server::start_with(&data, &args, std::process::Stdio::null(), |_| {})
    };
    let mut torn = 0.0;
    for cut in 0..cuts {
        // Large appends in turn past the page cache and as the machine suggests.
        let io = if cut % 2 == 0 { "storage.io=auto" } else { "storage.io=direct" };
        let mut server = start(io);
        assert_eq!(server.introduction.contains("direct, whole blocks"), cut % 2 == 1, "{}", server.introduction);
        let (acked, web, plain) = (server.address("lines"), server.address("web"), server.address("plain"));
        let replied: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let unheard = AtomicU64::new(0);
        let mut before = Vec::new();
        std::thread::scope(|scope| {
            for (i, replied) in replied.iter().enumerate() {
                // Half of them by HTTP.
                let (is_http, number) = (i % 2 == 1, i as u32);
                let stream = TcpStream::connect(if is_http { web } else { acked }).unwrap();
                scope.spawn(move || match is_http {
                    true => common::http::acked_client(stream, "/", number, 3000, replied),
                    false => common::acked_client(stream, number, 3000, replied),
                });
            }
            let stream = TcpStream::connect(plain).unwrap();
            scope.spawn(|| common::acked_client(stream, 99, 3000, &unheard));
            let moment = (cut * 7919 + 101) % 4000;
            await_that("acknowledgements", || replied.iter().map(|r| r.load(Ordering::SeqCst)).sum::<u64>() > moment);
            before = replied.iter().map(|r| r.load(Ordering::SeqCst)).collect();
            image.cut_power();
            server.kill();
        });
        drop(server);
        image.remount();
        let mut server = start(io);
        let metrics = server.metrics();
        assert_eq!(metrics.sum("logweir_recovered_damaged_segments", ""), 0.0, "cut {cut}");
        torn += metrics.sum("logweir_recovered_torn_bytes", "");
        assert!(server.stop().success());
        let mut on_disk: HashMap<u32, u64> = HashMap::new();
        let out = common::cat(&data);
        for line in common::lines_of(&out) {
            let parsed = logweir::bench::lines::parse_numbered(line);
            let (connection, number) = parsed.unwrap_or_else(|| panic!("cut {cut}: a line that was not sent"));
            if connection != 99 {
                let next = on_disk.entry(connection).or_insert(0);
                assert_eq!(number, *next, "cut {cut}, connection {connection}: a gap, a double or out of order");
                *next += 1;
            }
        }
        for (connection, said) in before.iter().enumerate() {
            let there = on_disk.get(&(connection as u32)).copied().unwrap_or(0);
            assert!(there >= *said, "cut {cut}: {said} were acknowledged as durable, {there} are there");
        }
        std::fs::remove_dir_all(data.join("default")).unwrap();
    }
    eprintln!("{cuts} power cuts, {torn} bytes moved to .torn");
}
