//! Bytes that are no text, as text (RFC 4648, section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// With padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [chunk.first(), chunk.get(1), chunk.get(2)].map(|byte| u32::from(*byte.unwrap_or(&0)));
        let bits = a << 16 | b << 8 | c;
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 4648, section 10, and the ends of the alphabet.
    #[test]
    fn as_the_standard_says() {
        let words = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let encoded = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        assert_eq!(words.map(|word| encode(word.as_bytes())), encoded);
        assert_eq!(encode(&[0xff, 0xff, 0xfe, 0, 0, 0x3e]), "///+AAA+");
    }
}
