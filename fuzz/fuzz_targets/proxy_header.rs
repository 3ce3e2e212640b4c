//! PROXY headers: the same verdict, source and rest however the bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::intake::transport::proxy::Proxy;
use logweir::intake::transport::{Identity, Stage};
use logweir_fuzz::{Setup, seed, through};

fuzz_target!(|data: &[u8]| {
    let Some((seed, wire)) = seed(data) else { return };
    let run = |pieces: &[usize]| {
        let mut proxy = Proxy::new(Box::new(Identity));
        let (out, error) = through(&mut proxy, wire, pieces);
        let source = proxy.take_source();
        assert!(proxy.take_source().is_none(), "only once");
        assert_eq!(proxy.is_opening(), source.is_none(), "open is what has a source");
        assert!(error.is_none() || (source.is_none() && out.is_empty()), "nothing comes of a bad header");
        assert!(wire.ends_with(&out), "what is behind the header is not changed");
        (out, error, source, proxy.is_clean_end())
    };
    let whole = run(&[usize::MAX]);
    assert_eq!(whole, run(&Setup::whole().varied(&seed).pieces));
});
