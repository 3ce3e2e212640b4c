//! The status page: one document that includes its style and script. It reads only `/metrics` and `/readyz` of this server.

use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// The script: one module, whose parts use those before them.
macro_rules! script {
    () => {
        concat!(
            include_str!("script/scrape.js"),
            include_str!("script/words.js"),
            include_str!("script/plots.js"),
            include_str!("script/tables.js"),
            include_str!("script/poll.js")
        )
    };
}

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = script!();

/// The whole page.
pub const PAGE: &str = concat!(
    include_str!("head.html"),
    "<style>",
    include_str!("style.css"),
    "</style>\n</head>\n<body>\n",
    include_str!("body.html"),
    "<script type=\"module\">",
    script!(),
    "</script>\n</body>\n</html>\n"
);

/// The headers of the page. They allow only its own style and script to run, and only requests to this server.
pub fn headers() -> &'static str {
    static HEADERS: OnceLock<String> = OnceLock::new();
    HEADERS.get_or_init(|| {
        let hash = |text: &str| base64(&Sha256::digest(text.as_bytes()));
        format!(
            "Content-Security-Policy: default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
             Referrer-Policy: no-referrer\r\nVary: Accept\r\n",
            hash(STYLE),
            hash(SCRIPT)
        )
    })
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |g, i| g << 8 | u32::from(part.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= part.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let shown = ["", "f", "fo", "foo", "foob"].map(|t| base64(t.as_bytes()));
        assert_eq!(shown, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn style_and_script_end_where_they_should() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</script"));
        assert_eq!(PAGE.matches("<script").count(), 1);
    }
}
