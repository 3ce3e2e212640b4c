//! The version of this program, its commit, and its target platform.

/// As in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from; "unknown" for sources without git, "dev" for builds that are not optimised.
pub const COMMIT: &str = env!("LOGWEIR_COMMIT");
/// The target, as the compiler calls it.
pub const TARGET: &str = env!("LOGWEIR_TARGET");
/// All of them, as `--version` says it.
pub const LONG: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("LOGWEIR_COMMIT"), ", ", env!("LOGWEIR_TARGET"), ")");
