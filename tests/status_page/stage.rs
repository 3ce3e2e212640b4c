//! A server that plays another: the real page, and before it whatever a test wants said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the page is shown.
#[derive(Clone)]
pub struct Stage {
    pub address: SocketAddr,
    /// The header `Date` and the text of `/metrics`.
    said: Arc<Mutex<(String, String)>>,
}

impl Stage {
    /// Plays with this page and this answer to `/readyz`.
    pub fn start(page: String, ready: &'static str) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stage = Stage { address: listener.local_addr().unwrap(), said: Arc::default() };
        let all = stage.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stage, page) = (all.clone(), page.clone());
                // A browser also connects before it knows what for.
                std::thread::spawn(move || stage.answer(stream.unwrap(), &page, ready));
            }
        });
        stage
    }

    /// From now on `/metrics` says this, at this time.
    pub fn say(&self, date: &str, metrics: &str) {
        *self.said.lock().unwrap() = (date.to_string(), metrics.to_string());
    }

    fn answer(&self, mut stream: TcpStream, page: &str, ready: &str) {
        let mut head = [0; 4096];
        let n = stream.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..n]).into_owned();
        let (date, metrics) = self.said.lock().unwrap().clone();
        let (kind, body) = match head.split(' ').nth(1) {
            Some("/") => ("text/html", page),
            Some("/metrics") => ("text/plain", metrics.as_str()),
            _ => ("text/plain", ready),
        };
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}
