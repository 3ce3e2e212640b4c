//! Power cuts on a real ext4 and a real xfs: an image on a loop device, shut down without flushing its journal at a random
//! moment, mounted again. What was acknowledged as durable before the cut began must be there.

use crate::common::ledger::{self, Dice, Findings, Watch, clear, row};
use crate::common::{Server, await_that, scratch, skipped};
use crate::kills::killed_early;
use crate::load::{Client, ENGINES, MODES, accounts, config, mixed, under_load};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Cuts for each way to run a server in `cargo test`; LOGWEIR_POWER_CUTS asks for more.
const CUTS: u64 = 1;
/// `EXT4_IOC_SHUTDOWN` (fs/ext4/ext4.h) and `XFS_IOC_GOINGDOWN` (fs/xfs/libxfs/xfs_fs.h) are the same `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Neither data nor journal are flushed; the same number for both.
const NO_LOG_FLUSH: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    /// With blocks of 1 KiB, as mkfs makes it below 512 MiB: a page is lost in parts.
    Ext4SmallBlocks,
    Xfs,
    Btrfs,
}

/// A mounted image; unmounted when dropped.
pub struct Image {
    kind: FileSystem,
    file: PathBuf,
    pub mount: PathBuf,
}

pub fn run(command: &str, args: &[&str]) -> Result<String, String> {
    match Command::new(command).args(args).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            Err(format!("{command} {args:?}: {} {}", err.trim(), out.trim()))
        }
        Err(error) => Err(format!("{command}: {error}")),
    }
}

impl Image {
    pub fn new(kind: FileSystem, dir: &Path, mount: &Path, bytes: u64) -> Result<Image, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to mount".into());
        }
        let file = dir.join("image");
        let made = std::fs::File::create(&file).map_err(|e| e.to_string())?;
        made.set_len(bytes).map_err(|e| e.to_string())?;
        let name = file.to_str().unwrap();
        match kind {
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-b", "4096", name])?,
            FileSystem::Ext4SmallBlocks => run("mkfs.ext4", &["-q", "-F", "-b", "1024", name])?,
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", name])?,
            FileSystem::Btrfs => run("mkfs.btrfs", &["-q", "-f", "-K", name])?,
        };
        Image::of(kind, &file, mount)
    }

    /// Mounts what is there already.
    pub fn of(kind: FileSystem, file: &Path, mount: &Path) -> Result<Image, String> {
        std::fs::create_dir_all(mount).map_err(|e| e.to_string())?;
        let image = Image { kind, file: file.to_path_buf(), mount: mount.to_path_buf() };
        image.mount()?;
        Ok(image)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", self.file.to_str().unwrap(), self.mount.to_str().unwrap()]).map(drop)
    }

    pub fn cut_power(&self) {
        let dir = std::fs::File::open(&self.mount).unwrap();
        let flags = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open and the call reads one u32 through the pointer.
        let rc = unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN, &raw const flags) };
        assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    }

    fn unmount(&self) {
        await_that("unmount", || run("umount", &[self.mount.to_str().unwrap()]).is_ok());
    }

    /// As after a reboot: the journal is replayed, the file system is found clean, and mounted.
    pub fn reboot(&self) {
        self.unmount();
        self.mount().unwrap();
        self.unmount();
        let file = self.file.to_str().unwrap();
        match self.kind {
            FileSystem::Ext4 | FileSystem::Ext4SmallBlocks => run("fsck.ext4", &["-f", "-n", file]).unwrap(),
            FileSystem::Xfs => run("xfs_repair", &["-n", "-f", file]).unwrap(),
            FileSystem::Btrfs => run("btrfs", &["check", "--readonly", file]).unwrap(),
        };
        self.mount().unwrap();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = run("umount", &["-l", self.mount.to_str().unwrap()]);
            return;
        }
        self.unmount();
    }
}

const STORAGE: &str = "segment_size = \"2MiB\"\nsync_interval = \"5ms\"\n";

/// One cut under load, and what is there after it.
fn cut(image: &Image, dir: &Path, text: &str, dice: &mut Dice, seen: &mut Seen) -> Findings {
    let data = image.mount.join("data");
    let path = dir.join("logweir.toml");
    std::fs::write(&path, text).unwrap();
    let start = || Server::start(&data, &["--config", path.to_str().unwrap()]);
    let longest = [300, 3000, 40_000][dice.below(3) as usize];
    let mut clients = mixed(longest);
    clients.push(Client::new("plain", 99, longest));
    clients.iter_mut().for_each(|c| c.durable = !text.contains("ack = \"written\""));
    let begun = Instant::now();
    let mut server = start();
    let start_time = begun.elapsed();
    seen.cap = ledger::memory_cap(&server.introduction);
    seen.introduction.clone_from(&server.introduction);
    let watch = Watch::over(server.admin.unwrap(), server.pid());
    let moment = dice.below(12_000_000 / longest);
    let before = under_load(&mut server, &clients, |server| {
        await_that("acknowledgements", || ledger::acked_in_all(accounts(&clients)) > moment);
        let before = ledger::acked_now(accounts(&clients));
        image.cut_power();
        server.kill();
        before
    });
    drop(server);
    seen.memory = seen.memory.most(watch.end().memory);
    image.reboot();
    // The power fails again while the next server recovers.
    for _ in 0..dice.below(3) {
        let after = Duration::from_micros(dice.below(start_time.as_micros() as u64 * 5 / 4));
        killed_early(&data, &path, after, || image.cut_power());
        image.reboot();
        seen.in_recovery += 1;
    }
    let mut server = start();
    let metrics = server.metrics();
    assert_eq!(metrics.sum("logweir_recovered_damaged_segments", ""), 0.0);
    seen.torn_bytes += metrics.sum("logweir_recovered_torn_bytes", "") as u64;
    assert!(server.stop().success());
    let found = ledger::check(&data, accounts(&clients), &before);
    clear(&data);
    found
}

#[derive(Default)]
struct Seen {
    memory: ledger::Memory,
    cap: u64,
    torn_bytes: u64,
    in_recovery: u64,
    introduction: String,
}

fn cuts(test: &str, kind: FileSystem) {
    let dir = scratch();
    let image = match Image::new(kind, dir.path(), &dir.path().join("mount"), 320 << 20) {
        Ok(image) => image,
        Err(why) => return skipped(test, &why),
    };
    let cuts = ledger::times("LOGWEIR_POWER_CUTS", CUTS);
    for (which, (engine, io)) in ENGINES.iter().flat_map(|e| MODES.iter().map(move |io| (e, io))).enumerate() {
        let text = config(engine, io, "durable", STORAGE);
        let (mut found, mut seen) = (Findings::default(), Seen::default());
        for round in 0..cuts {
            let mut dice = Dice::new(test, (which as u64) << 20 | round);
            let now = cut(&image, dir.path(), &text, &mut dice, &mut seen);
            now.must_be_honest(&format!("{test}, {engine}, {io}, cut {round}"));
            assert_eq!((now.duplicate, now.gaps), (0, 0), "{engine}, {io}, cut {round}: {now:?}");
            assert_eq!(*io == "direct", seen.introduction.contains("direct, whole blocks"), "{}", seen.introduction);
            found.add(&now);
        }
        assert!(seen.memory.own_kib << 10 <= seen.cap, "{:?} of {}", seen.memory, seen.cap);
        let variant = format!("{kind:?}, {engine}, {io}");
        let note = format!(
            "and {} cuts during recovery; fsck clean; {} KiB moved to .torn",
            seen.in_recovery,
            seen.torn_bytes >> 10
        );
        row("power cut A", &variant, cuts, &found, Some((seen.memory, seen.cap)), &note);
    }
}

#[test]
fn durable_lines_survive_power_cuts() {
    cuts("durable_lines_survive_power_cuts", FileSystem::Ext4);
}

#[test]
fn durable_lines_survive_power_cuts_with_small_blocks() {
    cuts("durable_lines_survive_power_cuts_with_small_blocks", FileSystem::Ext4SmallBlocks);
}

#[test]
fn durable_lines_survive_power_cuts_on_xfs() {
    cuts("durable_lines_survive_power_cuts_on_xfs", FileSystem::Xfs);
}

/// The cut really takes what was not synced, and the ledger sees it: or the tests above would prove nothing.
#[test]
fn written_lines_do_not_all_survive_power_cuts() {
    let dir = scratch();
    let image = match Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 320 << 20) {
        Ok(image) => image,
        Err(why) => return skipped("written_lines_do_not_all_survive_power_cuts", &why),
    };
    let text = config("auto", "append", "written", "sync_interval = \"1h\"\nsync_bytes = \"64MiB\"\n");
    let mut dice = Dice::new("written", 0);
    let (mut found, mut seen) = (Findings::default(), Seen::default());
    for _ in 0..3 {
        found.add(&cut(&image, dir.path(), &text, &mut dice, &mut seen));
    }
    assert!(found.acked_lost > 0, "{found:?}");
    assert_eq!((found.corrupted, found.torn_shown, found.reordered, found.phantom), (0, 0, 0, 0), "{found:?}");
    row("oracle", "Ext4, written, no sync, power cut: must lose", 3, &found, None, "proves that losses are seen");
}
