//! Tests the stage against rustls' own client. The bytes between them are cut at any place.

mod file_tests;

use super::*;
use crate::intake::transport::Source;
use crate::intake::transport::proxy::Proxy;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key as PEM.
fn leaf(ca: &Ca, common_name: &str, names: &[SanType]) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names.to_vec();
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    (cert.pem(), key.serialize_pem())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// Files of a server, and the CA that both sides trust.
struct Site {
    dir: TempDir,
    ca: Ca,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap(), ca: ca() };
        site.renew();
        std::fs::write(site.path("ca.pem"), site.ca.pem()).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new certificate; returned as DER.
    fn renew(&self) -> CertificateDer<'static> {
        let (cert, key) = leaf(&self.ca, "server", &[dns("localhost")]);
        std::fs::write(self.path("cert.pem"), &cert).unwrap();
        std::fs::write(self.path("key.pem"), key).unwrap();
        CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()
    }

    fn options(&self) -> TlsOptions {
        TlsOptions { cert: self.path("cert.pem"), key: self.path("key.pem"), ..TlsOptions::default() }
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::load(self.options()).unwrap()
    }

    fn acceptor_for(&self, subjects: &[&str]) -> TlsAcceptor {
        let client_subjects = subjects.iter().map(|s| (*s).to_owned()).collect();
        let client_ca = Some(self.path("ca.pem"));
        TlsAcceptor::load(TlsOptions { client_ca, client_subjects, ..self.options() }).unwrap()
    }

    fn client_config(&self, version: Version, identity: Option<(String, String)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        }
    }

    fn client(&self, version: Version) -> ClientConnection {
        connect(Arc::new(self.client_config(version, None)))
    }
}

type Version = &'static rustls::SupportedProtocolVersion;
const BOTH: [Version; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn connect(config: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap()
}

/// What a reactor does with a stage, with landings and room of the sizes given (again and again).
struct Server {
    stage: Box<dyn Stage>,
    cuts: Vec<usize>,
    mosts: Vec<usize>,
    turn: usize,
    got: Vec<u8>,
    failed: Option<StageError>,
}

impl Server {
    fn new(stage: Box<dyn Stage>, cuts: &[usize], mosts: &[usize]) -> Server {
        Server { stage, cuts: cuts.to_vec(), mosts: mosts.to_vec(), turn: 0, got: Vec::new(), failed: None }
    }

    fn whole(stage: Box<dyn Stage>) -> Server {
        Server::new(stage, &[1 << 20], &[1 << 21])
    }

    fn receive(&mut self, wire: &[u8]) {
        let mut rest = wire;
        while (!rest.is_empty() || self.stage.pending() || self.stage.wants_turn()) && self.failed.is_none() {
            let most = self.mosts[self.turn % self.mosts.len()];
            let cut = self.cuts[self.turn % self.cuts.len()].min(rest.len());
            self.turn += 1;
            if self.turn.is_multiple_of(2) {
                self.stage.take_turn(); // whether or not it wants one
            }
            let landed = if self.stage.pending() && !self.turn.is_multiple_of(3) { 0 } else { cut };
            let held = if landed == 0 { 0 } else { self.stage.held() };
            let mut space = vec![0xAA; (held + landed).max(most)];
            space[held..held + landed].copy_from_slice(&rest[..landed]);
            rest = &rest[landed..];
            match self.stage.decode(&mut space, landed, most) {
                Ok(n) => {
                    assert!(n <= most);
                    self.got.extend_from_slice(&space[..n]);
                }
                Err(e) => self.failed = Some(e),
            }
        }
    }

    /// To and fro until nobody says anything any more. `Err`: what the client makes of it.
    fn talk(&mut self, client: &mut ClientConnection) -> Result<(), rustls::Error> {
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            self.receive(&wire);
            let said = !wire.is_empty();
            if !self.answer(client, b"")? && !said {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, client: &mut ClientConnection, plain: &[u8]) -> Result<bool, rustls::Error> {
        let mut bytes = plain.to_vec();
        self.stage.encode(&mut bytes).unwrap();
        assert!(!self.stage.wants_to_send());
        deliver(client, &bytes)?;
        Ok(!bytes.is_empty())
    }
}

fn deliver(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

fn read(client: &mut ClientConnection) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = client.reader().read_to_end(&mut got); // ends with WouldBlock
    got
}

fn lines(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| if i % 61 == 60 { b'\n' } else { b'a' + (i * i % 23) as u8 }).collect()
}

fn site() -> &'static (Site, TlsAcceptor) {
    static SITE: OnceLock<(Site, TlsAcceptor)> = OnceLock::new();
    SITE.get_or_init(|| {
        let site = Site::new();
        let acceptor = site.acceptor();
        (site, acceptor)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_sent_is_received_however_the_wire_is_cut(
        cuts in prop::collection::vec(prop_oneof![1usize..8, 1usize..700, 1usize..70_000], 1..6),
        mosts in prop::collection::vec(prop_oneof![1usize..9, 100usize..40_000], 1..4),
        pieces in prop::collection::vec(1usize..40_000, 1..6),
        version in 0usize..2,
        behind_proxy in any::<bool>(),
        key_update in any::<bool>(),
    ) {
        // Tiny cuts of much data would only take long.
        let scale = if cuts.iter().chain(&mosts).max().is_some_and(|most| *most < 100) { 40 } else { 1 };
        let (site, acceptor) = site();
        let stage = acceptor.stage();
        let stage: Box<dyn Stage> = if behind_proxy { Box::new(Proxy::new(stage)) } else { stage };
        let mut server = Server::new(stage, &cuts, &mosts);
        if behind_proxy {
            server.receive(b"PROXY TCP4 192.0.2.7 192.0.2.1 99 6514\r\n");
            prop_assert_eq!(server.stage.take_source(), Some(Source::Client("192.0.2.7:99".parse().unwrap())));
        }
        let mut client = site.client(BOTH[version]);
        prop_assert!(server.stage.is_opening());
        server.talk(&mut client).unwrap();
        prop_assert!(!server.stage.is_opening() && !client.is_handshaking());
        let mut sent = Vec::new();
        for piece in pieces {
            let bytes = lines(piece / scale + 1);
            client.writer().write_all(&bytes).unwrap();
            if key_update && version == 1 {
                client.refresh_traffic_keys().unwrap();
            }
            server.talk(&mut client).unwrap();
            sent.extend(bytes);
            prop_assert_eq!(&server.got, &sent);
            server.answer(&mut client, b"seen\n").unwrap();
            prop_assert_eq!(read(&mut client), b"seen\n");
        }
        prop_assert_eq!(server.stage.held(), 0);
        prop_assert!(!server.stage.is_clean_end());
        client.send_close_notify();
        server.talk(&mut client).unwrap();
        prop_assert!(server.stage.is_clean_end() && server.failed.is_none());
        let mut goodbye = Vec::new();
        server.stage.close(&mut goodbye);
        deliver(&mut client, &goodbye).unwrap();
        server.receive(b"ignored");
        prop_assert_eq!(server.got, sent);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 1..400),
        kind in 20u8..24,
        as_record in any::<bool>(),
        after_handshake in any::<bool>(),
        version in 0usize..2,
        cut in 1usize..200,
    ) {
        let (site, acceptor) = site();
        let mut server = Server::new(acceptor.stage(), &[cut], &[100]);
        let mut client = site.client(BOTH[version]);
        if after_handshake {
            server.talk(&mut client).unwrap();
        }
        let len = (bytes.len() as u16).to_be_bytes();
        let wire = if as_record { [&[kind, 3, 3, len[0], len[1]], bytes.as_slice()].concat() } else { bytes };
        server.receive(&wire);
        server.receive(&wire);
        prop_assert!(server.got.is_empty());
        prop_assert!(!server.stage.is_clean_end() || !after_handshake || server.failed.is_none());
        server.stage.encode(&mut Vec::new()).unwrap();
        server.stage.close(&mut Vec::new());
    }
}

#[test]
fn an_input_that_ends_without_goodbye_is_cut_off() {
    let (site, acceptor) = site();
    for version in BOTH {
        let mut server = Server::whole(acceptor.stage());
        assert!(server.stage.is_clean_end(), "a probe that sends nothing");
        let mut client = site.client(version);
        server.talk(&mut client).unwrap();
        client.writer().write_all(b"line\n").unwrap();
        server.talk(&mut client).unwrap();
        assert_eq!(server.got, b"line\n");
        assert!(!server.stage.is_clean_end());
    }
}

#[test]
fn what_is_good_before_a_bad_record_is_delivered_and_the_client_gets_an_alert() {
    let (site, acceptor) = site();
    for version in BOTH {
        let mut server = Server::whole(acceptor.stage());
        let mut client = site.client(version);
        server.talk(&mut client).unwrap();
        let mut wire = Vec::new();
        client.writer().write_all(b"good\n").unwrap();
        client.write_tls(&mut wire).unwrap();
        client.writer().write_all(b"bad\n").unwrap();
        client.write_tls(&mut wire).unwrap();
        *wire.last_mut().unwrap() ^= 1;
        server.receive(&wire);
        assert_eq!(server.got, b"good\n");
        assert_eq!(server.failed, Some(StageError::Tls(rustls::Error::DecryptError)));
        assert!(server.stage.wants_to_send() && !server.stage.pending() && !server.stage.is_clean_end());
        let alert = server.answer(&mut client, b"not sent any more").unwrap_err();
        assert_eq!(alert, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

#[test]
fn other_protocols_are_told_apart() {
    for first in ["?", "G", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "<34>1 2003-10-11T22:14:15.003Z host app - - - hi\n"] {
        let mut server = Server::whole(site().1.stage());
        server.receive(first.as_bytes());
        assert_eq!(server.failed, Some(StageError::NotTls));
        let mut alert = Vec::new();
        server.stage.encode(&mut alert).unwrap();
        assert_eq!(alert[0], 21, "an alert record: {alert:?}");
    }
}

#[test]
fn handshake_messages_have_a_limit_however_they_land() {
    let mut wire = Vec::new();
    for i in 0..4 {
        wire.extend([22, 3, 1, 0x40, 0]);
        let start = wire.len();
        wire.extend([0; 16_384]);
        if i == 0 {
            wire[start..start + 4].copy_from_slice(&[1, 0, 0xff, 0]); // a ClientHello of 65,280 bytes
        }
    }
    for cut in [1 << 20, 16_389, 20_000, 999] {
        let mut server = Server::new(site().1.stage(), &[cut], &[1 << 20]);
        server.receive(&wire);
        assert_eq!(server.failed, Some(StageError::HandshakeTooLarge(super::stage::RECORD_MAX)), "{cut}");
    }
}

#[test]
fn what_the_session_says_too_early_waits() {
    let (site, acceptor) = site();
    let mut server = Server::whole(acceptor.stage());
    let mut early = b"hello\n".to_vec();
    server.stage.encode(&mut early).unwrap();
    assert!(early.is_empty());
    let mut client = site.client(BOTH[1]);
    server.talk(&mut client).unwrap();
    assert_eq!(read(&mut client), b"hello\n");
    let mut server = Server::whole(acceptor.stage());
    assert!(matches!(server.stage.encode(&mut vec![0; 1 << 17]), Err(StageError::SentTooEarly(_))));
}

#[test]
fn clients_show_a_certificate_of_the_ca_and_of_an_allowed_subject() {
    let site = Site::new();
    let uri = SanType::URI("spiffe://example/agent".try_into().unwrap());
    let agent = || Some(leaf(&site.ca, "agent-7", &[dns("agent.example"), uri.clone()]));
    let stranger = Some(leaf(&ca(), "agent-7", &[]));
    let refused = Some(StageError::SubjectRefused);
    for version in BOTH {
        let attempt = |subjects: &[&str], identity: Option<(String, String)>| {
            let mut server = Server::whole(site.acceptor_for(subjects).stage());
            let mut client = connect(Arc::new(site.client_config(version, identity)));
            let told = server.talk(&mut client);
            (server.failed, told)
        };
        let good: [&[&str]; 6] = [
            &[],
            &["agent-7"],
            &["other", "agent.example"],
            &["spiffe://example/agent"],
            &["CN=agent-7,O=Example\\, Inc."],
            &["agent-8", "agent-7"],
        ];
        for subjects in good {
            assert_eq!(attempt(subjects, agent()), (None, Ok(())), "{subjects:?}");
        }
        for subjects in ["agent", "agent-77", "AGENT-7", "example", "O=Example\\, Inc.", ""] {
            let (failed, told) = attempt(&[subjects], agent());
            assert_eq!(failed, refused, "{subjects}");
            assert_eq!(told, Err(rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied)));
        }
        let (failed, told) = attempt(&[], None);
        assert_eq!(failed, Some(StageError::Tls(rustls::Error::NoCertificatesPresented)));
        assert!(matches!(told, Err(rustls::Error::AlertReceived(_))), "{told:?}");
        let (failed, told) = attempt(&["agent-7"], stranger.clone());
        assert!(matches!(failed, Some(StageError::Tls(rustls::Error::InvalidCertificate(_)))), "{failed:?}");
        assert!(matches!(told, Err(rustls::Error::AlertReceived(_))), "{told:?}");
    }
}

#[test]
fn handshake_messages_may_be_spread_over_many_records() {
    let site = Site::new();
    let acceptor = site.acceptor_for(&["agent"]);
    for version in BOTH {
        for cuts in [&[1][..], &[7, 100], &[1 << 20]] {
            let mut config = site.client_config(version, Some(leaf(&site.ca, "agent", &[])));
            config.max_fragment_size = Some(40);
            let mut client = connect(Arc::new(config));
            let mut server = Server::new(acceptor.stage(), cuts, &[33]);
            client.writer().write_all(&lines(500)).unwrap();
            server.talk(&mut client).unwrap();
            assert_eq!(server.got, lines(500));
            assert_eq!(server.stage.held(), 0);
        }
    }
}

#[test]
fn old_versions_and_other_protocols_are_refused() {
    let site = Site::new();
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let options = TlsOptions { min_version: MinVersion::Tls13, alpn, ..site.options() };
    let acceptor = TlsAcceptor::load(options).unwrap();
    let attempt = |version, alpn: &[&str]| {
        let mut config = site.client_config(version, None);
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let mut server = Server::whole(acceptor.stage());
        let mut client = connect(Arc::new(config));
        let told = server.talk(&mut client);
        (server.failed, told.map(|()| client.alpn_protocol().map(<[u8]>::to_vec)))
    };
    assert!(attempt(BOTH[0], &[]).0.is_some_and(|e| e.to_string().contains("TLS")));
    assert_eq!(attempt(BOTH[1], &[]), (None, Ok(None)));
    assert_eq!(attempt(BOTH[1], &["http/1.1", "x"]), (None, Ok(Some(b"http/1.1".to_vec()))));
    let (failed, told) = attempt(BOTH[1], &["x"]);
    assert_eq!(failed, Some(StageError::Tls(rustls::Error::NoApplicationProtocol)));
    assert_eq!(told, Err(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)));
}

#[test]
fn sessions_are_resumed_until_a_reload() {
    let site = Site::new();
    let options = TlsOptions { alpn: vec![b"http/1.1".to_vec()], ..site.options() }; // tickets go with answers
    let acceptor = TlsAcceptor::load(options).unwrap();
    for version in BOTH {
        let mut config = site.client_config(version, None);
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let kind = || {
            let mut server = Server::whole(acceptor.stage());
            let mut client = connect(config.clone());
            server.talk(&mut client).unwrap();
            client.handshake_kind()
        };
        assert_eq!(kind(), Some(HandshakeKind::Full));
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
        site.renew();
        assert!(acceptor.reload_if_changed().unwrap());
        assert_eq!(kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_reload_leaves_connections_alone_and_survives_bad_files() {
    let site = Site::new();
    // As the secrets of Kubernetes: files are links through a link that is exchanged.
    let versions = [site.path("..1"), site.path("..2")];
    let data = site.path("..data");
    let place = |to: &Path, new: &CertificateDer<'static>| {
        std::fs::create_dir(to).unwrap();
        for name in ["cert.pem", "key.pem"] {
            std::fs::rename(site.path(name), to.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(to, site.path("link")).unwrap();
        std::fs::rename(site.path("link"), &data).unwrap();
        new.clone()
    };
    let first = place(&versions[0], &site.renew());
    let options = TlsOptions { cert: data.join("cert.pem"), key: data.join("key.pem"), ..TlsOptions::default() };
    let acceptor = TlsAcceptor::load(options).unwrap();
    let certificate = || {
        let mut server = Server::whole(acceptor.stage());
        let mut client = site.client(BOTH[1]);
        server.talk(&mut client).unwrap();
        let shown = client.peer_certificates().unwrap()[0].clone().into_owned();
        (shown, server, client)
    };
    let (shown, mut server, mut client) = certificate();
    assert_eq!(shown, first);
    assert!(!acceptor.reload_if_changed().unwrap());
    let second = place(&versions[1], &site.renew());
    assert_eq!(certificate().0, first, "until it is looked at");
    assert!(acceptor.reload_if_changed().unwrap());
    assert!(!acceptor.reload_if_changed().unwrap());
    assert_eq!(certificate().0, second);
    client.writer().write_all(b"still here\n").unwrap();
    server.talk(&mut client).unwrap();
    assert_eq!(server.got, b"still here\n");
    std::fs::write(data.join("cert.pem"), "").unwrap();
    assert!(acceptor.reload_if_changed().unwrap_err().to_string().contains("contains no certificate"));
    assert!(acceptor.reload_if_changed().is_err(), "tried again");
    assert_eq!(certificate().0, second);
}

/// The beginning of a handshake takes nobody's turn, however it comes; a whole ClientHello waits for its own.
#[test]
fn only_a_whole_hello_wants_a_turn() {
    let site = Site::new();
    let mut hello = Vec::new();
    site.client(&rustls::version::TLS13).write_tls(&mut hello).unwrap();
    let mut stage = site.acceptor().stage();
    for (i, byte) in hello.iter().enumerate() {
        assert!(!stage.wants_turn(), "after {i} bytes of {}", hello.len());
        let at = stage.held();
        let mut space = vec![0; at];
        space.push(*byte);
        assert_eq!(stage.decode(&mut space, 1, at + 1), Ok(0));
    }
    assert!(stage.wants_turn() && !stage.pending() && !stage.wants_to_send());
    stage.take_turn();
    assert!(stage.pending() && !stage.wants_turn());
    assert!(stage.decode(&mut [0; 64], 0, 64) == Ok(0) && stage.wants_to_send() && !stage.pending(), "answered");
}
