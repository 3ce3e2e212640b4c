//! The `logweir` program. All of it is in the library.

fn main() -> std::process::ExitCode {
    logweir::cli::main()
}
