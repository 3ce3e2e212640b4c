//! The `logweir` program; everything is in the library.

fn main() -> std::process::ExitCode {
    logweir::cli::main()
}
