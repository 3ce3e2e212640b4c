//! Bytes that are no TLS, or nearly: no panic, and nothing comes out of a handshake that did not happen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::intake::transport::tls::{MinVersion, TlsAcceptor, TlsOptions};
use logweir_fuzz::{Setup, seed, through};
use std::sync::OnceLock;

fn acceptors() -> &'static [TlsAcceptor; 2] {
    static ACCEPTORS: OnceLock<[TlsAcceptor; 2]> = OnceLock::new();
    ACCEPTORS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).expect("a certificate");
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).expect("a file");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
        let options = TlsOptions { cert: cert.clone(), key, min_version: MinVersion::Tls12, ..TlsOptions::default() };
        let mutual = TlsOptions { client_ca: Some(cert), ..options.clone() };
        [options, mutual].map(|o| TlsAcceptor::load(o).expect("it is right"))
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, wire)) = seed(data) else { return };
    let acceptor = &acceptors()[usize::from(seed[2] & 1)];
    let run = |pieces: &[usize]| {
        let mut stage = acceptor.stage();
        let (out, error) = through(&mut *stage, wire, pieces);
        assert!(out.is_empty(), "no handshake, no bytes");
        assert!(stage.is_opening() || error.is_some(), "nobody can finish a handshake by chance");
        let mut bytes = Vec::new();
        let _ = stage.encode(&mut bytes);
        stage.close(&mut bytes);
        if let Some(error) = &error {
            let mut space = vec![0; stage.held() + 64];
            assert!(stage.decode(&mut space, 0, 64).is_err(), "{error}, and then it went on");
        }
        error
    };
    let whole = run(&[usize::MAX]);
    let pieces = run(&Setup::whole().varied(&seed).pieces);
    assert_eq!(whole.is_some(), pieces.is_some(), "{whole:?} / {pieces:?}");
});
