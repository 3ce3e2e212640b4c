//! A block device's memory: one sparse file in a FUSE file system, beneath a loop device. It keeps a log of what is written and
//! flushed, so that any state a power cut could leave can be built afterwards.

use crate::common::await_that;
use crate::common::image::run;
use crate::common::ledger::Dice;
use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const BLOCK: usize = 4096;
const TTL: Duration = Duration::from_secs(60);
const THE_FILE: u64 = 2;

/// What happened to the device.
pub enum Event<T> {
    Write { offset: usize, bytes: Vec<u8>, seen: T },
    Flush { seen: T },
}

impl<T> Event<T> {
    /// What the observer said when it happened.
    pub fn seen(&self) -> &T {
        match self {
            Event::Write { seen, .. } | Event::Flush { seen } => seen,
        }
    }
}

type Blocks = HashMap<usize, Box<[u8; BLOCK]>>;

struct State<T> {
    size: usize,
    blocks: Blocks,
    /// `None`: nothing is logged.
    log: Option<Vec<Event<T>>>,
}

/// Looks at the world each time something happens to the device.
type Observer<T> = Box<dyn Fn() -> T + Send + Sync>;

struct Fuse<T> {
    state: Arc<Mutex<State<T>>>,
    observer: Observer<T>,
}

/// A device's file, mounted; unmounted when dropped.
pub struct BlockDisk<T> {
    state: Arc<Mutex<State<T>>>,
    mount: PathBuf,
    session: Option<BackgroundSession>,
}

impl<T: Send + 'static> BlockDisk<T> {
    pub fn new(mount: &Path, observer: impl Fn() -> T + Send + Sync + 'static) -> Result<BlockDisk<T>, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to mount".into());
        }
        std::fs::create_dir_all(mount).map_err(|e| e.to_string())?;
        let state = Arc::new(Mutex::new(State { size: 0, blocks: HashMap::new(), log: None }));
        let mut config = Config::default();
        config.n_threads = Some(2);
        let fuse = Fuse { state: Arc::clone(&state), observer: Box::new(observer) };
        let session =
            fuser::spawn_mount(fuse, mount, &config).map_err(|e| format!("mounting a FUSE file system: {e}"))?;
        Ok(BlockDisk { state, mount: mount.to_path_buf(), session: Some(session) })
    }

    /// From now on events are kept; returns what the device holds now.
    pub fn begin_log(&self) -> Start {
        let mut state = self.state.lock().unwrap();
        state.log = Some(Vec::new());
        Start { size: state.size, blocks: state.blocks.clone() }
    }

    /// The events so far; no more are kept.
    pub fn end_log(&self) -> Vec<Event<T>> {
        self.state.lock().unwrap().log.take().unwrap()
    }
}

impl<T> Drop for BlockDisk<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = run("umount", &["-l", self.mount.to_str().unwrap()]);
            return;
        }
        await_that("unmount", || run("umount", &[self.mount.to_str().unwrap()]).is_ok());
        if let Some(session) = self.session.take() {
            let _ = session.join();
        }
    }
}

/// What a device held when the log began.
pub struct Start {
    size: usize,
    blocks: Blocks,
}

impl Start {
    /// Writes to `file` what could be on the device after a cut behind event `at`: all that was written before the last
    /// flush, and of each later write everything, nothing, or any of its parts of 512 bytes or 4 KiB. Returns how many
    /// writes were in doubt.
    pub fn image<T>(&self, events: &[Event<T>], at: usize, dice: &mut Dice, file: &Path) -> usize {
        let flushed = events[..at].iter().rposition(|e| matches!(e, Event::Flush { .. })).map_or(0, |i| i + 1);
        let mut blocks = self.blocks.clone();
        let mut doubtful = 0;
        let keep_all = dice.below(8) == 0;
        for (i, event) in events[..at].iter().enumerate() {
            let Event::Write { offset, bytes, .. } = event else { continue };
            if i < flushed || keep_all {
                store(&mut blocks, *offset, bytes);
                continue;
            }
            doubtful += 1;
            let part = [512, BLOCK, usize::MAX][dice.below(3) as usize].min(bytes.len());
            for (n, piece) in bytes.chunks(part).enumerate() {
                if dice.coin() {
                    store(&mut blocks, offset + n * part, piece);
                }
            }
        }
        let out = std::fs::File::create(file).unwrap();
        out.set_len(self.size as u64).unwrap();
        for (number, block) in blocks {
            out.write_all_at(&block[..], (number * BLOCK) as u64).unwrap();
        }
        doubtful
    }
}

fn store(blocks: &mut Blocks, mut offset: usize, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let within = offset % BLOCK;
        let n = (BLOCK - within).min(bytes.len());
        let block = blocks.entry(offset / BLOCK).or_insert_with(|| Box::new([0; BLOCK]));
        block[within..within + n].copy_from_slice(&bytes[..n]);
        (offset, bytes) = (offset + n, &bytes[n..]);
    }
}

impl<T> Fuse<T> {
    fn attributes(&self, number: u64) -> FileAttr {
        let is_file = number == THE_FILE;
        let size = if is_file { self.state.lock().unwrap().size as u64 } else { 0 };
        let time = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size / 512,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        }
    }
}

/// Any name is the one file, once it was made.
impl<T: Send + 'static> Filesystem for Fuse<T> {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        if self.state.lock().unwrap().size == 0 {
            return reply.error(fuser::Errno::ENOENT);
        }
        reply.entry(&TTL, &self.attributes(THE_FILE), Generation(0));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(number.0));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(size) = size {
            self.state.lock().unwrap().size = size as usize;
        }
        reply.attr(&TTL, &self.attributes(number.0));
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.created(&TTL, &self.attributes(THE_FILE), Generation(0), FileHandle(0), FopenFlags::empty());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state.lock().unwrap();
        let (start, end) = (offset as usize, (offset as usize + size as usize).min(state.size));
        let mut bytes = vec![0; end.saturating_sub(start)];
        let mut at = start;
        while at < end {
            let (within, left) = (at % BLOCK, end - at);
            let n = (BLOCK - within).min(left);
            if let Some(block) = state.blocks.get(&(at / BLOCK)) {
                bytes[at - start..at - start + n].copy_from_slice(&block[within..within + n]);
            }
            at += n;
        }
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let seen = (self.observer)();
        let mut state = self.state.lock().unwrap();
        store(&mut state.blocks, offset as usize, data);
        state.size = state.size.max(offset as usize + data.len());
        if let Some(log) = &mut state.log {
            log.push(Event::Write { offset: offset as usize, bytes: data.to_vec(), seen });
        }
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let seen = (self.observer)();
        if let Some(log) = &mut self.state.lock().unwrap().log {
            log.push(Event::Flush { seen });
        }
        reply.ok();
    }
}
