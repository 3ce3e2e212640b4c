//! What a TLS connection's stage holds, counted by the allocator, against the bound of which the memory sum is made.

use logweir::intake::transport::Stage;
use logweir::intake::transport::tls::{BYTES_PER_TLS_CONNECTION, TlsAcceptor, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `what` and adds what it has left allocated to `held`; `peak` is the most there was at any time.
fn count<R>(held: &mut isize, peak: &mut isize, what: impl FnOnce() -> R) -> R {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = what();
    *peak = (*peak).max(*held + (PEAK.load(Relaxed) - before) as isize);
    *held += HELD.load(Relaxed) as isize - before as isize;
    result
}

/// The stage's memory at most, and at the end, of a connection over which `sent` came and an unfinished record stands.
fn connection(acceptor: &TlsAcceptor, config: ClientConfig, cut: usize) -> (isize, isize, isize) {
    let (mut held, mut peak) = (0, 0);
    let mut stage = count(&mut held, &mut peak, || acceptor.stage());
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut space = vec![0; 1 << 20];
    let mut say = |stage: &mut Box<dyn Stage>, held: &mut isize, peak: &mut isize, wire: &[u8]| {
        for piece in wire.chunks(cut) {
            let front = stage.held();
            space[front..front + piece.len()].copy_from_slice(piece);
            count(held, peak, || stage.decode(&mut space, piece.len(), 1 << 20)).unwrap();
            if stage.wants_turn() {
                stage.take_turn();
                count(held, peak, || stage.decode(&mut space, 0, 1 << 20)).unwrap();
            }
        }
    };
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        say(&mut stage, &mut held, &mut peak, &wire);
        let mut bytes = Vec::new();
        count(&mut held, &mut peak, || stage.encode(&mut bytes)).unwrap();
        held -= bytes.capacity() as isize; // with the caller now
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!stage.is_opening());
    let idle = held;
    client.writer().write_all(&[b'x'; 40_000]).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire.truncate(2 * (5 + 16_384 + 17) - 1);
    say(&mut stage, &mut held, &mut peak, &wire);
    assert!(stage.held() > 16_384, "an unfinished record");
    (peak, idle, held)
}

#[test]
fn a_connection_stays_within_its_bound() {
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    // As large as certificates come: a hundred names.
    let names = (0..100).map(|i| format!("a-rather-long-name-{i}.example.org")).chain(["localhost".into()]);
    let cert = CertificateParams::new(names.collect::<Vec<_>>()).unwrap().signed_by(&key, &ca).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let options = TlsOptions {
        cert: file("cert.pem", cert.pem() + &ca.pem()),
        key: file("key.pem", key.serialize_pem()),
        client_ca: Some(file("ca.pem", ca.pem())),
        ..TlsOptions::default()
    };
    let acceptor = TlsAcceptor::load(options).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for cut in [100, 1 << 19] {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
            let chain = vec![CertificateDer::from_pem_slice(cert.pem().as_bytes()).unwrap(), ca.der().clone()];
            let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            let config = config.with_root_certificates(roots).with_client_auth_cert(chain, private).unwrap();
            let (peak, idle, partial) = connection(&acceptor, config, cut);
            println!("{version:?}, cut {cut}: at most {peak}, idle {idle}, with an unfinished record {partial}");
            assert!(peak <= BYTES_PER_TLS_CONNECTION as isize, "{version:?}: {peak}");
            assert!(idle <= BYTES_PER_TLS_CONNECTION as isize / 4, "{version:?}: {idle}");
        }
    }
}
