//! Observing a server: its metrics, pages and log, and the commands that read them.

pub mod admin;
pub mod doctor;
pub mod logging;
mod process;
pub mod render;
pub mod scrape;
mod server_info;
mod shipping;
pub mod top;
