//! Files of certificates, keys and revocation lists, good and bad.

use super::*;

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let site = Site::new();
    let check = |change: &dyn Fn(&mut TlsOptions), words: &[&str]| {
        let mut options = site.options();
        change(&mut options);
        let text = TlsAcceptor::load(options).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{text}: no {word}");
        }
    };
    let write = |name: &str, text: &str| {
        std::fs::write(site.path(name), text).unwrap();
        site.path(name)
    };
    let (other_cert, other_key) = leaf(&site.ca, "other", &[]);
    let other_key = write("other.pem", &other_key);
    let empty = write("empty.pem", "");
    let broken = write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
    let no_der = write("no_der.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let no_key = write("no_key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let only_cert = write("only_cert.pem", &other_cert);
    let missing = site.path("missing.pem");
    check(&|o| o.cert = missing.clone(), &["certificate file", "missing.pem", "No such file"]);
    check(&|o| o.key = missing.clone(), &["key file", "missing.pem", "No such file"]);
    check(&|o| o.key = site.dir.path().into(), &["key file", "directory"]);
    check(&|o| o.cert = empty.clone(), &["empty.pem", "contains no certificate"]);
    check(&|o| o.cert = broken.clone(), &["broken.pem", "not valid PEM"]);
    check(&|o| o.cert = no_der.clone(), &["no_der.pem", "cannot be used"]);
    check(&|o| o.key = only_cert.clone(), &["only_cert.pem", "contains no private key"]);
    check(&|o| o.key = no_key.clone(), &["no_key.pem", "cannot be used"]);
    check(&|o| o.key = other_key.clone(), &["other.pem", "does not belong to the certificate", "cert.pem"]);
    check(&|o| o.client_ca = Some(empty.clone()), &["client CA file", "empty.pem", "contains no certificate"]);
    check(&|o| o.client_ca = Some(no_der.clone()), &["client CA file", "no_der.pem", "cannot be used"]);
    check(&|o| o.client_subjects = vec!["x".into()], &["client_subjects needs client_ca"]);
    check(&|o| o.client_crl = Some(empty.clone()), &["client_crl needs client_ca"]);
    let ca = Some(site.path("ca.pem"));
    check(
        &|o| (o.client_ca, o.client_crl) = (ca.clone(), Some(empty.clone())),
        &["client CRL file", "contains no revocation list"],
    );
}

/// Whoever has such a file is told what it is, and what helps.
#[test]
fn keys_and_files_of_other_kinds_are_named() {
    let site = Site::new();
    let said = |bytes: &[u8], of_cert: bool| {
        let mut options = site.options();
        std::fs::write(site.path("x.pem"), bytes).unwrap();
        *(if of_cert { &mut options.cert } else { &mut options.key }) = site.path("x.pem");
        TlsAcceptor::load(options).map(drop).map_err(|e| e.to_string()).unwrap_err()
    };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(said(encrypted.as_bytes(), false).contains("encrypted with a passphrase"));
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert!(said(old.as_bytes(), false).contains("encrypted with a passphrase"));
    // RFC 5915, with the curve's name only: enough to be told apart.
    let p521 = "-----BEGIN EC PRIVATE KEY-----\nMA8CAQEEAQCgBwYFK4EEACM=\n-----END EC PRIVATE KEY-----\n";
    assert!(said(p521.as_bytes(), false).contains("P-521"), "{}", said(p521.as_bytes(), false));
    // Only as long as a key of 1024 bits: nobody makes such keys any more.
    let short =
        format!("-----BEGIN RSA PRIVATE KEY-----\n{}-----END RSA PRIVATE KEY-----\n", "AAAA".repeat(200) + "\n");
    assert!(said(short.as_bytes(), false).contains("fewer than 2048 bits"), "{}", said(short.as_bytes(), false));
    let ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    assert!(said(ssh.as_bytes(), false).contains("OpenSSH"));
    assert!(said(&[0x30, 0x82, 1, 2, 3], true).contains("DER or PKCS#12"));
    assert!(said(b"\xff\xfe-\0-\0", true).contains("UTF-16"));
    // With a byte order mark they are good.
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        let text = std::fs::read(site.path(file)).unwrap();
        std::fs::write(site.path(file), [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
    }
    let options = TlsOptions { client_ca: Some(site.path("ca.pem")), ..site.options() };
    TlsAcceptor::load(options).unwrap();
}

#[test]
fn revoked_clients_are_refused_and_how_long_everything_holds_is_known() {
    let site = Site::new();
    let serial = |number: u64| rcgen::SerialNumber::from(number);
    let client = |number: u64| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "agent");
        params.serial_number = Some(serial(number));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &site.ca).unwrap().pem(), key.serialize_pem())
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2021, 1, 1),
        crl_number: serial(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: serial(7),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let crl = list.signed_by(&site.ca).unwrap().pem().unwrap();
    std::fs::write(site.path("crl.pem"), crl).unwrap();
    let (client_ca, client_crl) = (Some(site.path("ca.pem")), Some(site.path("crl.pem")));
    let acceptor = TlsAcceptor::load(TlsOptions { client_ca, client_crl, ..site.options() }).unwrap();
    let attempt = |number| {
        let mut server = Server::whole(acceptor.stage());
        let mut client = connect(Arc::new(site.client_config(BOTH[0], Some(client(number)))));
        let told = server.talk(&mut client);
        (server.failed, told)
    };
    assert_eq!(attempt(8), (None, Ok(())));
    let (failed, _) = attempt(7);
    let revoked = StageError::Tls(rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked));
    assert_eq!(failed, Some(revoked));
    let all: Vec<String> = acceptor.validity().into_iter().map(|v| v.what).collect();
    assert!(all[0].contains("certificate of") && all.last().unwrap().contains("revocation list of"), "{all:?}");
    let now = crate::host::clock::Clock::wall_ns(&crate::host::clock::SystemClock::new()) as i64 / 1_000_000_000;
    let warnings: Vec<String> = acceptor.validity().iter().filter_map(|v| v.warning(now)).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("revocation list of CN=") && warnings[0].contains("has expired at 2021-01-01"),
        "{warnings:?}"
    );
}
