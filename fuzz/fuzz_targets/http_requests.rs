//! A whole connection, any bytes: no panic, and the same statuses and lines however the bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::session::lines::TooLong;
use logweir::session::write::Format;
use logweir_fuzz::{Setup, run_both, seed};

fuzz_target!(|data: &[u8]| {
    let Some((seed, input)) = seed(data) else { return };
    let setup = Setup {
        format: if seed[2] & 1 == 0 { Format::Raw } else { Format::Json },
        too_long: [TooLong::Truncate, TooLong::Drop, TooLong::Close][usize::from(seed[2] / 2 % 3)],
        chunk: if seed[2] & 1 == 0 { 16_000 } else { 70_000 },
        ..Setup::whole()
    };
    run_both(&setup, &seed, input);
});
