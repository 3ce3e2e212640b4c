//! Finds the mount that holds a directory (`/proc/self/mountinfo`, proc(5)), and the device beneath it.

use super::Host;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor`
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// `ext4`
    pub kind: String,
    /// `/dev/sda2`
    pub source: String,
    /// Options of the mount and of the file system.
    pub options: Vec<String>,
}

impl Mount {
    /// True if the option is set: `noatime`, or `data` with its value.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|o| match o.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if o == name => Some(""),
            _ => None,
        })
    }
}

/// The mount whose point is the longest beginning of the directory; of several at one point, the last.
pub fn mount_of(host: &dyn Host, dir: &Path) -> Option<Mount> {
    let dir = host.existing(dir);
    let text = host.read("proc/self/mountinfo")?;
    let over = text.lines().filter_map(parse).filter(|m| dir.starts_with(&m.point));
    over.max_by_key(|m| m.point.components().count())
}

fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let mut rest = after.split(' ');
    let (kind, source, of_the_system) = (rest.next()?, rest.next()?, rest.next().unwrap_or(""));
    let mut options: Vec<String> = Vec::new();
    for option in fields.get(5)?.split(',').chain(of_the_system.split(',')).filter(|o| !o.is_empty()) {
        if !options.iter().any(|o| o == option) {
            options.push(option.to_string());
        }
    }
    Some(Mount {
        device: (*fields.get(2)?).to_string(),
        point: PathBuf::from(unescape(fields.get(4)?)),
        kind: kind.to_string(),
        source: unescape(source),
        options,
    })
}

/// `\040` stands for a blank.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal =
            bytes.get(i + 1..i + 4).filter(|d| bytes[i] == b'\\' && d.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A whole disk beneath a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `sda`
    pub name: String,
    /// Its directory in `/sys`, without the leading slash.
    pub path: String,
}

/// More layers (LVM on LUKS on RAID) than this are not followed.
const LAYERS: usize = 6;

/// The disks beneath a mount: a partition's parent, the members of a mapping or an array.
pub fn disks(host: &dyn Host, mount: &Mount) -> Vec<Disk> {
    let mut device = mount.device.clone();
    if device.starts_with("0:") {
        // btrfs and overlays show a device of their own; the source may say more.
        let Some(name) = mount.source.strip_prefix("/dev/") else { return Vec::new() };
        match host.read(&format!("sys/class/block/{name}/dev")) {
            Some(text) => device = text.trim().to_string(),
            None => return Vec::new(),
        }
    }
    let mut found = Vec::new();
    beneath(host, &format!("sys/dev/block/{device}"), LAYERS, &mut found);
    found
}

fn beneath(host: &dyn Host, path: &str, layers: usize, found: &mut Vec<Disk>) {
    let members = host.list(&format!("{path}/slaves"));
    if layers > 0 && !members.is_empty() {
        members.iter().for_each(|member| beneath(host, &format!("{path}/slaves/{member}"), layers - 1, found));
        return;
    }
    // A partition has no queue; its parent directory is the disk's.
    for path in [path.to_string(), format!("{path}/..")] {
        let name = host
            .read(&format!("{path}/uevent"))
            .and_then(|text| text.lines().find_map(|l| l.strip_prefix("DEVNAME=")).map(str::to_string));
        if host.read(&format!("{path}/queue/scheduler")).is_some()
            && let Some(name) = name
        {
            let disk = Disk { name, path };
            if !found.contains(&disk) {
                found.push(disk);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).expect("a mount");
        assert_eq!((mount.device.as_str(), mount.kind.as_str()), ("98:0", "ext3"));
        assert_eq!(mount.point, Path::new("/mnt 2"));
        assert_eq!(
            (mount.option("noatime"), mount.option("errors"), mount.option("ro")),
            (Some(""), Some("continue"), None)
        );
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse("1 2 3 - x"), None);
        assert_eq!(unescape(r"a\1"), r"a\1");
    }
}
