//! A disk that is full for a while.

use super::common::http::{Client, request};
use super::common::image::{Image, fill, full};
use super::common::ledger::pass;
use super::common::{Server, await_that};
use super::table::FILLER;
use std::time::Duration;

/// So small that little is set aside.
pub const SMALL: &[&str] = &["storage.segment_size=64KiB", "storage.reserve_step=64KiB", "storage.commit_log=off"];

/// Awaits that so many lines are durable, and that no more come by themselves: whoever sends now has not begun with it before.
pub fn await_quiet(server: &Server, least: usize) {
    let mut before = None;
    await_that("so many lines, and quiet", || {
        let now = server.metrics().sum("logweir_received_lines_total", "");
        let durable = server.metrics().sum("logweir_durable_lines_total", "");
        let is_quiet = before.replace(now) == Some(now) && durable == now && now >= least as f64;
        if !is_quiet {
            pass(Duration::from_millis(300));
        }
        is_quiet
    });
}

/// The server knows that its disk is full: it refuses requests from now on.
pub struct FullDisk<'a> {
    server: &'a Server,
    image: &'a Image,
    /// What found it so waits for its answer.
    waits: Client,
}

impl<'a> FullDisk<'a> {
    pub fn make(server: &'a Server, image: &'a Image) -> FullDisk<'a> {
        fill(&image.mount, 0);
        let mut waits = Client::to(server.address("http"));
        let line = format!("{FILLER}{}\n", ".".repeat(4000));
        waits.send(request("/", "", &line.repeat(50)).as_bytes());
        await_that("the disk is full", || full(server));
        FullDisk { server, image, waits }
    }

    /// Requests that were refused.
    pub fn refusals(&self) -> f64 {
        self.server.metrics().sum("logweir_http_responses_total", "503")
    }

    pub fn has_room_again(mut self) {
        std::fs::remove_file(self.image.mount.join("ballast")).unwrap();
        assert_eq!(self.waits.answer().unwrap().status, 204, "what was taken is durable");
        await_that("the disk has room", || !full(self.server));
    }
}
