//! Every value of a document, with its place.

use std::borrow::Cow;

use crate::decode::Reason;
use crate::decode::json::{Json, Keys, Piece};

/// Calls `visit` for each text, number, flag and null, in the document's order, with the keys that lead to it.
pub(super) fn walk<'de>(bytes: &'de [u8], mut visit: impl FnMut(&[Cow<'de, str>], Piece<'de>)) -> Result<(), Reason> {
    let mut json = Json::new(bytes)?;
    let mut keys = Vec::new();
    value(&mut json, &mut keys, &mut visit)?;
    json.end()
}

fn value<'de>(
    json: &mut Json<'de>,
    path: &mut Vec<Cow<'de, str>>,
    visit: &mut impl FnMut(&[Cow<'de, str>], Piece<'de>),
) -> Result<(), Reason> {
    match json.piece()? {
        Piece::Object => {
            let mut keys = Keys::default();
            while let Some(key) = json.key(&mut keys)? {
                path.push(key);
                value(json, path, visit)?;
                path.pop();
            }
        }
        Piece::Array => {
            let mut index = 0_usize;
            while json.another(index == 0)? {
                path.push(Cow::Owned(index.to_string()));
                value(json, path, visit)?;
                path.pop();
                index += 1;
            }
        }
        plain => visit(path, plain),
    }
    Ok(())
}
