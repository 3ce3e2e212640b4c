//! The examples in `config/` are what they say: every one passes `check`, and serves.

mod common;

use common::{Server, await_that, logweir, scratch, send_all};
use std::path::{Path, PathBuf};
use std::process::Command;

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn every_configuration_passes_check() {
    let mut names = 0;
    for entry in std::fs::read_dir(config("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let output = logweir(&["check", "--config-only", "--config", path.to_str().unwrap()]);
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            names += 1;
        }
    }
    assert!(names >= 4, "{names}");
}

#[test]
fn the_sidecar_takes_lines_on_its_socket() {
    let dir = scratch();
    let mut command = Command::new(common::BINARY);
    let data = dir.path().join("data");
    command
        .args(["serve", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .arg("--config")
        .arg(config("sidecar.toml"));
    let mut server = Server::launch(command.current_dir(dir.path()), &data).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(dir.path().join("logweir.sock")).unwrap();
    std::io::Write::write_all(&mut stream, b"from the service\n").unwrap();
    drop(stream);
    await_that("the line", || server.cat() == b"from the service\n");
    assert!(server.stop().success());
}

#[test]
fn a_load_test_target_answers_on_both_listeners() {
    let dir = scratch();
    let file = config("load-test.toml");
    let set = ["listener.http.address=\"tcp://127.0.0.1:0\"", "listener.lines.address=\"tcp://127.0.0.1:0\""];
    let args =
        ["--config", file.to_str().unwrap(), "--set", set[0], "--set", set[1], "--set", "retention.min_free=\"0B\""];
    let server = Server::start(&dir.path().join("data"), &args);
    send_all(server.address("lines"), b"by tcp\n");
    let mut client = common::http::Client::to(server.address("http"));
    assert_eq!(client.post("/", "", "by http\n").status, 204);
    await_that("both lines", || server.cat() == b"by tcp\nby http\n");
}
