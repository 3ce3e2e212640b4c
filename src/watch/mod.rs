//! Looking at a server: what it says of itself, and what others make of that.

pub mod admin;
pub mod doctor;
pub mod logging;
mod process;
pub mod render;
pub mod scrape;
mod server_info;
pub mod top;
