//! Real file systems in files: mounted, filled up, cut off from their power.

use super::ledger::pass;
use super::{Server, await_that};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// True where the server has found its disk full.
pub fn full(server: &Server) -> bool {
    server.metrics().sum("logweir_disk_full", "") >= 1.0
}

/// Waits until the disk is full and has been for a while. File systems give back room that they had set aside: then the
/// server takes lines into it, says so, and is full again.
pub fn await_full_for_good(server: &Server) {
    let mut times = None;
    await_that("the disk to stay full", || {
        let now = server.metrics().sum("logweir_disk_full_events_total", "");
        let stayed = times.replace(now) == Some(now) && full(server);
        if !stayed {
            pass(Duration::from_millis(300));
        }
        stayed
    });
}

/// A file that takes all room but so much. It grows piece by piece, because the server takes of the same room meanwhile, and
/// because xfs does not always give at once what a file that was cut off had: what a piece has got is kept.
pub fn fill(mount: &Path, leave: u64) {
    let ballast = std::fs::File::create(mount.join("ballast")).unwrap();
    // A full file system says that less than nothing is free, and `space` makes sense of that.
    let free = || logweir::host::sys::space(mount).unwrap().free.saturating_sub(leave);
    let (mut at, mut piece) = (0, u64::MAX);
    loop {
        piece = piece.min(free() / 4096 * 4096);
        if piece == 0 {
            break;
        }
        let got = nix::fcntl::fallocate(&ballast, nix::fcntl::FallocateFlags::empty(), at as i64, piece as i64);
        match got {
            // What it got of the piece before it failed stays in the file, so the next one goes on where this one began.
            Err(nix::Error::ENOSPC) => piece /= 2,
            got => {
                got.unwrap();
                at += piece;
            }
        }
    }
    if leave == 0 {
        // What fallocate left over.
        let _ = run(
            "dd",
            &["if=/dev/zero", &format!("of={}/ballast", mount.display()), "bs=4096", "oflag=append", "conv=notrunc"],
        );
    }
    let left = free();
    assert!(left < 8 << 20, "the disk cannot be filled: {left} bytes more than {leave} are left");
}
