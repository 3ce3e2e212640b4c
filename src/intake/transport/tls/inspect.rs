//! Looks into PEM files and says in words what is there: keys that cannot be used, files that are not PEM, and how long
//! certificates are valid.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// UTF-8's byte order mark, which editors on Windows put in front of a text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The text without a byte order mark.
pub fn without_bom(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    bytes
}

/// What a file is that is no PEM, and what makes PEM of it; `None`: it is nothing that is known.
pub fn other_form(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("it is UTF-16 text; save it as ASCII"),
        [0x30, 0x80..=0x84, ..] => Some(
            "it is binary (DER or PKCS#12), not PEM; convert it: `openssl x509 -inform der`, `openssl pkey -inform der` or `openssl pkcs12 -nodes`",
        ),
        _ => None,
    }
}

/// Why a key of this PEM file cannot be used, where its kind says so.
pub fn unusable_key(pem: &[u8]) -> Option<String> {
    let has = |text: &str| memchr::memmem::find(pem, text.as_bytes()).is_some();
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Some(
            "it is encrypted with a passphrase, which a server cannot ask for; decrypt it with `openssl pkey -in FILE -out KEY` and keep that file to its user (chmod 600)"
                .into(),
        );
    }
    if has("-----BEGIN OPENSSH PRIVATE KEY-----") {
        return Some("it is in OpenSSH's own form; convert it with `ssh-keygen -p -m PEM -f FILE`".into());
    }
    let kind = if has("-----BEGIN DSA PRIVATE KEY-----") { Some("a DSA key") } else { kind_of_key(pem) };
    kind.map(|kind| {
        format!(
            "it is {kind}, which is not supported; use ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"
        )
    })
}

/// A reason of the library's, in words of this project where those are riddles.
pub fn in_words(reason: &str) -> String {
    if reason.contains("UnsupportedCertVersion") {
        return "it is an X.509 certificate of version 1; make one of version 3 (with openssl: `-extfile` with `subjectAltName`)".into();
    }
    reason.replace("invalid peer certificate: ", "")
}

/// Kinds that are not supported, by their object identifiers as they stand in the key.
fn kind_of_key(pem: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 6] = [
        (&[6, 5, 0x2b, 0x81, 4, 0, 0x23], "an ECDSA key on the curve P-521 (secp521r1)"),
        (&[6, 5, 0x2b, 0x81, 4, 0, 0x0a], "an ECDSA key on the curve secp256k1"),
        (&[6, 5, 0x2b, 0x81, 4, 0, 0x21], "an ECDSA key on the curve P-224 (secp224r1)"),
        (&[6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1], "an ECDSA key on a Brainpool curve"),
        (&[6, 3, 0x2b, 0x65, 0x71], "an Ed448 key"),
        (&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "a DSA key"),
    ];
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(pem).ok()?;
    let (der, has) = (key.secret_der(), |oid: &[u8]| memchr::memmem::find(key.secret_der(), oid).is_some());
    // PKCS#8 names RSA (RFC 8017); of 2048 bits it has about 1,200 bytes, of 1024 about 600.
    let is_rsa = matches!(key, rustls_pki_types::PrivateKeyDer::Pkcs1(_))
        || has(&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]);
    if is_rsa && der.len() < 1000 {
        return Some("an RSA key of fewer than 2048 bits");
    }
    KINDS.iter().find(|(oid, _)| has(oid)).map(|(_, kind)| *kind)
}

/// When something of a file ceases to hold, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// What: "certificate of CN=a".
    pub what: String,
    /// Not before.
    pub from: i64,
    /// Not after.
    pub until: i64,
}

/// Of all certificates of a PEM file.
pub fn certificates(pem: &[u8]) -> Vec<Validity> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let validity = |der: CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let validity = certificate.validity();
        Some(Validity {
            what: format!("certificate of {}", certificate.subject()),
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
        })
    };
    certificates.filter_map(validity).collect()
}

/// Of all revocation lists of a PEM file that say when the next one comes.
pub fn revocation_lists(pem: &[u8]) -> Vec<Validity> {
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).filter_map(Result::ok);
    let validity = |der: CertificateRevocationListDer<'_>| {
        let (_, list) = CertificateRevocationList::from_der(&der).ok()?;
        Some(Validity {
            what: format!("revocation list of {}", list.issuer()),
            from: list.last_update().timestamp(),
            until: list.next_update()?.timestamp(),
        })
    };
    lists.filter_map(validity).collect()
}

/// Seconds before the end in which it is told of.
const SOON: i64 = 14 * 86_400;

impl Validity {
    /// What is to be said of it at a time, in seconds since 1970; `None`: nothing.
    #[must_use]
    pub fn warning(&self, now: i64) -> Option<String> {
        let at = |time: i64| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.max(0) as u64);
            humantime::format_rfc3339_seconds(time)
        };
        let days = (self.until - now) / 86_400;
        match () {
            () if self.until < now => Some(format!("the {} has expired at {}", self.what, at(self.until))),
            () if self.until - now < SOON => {
                Some(format!("the {} expires in {days} days, at {}", self.what, at(self.until)))
            }
            () if self.from > now => Some(format!("the {} is not valid before {}", self.what, at(self.from))),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_come_in_time() {
        let validity = Validity { what: "certificate of CN=a".into(), from: 1000, until: 1000 + 100 * 86_400 };
        assert_eq!(validity.warning(2000), None);
        assert!(validity.warning(0).unwrap().contains("not valid before 1970-01-01T00:16:40Z"));
        let late = validity.until - 3 * 86_400;
        assert!(validity.warning(late).unwrap().contains("certificate of CN=a expires in 3 days"));
        assert!(validity.warning(validity.until + 1).unwrap().contains("has expired"));
    }
}
