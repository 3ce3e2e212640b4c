//! `logweir bench`: a load generator, a check of what arrived, the null sink, which shows this machine's limit, and a
//! comparison of the server with it.

pub mod bodies;
mod compare;
mod datagrams;
pub(crate) mod disk;
mod generate;
mod http;
pub mod lines;
mod null_sink;
mod null_sink_udp;
mod verify;

use crate::host::output::complain;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// The options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Send lines to a server, and print how fast it took them.
    Send(generate::SendArgs),
    /// POST lines at a constant rate, and print the latency of the answers, corrected for coordinated omission.
    Http(http::HttpArgs),
    /// Check the numbered lines in a data directory: is one missing, doubled, changed or out of order?
    Verify(verify::VerifyArgs),
    /// Run the null sink: two threads that receive into chunks and append them. It has no framing, trail, sync or limits.
    /// With --udp: one thread that receives datagrams.
    NullSink(null_sink::NullSinkArgs),
    /// Run the server and the null sink in turn under the same load, and print medians and their ratio.
    Compare(compare::CompareArgs),
    /// Measure the disk of a directory: large appends in each file mode, and small durable groups.
    Disk(disk::DiskArgs),
}

/// Runs one of them.
pub fn run(args: &BenchArgs) -> ExitCode {
    let result = match &args.command {
        BenchCommand::Send(args) => generate::run(args),
        BenchCommand::Http(args) => http::run(args),
        BenchCommand::Verify(args) => verify::run(args),
        BenchCommand::NullSink(args) => null_sink::run(args),
        BenchCommand::Compare(args) => compare::run(args),
        BenchCommand::Disk(args) => disk::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
