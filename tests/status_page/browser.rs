//! Chromium through chromedriver, by WebDriver (plain JSON over HTTP).

use super::common::programs::{Daemon, find};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Browser {
    driver: Daemon,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None`: there is none here.
    pub fn start() -> Option<Browser> {
        let (chromium, driver) = (find("chromium")?, find("chromedriver")?);
        let profile = super::common::scratch();
        let daemon = Daemon::start(|port| {
            let mut command = Command::new(&driver);
            command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
            command
        });
        let mut browser = Browser { driver: daemon, session: String::new(), _profile: profile };
        let user_data = format!("--user-data-dir={}", browser._profile.path().display());
        // Root has no sandbox; /dev/shm is small in containers.
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            &user_data,
        ];
        let options = json!({ "binary": chromium, "args": args });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } } } });
        let answer = call(browser.driver.address, "POST", "/session", &wanted);
        browser.session = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")).to_string();
        Some(browser)
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        call(self.driver.address, "POST", &format!("/session/{}/{what}", self.session), body)
    }

    fn devtools(&self, command: &str, parameters: Value) {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// Runs a script in each document that is opened from now on, before its own.
    pub fn before(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// The value of a piece of script that returns one.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the element with that id.
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!("const e = document.getElementById('{id}'); return e && e.textContent"));
        text.as_str().unwrap_or("").to_string()
    }

    pub fn size(&self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    pub fn scheme(&self, name: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": name }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What the console said since the last look.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" }));
        entries.as_array().into_iter().flatten().map(|e| e["message"].to_string()).collect()
    }

    /// A PNG of what is seen.
    pub fn screenshot(&self, path: &Path) {
        let answer = call(self.driver.address, "GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        std::fs::write(path, from_base64(answer.as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; killing its driver would not.
        if !std::thread::panicking() || !self.session.is_empty() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                call(self.driver.address, "DELETE", &format!("/session/{}", self.session), &Value::Null)
            }));
        }
    }
}

/// One request; the `value` of its answer.
fn call(address: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    // The driver names its port a moment before it listens on it.
    let mut stream = None;
    super::common::await_that("the driver", || {
        stream = TcpStream::connect(address).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    stream.set_read_timeout(Some(super::common::PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    );
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 1 << 16];
    // It may keep the connection open all the same.
    let end = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok())?;
        (rest.len() >= length).then(|| rest[..length].to_string())
    };
    loop {
        if let Some(body) = end(&bytes) {
            let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
            let value = answer["value"].take();
            assert!(value.get("error").is_none(), "{path}: {value}");
            return value;
        }
        match stream.read(&mut buffer).unwrap() {
            0 => panic!("{path}: no whole answer: {}", String::from_utf8_lossy(&bytes)),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0, 0_u32);
    for six in text.bytes().filter_map(value) {
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    out
}
