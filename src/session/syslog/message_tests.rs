use super::*;
use proptest::prelude::*;

/// What was found, as text: `facility.severity|time|host|app|procid|msgid|sd|msg`.
fn said(bytes: &[u8]) -> String {
    let m = parse(bytes);
    let pri = m.pri.map_or("-".into(), |_| format!("{}.{}", m.facility().unwrap(), m.severity().unwrap()));
    let parts =
        [m.time, m.host, m.app, m.procid, m.msgid, m.sd, m.msg].map(|p| String::from_utf8_lossy(p).into_owned());
    format!("{pri}|{}", parts.join("|"))
}

fn check(cases: &[(&str, &str)]) {
    for (message, expected) in cases {
        assert_eq!(said(message.as_bytes()), *expected, "{message}");
    }
}

/// RFC 5424 section 6.5.
#[test]
fn the_examples_of_rfc_5424() {
    check(&[
        (
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
            "auth.crit|2003-10-11T22:14:15.003Z|mymachine.example.com|su||ID47||'su root' failed for lonvick on /dev/pts/8",
        ),
        (
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
            "local4.notice|2003-08-24T05:14:15.000003-07:00|192.0.2.1|myproc|8710|||%% It's time to make the do-nuts.",
        ),
        (
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] \u{feff}An application event log entry...",
            "local4.notice|2003-10-11T22:14:15.003Z|mymachine.example.com|evntslog||ID47|[exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"]|An application event log entry...",
        ),
        (
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\"][examplePriority@32473 class=\"high\"]",
            "local4.notice|2003-10-11T22:14:15.003Z|mymachine.example.com|evntslog||ID47|[exampleSDID@32473 iut=\"3\"][examplePriority@32473 class=\"high\"]|",
        ),
    ]);
}

#[test]
fn what_is_nil_or_missing_or_escaped_in_rfc_5424() {
    check(&[
        ("<0>1 - - - - - -", "kern.emerg|||||||"),
        ("<191>1 - - - - - - ", "local7.debug|||||||"),
        (
            "<14>1 - h a p m [x a=\"b\\\"c\\]d\\\\\" e=\"\"] msg",
            "user.info||h|a|p|m|[x a=\"b\\\"c\\]d\\\\\" e=\"\"]|msg",
        ),
        ("<14>1 - h a p m [x] msg", "user.info||h|a|p|m|[x]|msg"),
        // util-linux' logger.
        (
            "<13>1 2026-11-27T10:00:00.123456+00:00 host root - - [timeQuality tzKnown=\"1\" isSynced=\"0\"] hello",
            "user.notice|2026-11-27T10:00:00.123456+00:00|host|root|||[timeQuality tzKnown=\"1\" isSynced=\"0\"]|hello",
        ),
        // Broken: kept whole behind the PRI.
        ("<14>1 - h a p m [x a=\"b] msg", "user.info|||||||1 - h a p m [x a=\"b] msg"),
        ("<14>1 yesterday h a p m - msg", "user.info|||||||1 yesterday h a p m - msg"),
        ("<14>1 - h a p", "user.info|||||||1 - h a p"),
    ]);
}

/// RFC 3164 section 5.4.
#[test]
fn the_examples_of_rfc_3164() {
    check(&[
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            "auth.crit|Oct 11 22:14:15|mymachine|su||||'su root' failed for lonvick on /dev/pts/8",
        ),
        ("Use the BFG!", "-|||||||Use the BFG!"),
        ("<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", "user.notice|Feb  5 17:32:18|10.0.0.99|||||Use the BFG!"),
        (
            "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time",
            "local4.notice|Aug 24 05:34:00|CST|||||1987 mymachine myproc[10]: %% It's time",
        ),
        (
            "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
            "kern.emerg|||||||1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
        ),
    ]);
}

/// What routers, firewalls and Unix systems send under the name of RFC 3164.
#[test]
fn what_is_sent_under_the_name_of_rfc_3164() {
    check(&[
        ("<189>82: 00:20:10: %SYS-5-CONFIG_I: Configured", "local7.notice|00:20:10||%SYS-5-CONFIG_I||||Configured"),
        (
            "<189>86: *Feb 28 2010 00:20:10.663 UTC: %SYS-5-CONFIG_I: x",
            "local7.notice|Feb 28 2010 00:20:10.663 UTC||%SYS-5-CONFIG_I||||x",
        ),
        ("<111>222: 333: Oct  1 00:00:01: %LINK-3-UPDOWN: y", "audit.debug|Oct  1 00:00:01||%LINK-3-UPDOWN||||y"),
        (
            "<166>Sep 14 2016 10:07:20: %ASA-6-302014: Teardown",
            "local4.info|Sep 14 2016 10:07:20||%ASA-6-302014||||Teardown",
        ),
        (
            "<166>Sep 14 2016 10:07:20 Host1 : %ASA-6-302014: T",
            "local4.info|Sep 14 2016 10:07:20|Host1|%ASA-6-302014||||T",
        ),
        (
            "<189>24: router1: Nov 27 10:00:00.123 CET: %SYS-5-A: x",
            "local7.notice|Nov 27 10:00:00.123 CET|router1|%SYS-5-A||||x",
        ),
        ("<189>1: gate1: *Nov 27 10:00:00: %SYS-5-A: x", "local7.notice|Nov 27 10:00:00|gate1|%SYS-5-A||||x"),
        ("<166>:Nov 27 10:00:00 CET: %ASA-session-6-3: x", "local4.info|Nov 27 10:00:00 CET||%ASA-session-6-3||||x"),
        ("<13>24: x", "user.notice|||||||24: x"),
        ("<14>Oct  1 01:02:03.456 host app: ms", "user.info|Oct  1 01:02:03.456|host|app||||ms"),
        ("<38>User logged into the device", "auth.info|||||||User logged into the device"),
        ("<30>hostapd: ath0: STA joined", "daemon.info|||hostapd||||ath0: STA joined"),
        (
            "<13>2026-11-27T10:00:00.123+01:00 host sshd[12]: in",
            "user.notice|2026-11-27T10:00:00.123+01:00|host|sshd|12|||in",
        ),
        ("<13>2026-11-27T10:00:00Z host sshd: in", "user.notice|2026-11-27T10:00:00Z|host|sshd||||in"),
        // Without a host, as on /dev/log.
        ("<13>Nov 27 10:00:00 root: hello", "user.notice|Nov 27 10:00:00||root||||hello"),
        ("<78>Nov 27 10:00:00 CRON[12]: (root) CMD", "cron.info|Nov 27 10:00:00||CRON|12|||(root) CMD"),
        // Hosts with colons.
        ("<13>Nov 27 10:00:00 2001:db8::1 su: x", "user.notice|Nov 27 10:00:00|2001:db8::1|su||||x"),
        ("<13>Nov 27 10:00:00 2001:db8:: su: x", "user.notice|Nov 27 10:00:00|2001:db8::|su||||x"),
        // Tags.
        ("<13>Nov 27 10:00:00 h postfix/smtpd[77]: x", "user.notice|Nov 27 10:00:00|h|postfix/smtpd|77|||x"),
        ("<13>Nov 27 10:00:00 h app[a-b.c]: x", "user.notice|Nov 27 10:00:00|h|app|a-b.c|||x"),
        ("<13>Nov 27 10:00:00 h app[1]x", "user.notice|Nov 27 10:00:00|h|app|1|||x"),
        ("<13>Nov 27 10:00:00 h su(pam_unix)[9]: x", "user.notice|Nov 27 10:00:00|h|su(pam_unix)|9|||x"),
        ("<4>Nov 27 10:00:00 h kernel: [   12.3] oops", "kern.warning|Nov 27 10:00:00|h|kernel||||[   12.3] oops"),
        ("<13>Nov 27 10:00:00 h app:", "user.notice|Nov 27 10:00:00|h|app||||"),
        ("<13>Nov 27 10:00:00 h https://x/y failed", "user.notice|Nov 27 10:00:00|h|||||https://x/y failed"),
        (
            "<13>Nov 27 10:00:00 h last message repeated 3 times",
            "user.notice|Nov 27 10:00:00|h|||||last message repeated 3 times",
        ),
        ("<13>Nov 27 10:00:00 Message forwarded from h1: su: x", "user.notice|Nov 27 10:00:00|h1|su||||x"),
        // Newlines are no part of names.
        ("<13>Nov 27 10:00:00 h app[1\n2]: x", "user.notice|Nov 27 10:00:00|h|||||app[1\n2]: x"),
        ("<13>Nov 27 10:00:00 h\nh app: x", "user.notice|Nov 27 10:00:00||||||h\nh app: x"),
        // No valid PRI, and a time all the same.
        ("Nov 27 10:00:00 h app: x", "-|Nov 27 10:00:00|h|app||||x"),
        ("<192>Nov 27 10:00:00 h app: x", "-|||||||<192>Nov 27 10:00:00 h app: x"),
        ("<13>Nov 27 10:00:00", "user.notice|Nov 27 10:00:00||||||"),
        ("<13>", "user.notice|||||||"),
        ("", "-|||||||"),
        ("<13>C:\\Windows\\x", "user.notice|||||||C:\\Windows\\x"),
        ("<13>{\"a\": 1}", "user.notice|||||||{\"a\": 1}"),
    ]);
}

proptest! {
    /// Whatever comes, each part is a piece of it, in order, and the message is its end.
    #[test]
    fn every_part_is_a_piece_of_the_message(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "<1[0-9]>(1 )?(- |Nov 27 10:00:00 |2026-11-27T10:00:00Z )?[a-z:\\[\\] \"=-]{0,60}".prop_map(String::into_bytes),
        ]
    ) {
        let m = parse(&bytes);
        let place = |part: &[u8]| part.as_ptr() as usize - bytes.as_ptr() as usize;
        let mut last = 0;
        for part in [m.time, m.host, m.app, m.procid, m.msgid, m.sd].into_iter().filter(|p| !p.is_empty()) {
            prop_assert!(place(part) >= last && place(part) + part.len() <= bytes.len());
            last = place(part) + part.len();
        }
        prop_assert!(m.msg.is_empty() || (place(m.msg) >= last && bytes.ends_with(m.msg)));
    }
}
