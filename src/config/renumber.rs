//! A configuration that is read again, with streams numbered as in the server that runs: chunks on their way name their
//! streams by number.

use super::Options;
use super::checked::StreamSettings;
use crate::protocol::http::{HttpOptions, StreamChoice, Token};
use std::sync::Arc;

/// Puts the streams of `running` first, in their order (also those that no listener names any more), then those that are new.
/// Whatever names a stream by number is changed with them, and memory for decoding is what there is.
#[must_use]
pub fn renumbered(mut new: Options, running: &Options) -> Options {
    let mut streams: Vec<StreamSettings> = running.streams.clone();
    let mut numbers = Vec::with_capacity(new.streams.len());
    for settings in new.streams {
        let place = streams.iter().position(|s| s.name == settings.name);
        numbers.push(place.unwrap_or(streams.len()) as u16);
        match place {
            Some(place) => streams[place] = settings,
            None => streams.push(settings),
        }
    }
    let number = |old: &u16| numbers[usize::from(*old)];
    for listener in &mut new.listeners {
        listener.stream = number(&listener.stream);
        listener.http = listener.http.as_ref().map(|http| {
            let choice = |c: &StreamChoice| StreamChoice { index: number(&c.index), ..c.clone() };
            let token = |t: &Token| Token {
                sha256: t.sha256,
                streams: t.streams.as_ref().map(|all| all.iter().map(number).collect()),
            };
            Arc::new(HttpOptions {
                streams: http.streams.iter().map(choice).collect(),
                tokens: http.tokens.iter().map(token).collect(),
                decoding: Arc::clone(&running.decoding),
                ..(**http).clone()
            })
        });
    }
    Options { streams, decoding: Arc::clone(&running.decoding), ..new }
}

#[cfg(test)]
mod tests {
    use crate::config::{Options, Overrides, load_text};

    fn load(text: &str) -> Options {
        load_text(text, "t.toml", &Overrides::default(), |_| None).unwrap()
    }

    #[test]
    fn streams_keep_their_numbers() {
        let running = load("[listener.l]\naddress = \"tcp://127.0.0.1:1\"\nstream = \"m\"");
        let hash = "0".repeat(64);
        let new = load(&format!(
            "[listener.a]\naddress = \"tcp://127.0.0.1:2\"\nprotocol = \"http\"\nstream = \"b\"\nstreams = [\"m\", \"z\"]\n\
             tokens = [\"t\"]\n[token.t]\nsha256 = \"{hash}\"\nstreams = [\"m\"]\n[listener.l]\naddress = \"tcp://127.0.0.1:1\"\nstream = \"z\""
        ));
        let new = super::renumbered(new, &running);
        let names: Vec<&str> = new.streams.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["m", "b", "z"]);
        let (a, l) = (&new.listeners[0], &new.listeners[1]);
        assert_eq!((a.stream, l.stream), (1, 2));
        let http = a.http.as_ref().unwrap();
        let choices: Vec<(&str, u16)> = http.streams.iter().map(|s| (s.name.as_str(), s.index)).collect();
        assert_eq!(choices, [("b", 1), ("m", 0), ("z", 2)]);
        assert_eq!(http.tokens[0].streams, Some(vec![0]));
    }
}
