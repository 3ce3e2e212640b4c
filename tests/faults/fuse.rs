//! The disk in memory as a file system of the kernel, through FUSE; nothing but root and /dev/fuse is needed.

use crate::common::await_that;
use crate::common::image::run;
use crate::memory_disk::{Errno, File, MemoryDisk, Node, dir, file};
use fuser::{
    AccessFlags, BackgroundSession, Config, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// How long the kernel may remember names and sizes: nobody but the kernel changes them.
const REMEMBERED: Duration = Duration::from_secs(60);

struct Fuse(Arc<MemoryDisk>);

/// A mounted disk in memory; unmounted when dropped.
pub struct Mounted {
    pub disk: Arc<MemoryDisk>,
    pub mount: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts it, or says why that cannot be.
    pub fn new(mount: &Path) -> Result<Mounted, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to mount".into());
        }
        if !Path::new("/dev/fuse").exists() {
            return Err("there is no /dev/fuse".into());
        }
        std::fs::create_dir_all(mount).map_err(|e| e.to_string())?;
        let mut mounted = Mounted { disk: Arc::new(MemoryDisk::new()), mount: mount.to_path_buf(), session: None };
        mounted.attach()?;
        Ok(mounted)
    }

    fn attach(&mut self) -> Result<(), String> {
        let mut config = Config::default();
        // So that a slow file does not hold up the others.
        config.n_threads = Some(6);
        let session = fuser::spawn_mount(Fuse(Arc::clone(&self.disk)), &self.mount, &config);
        self.session = Some(session.map_err(|e| format!("mounting a FUSE file system: {e}"))?);
        Ok(())
    }

    fn detach(&mut self) {
        if let Some(session) = self.session.take() {
            // Not lazily: who still has a file open would be found here.
            await_that("unmount", || run("umount", &[self.mount.to_str().unwrap()]).is_ok());
            let _ = session.join();
        }
    }

    /// As after a power cut: everything is forgotten that was not synced, and it is another mount.
    pub fn reboot(&mut self, dice: &mut crate::common::ledger::Dice) {
        self.detach();
        self.disk.come_back(dice);
        self.attach().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.mount.to_str().unwrap()]);
    }
}

fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno)
}

fn text(name: &OsStr) -> &str {
    name.to_str().unwrap()
}

impl Fuse {
    fn entry(&self, number: Result<u64, Errno>, reply: ReplyEntry) {
        match number.and_then(|n| self.0.attributes(n)) {
            Ok(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
            Err(e) => reply.error(errno(e)),
        }
    }
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = self.0.with(|nodes| dir(nodes, parent.0)?.now.get(text(name)).copied().ok_or(libc::ENOENT));
        self.entry(number, reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.attributes(number.0) {
            // Names come and go behind the kernel's back only here: how many a file has is asked each time.
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(e) => reply.error(errno(e)),
        }
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
        let cut = size.map_or(Ok(()), |size| self.0.truncate(number.0, size as usize));
        match cut.and_then(|()| self.0.attributes(number.0)) {
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.0.with(|nodes| match nodes.get(&number.0) {
            Some(Node::Link(target)) => Ok(target.clone()),
            _ => Err(libc::EINVAL),
        });
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        self.entry(self.0.add(parent.0, text(name), Node::Dir(crate::memory_disk::Dir::default())), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let node = Node::Link(target.to_str().unwrap().to_string());
        self.entry(self.0.add(parent.0, text(name), node), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.remove(parent.0, text(name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.0.remove(parent.0, text(name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != new_parent {
            return reply.error(errno(libc::EXDEV));
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        done(self.0.rename(parent.0, text(name), text(new_name), replace), reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let made = self.0.add(parent.0, text(name), Node::File(File::named(text(name))));
        match made.and_then(|n| self.0.attributes(n)) {
            Ok(attributes) => {
                reply.created(&REMEMBERED, &attributes, Generation(0), FileHandle(0), FopenFlags::empty())
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.0.with(|nodes| {
            let data = &file(nodes, number.0)?.data;
            let start = (offset as usize).min(data.len());
            Ok(data[start..(start + size as usize).min(data.len())].to_vec())
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(number.0, offset as usize, data) {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.sync(number.0), reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.sync(number.0), reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = self.0.with(|nodes| {
            let names: Vec<(String, u64)> = dir(nodes, number.0)?.now.iter().map(|(n, i)| (n.clone(), *i)).collect();
            let kind = |i: &u64| match nodes.get(i) {
                Some(Node::Dir(_)) => FileType::Directory,
                Some(Node::Link(_)) => FileType::Symlink,
                _ => FileType::RegularFile,
            };
            Ok(names.into_iter().map(|(n, i)| (n, i, kind(&i))).collect::<Vec<_>>())
        });
        match names {
            Ok(names) => {
                for (at, (name, number, kind)) in names.into_iter().enumerate().skip(offset as usize) {
                    if reply.add(INodeNo(number), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let capacity = self.0.knobs.capacity.load(Ordering::SeqCst).min(1 << 40);
        let free = capacity.saturating_sub(self.0.used()) / 4096;
        reply.statfs(capacity / 4096, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Room is promised and not kept, as where files are copied on write.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, mode: i32, reply: ReplyEmpty) {
        let result = if mode == libc::FALLOC_FL_KEEP_SIZE { Ok(()) } else { Err(libc::EOPNOTSUPP) };
        done(result, reply);
    }
}
