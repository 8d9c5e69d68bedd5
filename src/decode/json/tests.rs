//! What this reader takes, every reader of JSON takes, and sees the same in it.

use proptest::prelude::*;

use super::*;

/// The document written anew, or the reason why it is none.
fn read(bytes: &[u8]) -> Result<serde_json::Value, Reason> {
    fn tree(json: &mut Json<'_>, piece: &Piece<'_>) -> Result<serde_json::Value, Reason> {
        Ok(match piece {
            Piece::Text(text) => text.as_ref().into(),
            Piece::Number(number) => serde_json::from_str(number).expect("a number is JSON"),
            Piece::Flag => json.text[..json.at].ends_with("true").into(),
            Piece::Null => serde_json::Value::Null,
            Piece::Array => {
                let mut items = Vec::new();
                while json.another(items.is_empty())? {
                    let inner = json.piece()?;
                    items.push(tree(json, &inner)?);
                }
                items.into()
            }
            Piece::Object => {
                let (mut keys, mut members) = (Keys::default(), serde_json::Map::new());
                while let Some(key) = json.key(&mut keys)? {
                    let inner = json.piece()?;
                    members.insert(key.into_owned(), tree(json, &inner)?);
                }
                members.into()
            }
        })
    }
    let mut json = Json::new(bytes)?;
    let piece = json.piece()?;
    let value = tree(&mut json, &piece)?;
    json.end()?;
    Ok(value)
}

fn passed_over(bytes: &[u8]) -> Result<(), Reason> {
    let mut json = Json::new(bytes)?;
    let piece = json.piece()?;
    json.pass_over(&piece)?;
    json.end()
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Into::into),
        "\\PC{0,8}|[\\x00-\\x20\"\\\\/🔌é]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::btree_map("\\PC{0,6}|[\"\\\\\n]{1,2}", inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Both agree on what is JSON, on what is wrong with it, and where.
fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    let ours = read(bytes);
    prop_assert_eq!(passed_over(bytes), ours.clone().map(|_| ()));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
        (Err(Reason::NotJson { what, line, column }), Err(error)) => {
            // serde_json takes four digits at once, and a number up to where it is too large.
            if !what.contains("escape") && what != "number out of range" {
                prop_assert_eq!(format!("{what} at line {line} column {column}"), error.to_string());
            }
        }
        (Err(Reason::NotUtf8 { .. } | Reason::DuplicateKey { .. } | Reason::TooDeep { .. }), _) => {}
        (ours, theirs) => prop_assert!(false, "{ours:?}, serde_json: {theirs:?}"),
    }
    Ok(())
}

proptest! {
    /// Promise 5: every document means the same to everybody, however it is laid out.
    #[test]
    fn a_document_is_read_as_serde_json_reads_it(document in any_json()) {
        for text in [serde_json::to_string(&document), serde_json::to_string_pretty(&document)] {
            let text = text.expect("JSON");
            prop_assert_eq!(read(text.as_bytes()).ok(), serde_json::from_str(&text).ok());
        }
    }

    /// Promise 5: a damaged document is refused for the same reason at the same place.
    #[test]
    fn a_damaged_document_is_refused_as_serde_json_refuses_it(
        document in any_json(), at: prop::sample::Index, byte in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[],:\"\\ue+-.0t"[..])],
    ) {
        let mut bytes = serde_json::to_vec(&document).expect("JSON");
        let at = at.index(bytes.len());
        agrees(&bytes[..at])?;
        bytes[at] = byte;
        agrees(&bytes)?;
    }

    /// Promise 5: and so is what never was a document.
    #[test]
    fn any_text_is_refused_or_taken_as_by_serde_json(text in "(\\PC{0,20}|[-+0-9.eE\\[\\]{},:\" \n]{0,20}|\"(\\\\[\"u\\\\/bfnrtx]|[0-9a-fD]{1,4}){0,6}\")") {
        agrees(text.as_bytes())?;
    }
}

/// Promise 5: a text's bytes are borrowed, unless something in them is escaped.
#[test]
fn texts_are_borrowed() {
    let mut json = Json::new(br#"["plain","esc\u0061ped"]"#).expect("UTF-8");
    assert!(matches!(json.piece(), Ok(Piece::Array)));
    assert!(json.another(true).is_ok_and(|another| another));
    assert!(matches!(json.piece(), Ok(Piece::Text(Cow::Borrowed("plain")))));
    assert!(json.another(false).is_ok_and(|another| another));
    assert!(matches!(json.piece(), Ok(Piece::Text(Cow::Owned(text))) if text == "escaped"));
}
