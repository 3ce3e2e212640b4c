use super::*;
use proptest::prelude::*;

fn whole(text: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new(text, 0);
    let value = cursor.value().ok()?;
    cursor.is_over().then_some(value)
}

fn made(make: impl Fn(&mut dyn FnMut(&[u8]))) -> Vec<u8> {
    let mut out = Vec::new();
    make(&mut |bytes| out.extend_from_slice(bytes));
    out
}

/// JSON, with white space and much that is nearly JSON.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\"a\""),
        Just("\"\\u00e9\\n\""),
        Just("1"),
        Just("-0.5e+3"),
        Just("01"),
        Just("1."),
        Just("true"),
        Just("null"),
        Just(" "),
        Just("\n"),
        Just("\"\t\""),
        Just("\"k\":"),
        Just("\"\\ud83d\\ude00\""),
        Just("é"),
        Just("\"é\""),
        Just("\\"),
        Just("\""),
    ];
    proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat().into_bytes())
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn it_takes_what_the_official_parser_takes(text in nearly_json()) {
        let official = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(whole(&text).is_some(), official, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn compact_changes_nothing_but_white_space(value in value()) {
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let span = whole(&pretty).unwrap();
        prop_assert_eq!(made(|put| compact(span, put)), serde_json::to_vec(&value).unwrap());
    }

    #[test]
    fn what_needs_no_more_work_is_told_from_the_rest(value in value(), pretty in any::<bool>()) {
        let compact_text = serde_json::to_vec(&value).unwrap();
        let text = if pretty { serde_json::to_vec_pretty(&value).unwrap() } else { compact_text.clone() };
        let json = Cursor::new(&text, 0).json().unwrap();
        prop_assert_eq!(made(|put| json.write(put)), &compact_text[..]);
        prop_assert!(!json.is_compact || (json.text == compact_text && json.text.is_ascii()));
        let has_escapes = text.contains(&b'\\');
        prop_assert_eq!(json.is_compact, text == compact_text && text.is_ascii() && !has_escapes);
        if let Ok(message) = Cursor::new(&text, 0).text_message() {
            let is_plain = matches!(message, Message::Plain(_));
            prop_assert_eq!(is_plain, text.is_ascii() && !has_escapes);
            prop_assert_eq!(message.sent(), &text[1..text.len() - 1]);
        }
    }

    #[test]
    fn a_key_is_the_same_however_it_is_guessed_and_written(which in 0usize..4, guess in 0usize..5, escaped in any::<bool>(), space in any::<bool>()) {
        let names = ["a", "ab", "name", "other"];
        let keys: [&[u8]; 3] = [b"\"a\":", b"\"ab\":", b"\"name\":"];
        let mut name = names[which].to_string();
        if escaped {
            name.replace_range(..1, &format!("\\u{:04x}", name.as_bytes()[0]));
        }
        let space = if space { " " } else { "" };
        let text = format!("{space}\"{name}\"{space}:1");
        let mut cursor = Cursor::new(text.as_bytes(), 0);
        prop_assert_eq!(cursor.key_among(&keys, guess), Ok(Some(which).filter(|which| *which < keys.len())));
        prop_assert_eq!(cursor.value(), Ok(&b"1"[..]));
    }

    #[test]
    fn strings_stand_for_what_the_official_parser_says(text in any::<String>()) {
        let json = serde_json::to_vec(&text).unwrap();
        let inside = Cursor::new(&json, 0).text().unwrap();
        let mut out = Vec::new();
        unescape(inside, |bytes| out.extend_from_slice(bytes));
        prop_assert_eq!(&out, text.as_bytes());
        prop_assert!(stands_for(inside, text.as_bytes()));
        let longer = text.clone() + "x";
        prop_assert!(!stands_for(inside, longer.as_bytes()));
        let quoted = made(|put| quoted(text.as_bytes(), put));
        prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
    }

    #[test]
    fn what_is_cut_off_is_told_from_what_is_wrong(value in value(), cut in any::<prop::sample::Index>()) {
        let text = serde_json::to_vec(&serde_json::json!({"a": value})).unwrap();
        let cut = cut.index(text.len());
        let mut cursor = Cursor::new(&text[..cut], 0);
        prop_assert!(cursor.value().is_err() && cursor.is_at_end());
        let wrong = [&text[..cut], b"\x01"].concat();
        let mut cursor = Cursor::new(&wrong, 0);
        prop_assert!(cursor.value().is_err() && !cursor.is_at_end());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut cursor = Cursor::new(&bytes, 0);
        let _ = cursor.value();
        let _ = made(|put| compact(&bytes, put));
        unescape(&bytes, |_| {});
    }
}

#[test]
fn what_is_not_utf8_is_replaced_and_the_rest_stays() {
    let span = whole(b"{ \"a\" : \"x\xff y\" }").unwrap();
    assert_eq!(made(|put| compact(span, put)), "{\"a\":\"x\u{fffd} y\"}".as_bytes());
    assert_eq!(made(|put| as_it_stands(b"\xc3\\n", put)), "\u{fffd}\\n".as_bytes());
}

#[test]
fn numbers_keep_their_text() {
    let text = b"[9007199254740993, 1.0, 1E400, -0, 0.10]";
    assert_eq!(made(|put| compact(whole(text).unwrap(), put)), b"[9007199254740993,1.0,1E400,-0,0.10]");
}

#[test]
fn nesting_is_bounded() {
    let nested = |n: usize| [vec![b'['; n], b"1".to_vec(), vec![b']'; n]].concat();
    assert!(whole(&nested(DEEPEST as usize)).is_some());
    assert!(whole(&nested(DEEPEST as usize + 1)).is_none());
    assert!(whole(&vec![b'['; 1_000_000]).is_none());
    assert!(whole(&b"{\"a\":".repeat(1_000_000)).is_none());
}

#[test]
fn halves_of_surrogate_pairs_are_replaced() {
    let plain = |text: &[u8]| {
        let mut out = Vec::new();
        unescape(text, |bytes| out.extend_from_slice(bytes));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(plain(br"\ud83d\ude00"), "😀");
    assert_eq!(plain(br"\ud83dx"), "\u{fffd}x");
    assert_eq!(plain(br"\ude00\ud83d"), "\u{fffd}\u{fffd}");
    assert_eq!(plain(br"\ud83d\u0041"), "\u{fffd}A");
}
