//! Reads file modes, users and groups of a configuration.

use super::checked::Check;
use super::raw;
use crate::intake::listener::SocketAccess;
use crate::log::real_disk::FileAccess;
use nix::unistd::{Group, User};

impl Check<'_> {
    /// A mode of a file: octal digits.
    fn mode(&self, key: &str, text: &str, example: &str) -> Option<u32> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            self.places.note(self.places.error(key, format!("expected a mode such as \"{example}\", not \"{text}\"")));
        }
        mode
    }

    /// A user or group: a number, or a name that this host knows.
    fn id(&self, key: &str, text: Option<&String>, what: &str, find: impl Fn(&str) -> Option<u32>) -> Option<u32> {
        self.places.optional(key, text);
        let text = text?;
        let id = text.parse().ok().or_else(|| find(text));
        if id.is_none() {
            self.places.note(
                self.places.error(key, format!("this host has no {what} \"{text}\"; expected a name or a number")),
            );
        }
        id
    }

    fn group(&self, key: &str, text: Option<&String>) -> Option<u32> {
        self.id(key, text, "group", |name| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
    }

    /// Who may use the socket file of a listener.
    pub fn socket_access(&self, name: &str, raw: &raw::Listener) -> SocketAccess {
        let key = |k: &str| format!("listener.{name}.{k}");
        let mode = self.places.word(&key("socket_mode"), raw.socket_mode.as_deref(), "0660");
        let user = |name: &str| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        SocketAccess {
            mode: self.mode(&key("socket_mode"), mode, "0660").unwrap_or(0),
            owner: self.id(&key("socket_owner"), raw.socket_owner.as_ref(), "user", user),
            group: self.group(&key("socket_group"), raw.socket_group.as_ref()),
        }
    }

    /// Who may read the files.
    pub fn file_access(&self, raw: &raw::Storage) -> FileAccess {
        let (key, text) = ("storage.file_mode", raw.file_mode.as_ref());
        self.places.optional(key, text);
        let mode = text.and_then(|text| self.mode(key, text, "0640"));
        if mode.is_some_and(|mode| mode & 0o600 != 0o600 || mode & 0o111 != 0) {
            let message = "expected a mode with rw for the owner and without x, such as \"0640\"; directories have x wherever it has r";
            self.places.note(self.places.error(key, message));
        }
        FileAccess { mode, group: self.group("storage.file_group", raw.file_group.as_ref()) }
    }
}
