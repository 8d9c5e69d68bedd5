//! No file makes the loader panic, hang or tell a secret.

use proptest::prelude::*;

use super::{Environment, load};

/// What is said to a configuration of these bytes.
fn said(content: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("meterferry.toml");
    std::fs::write(&file, content).expect("write");
    let environment = Environment::of(folder.path(), [("STATE_DIRECTORY", folder.path())]);
    match load(Some(&file), &environment) {
        Ok(loaded) => {
            // What is right is shown, and what is shown is right.
            let shown = super::dump(&loaded.settings);
            shown.parse::<toml::Table>().unwrap_or_else(|error| panic!("{error}: {shown}"));
            String::new()
        }
        Err(problems) => {
            assert!(!problems.errors.is_empty());
            problems.to_string()
        }
    }
}

/// Pieces that a configuration is made of, put together without sense.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "#",
        "\n",
        "\n",
        "\n",
        " ",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\\",
        "\r",
        "\0",
        "\u{feff}",
        "ü",
        "source",
        "queue",
        "kafka",
        "tls",
        "sasl",
        "properties",
        "users",
        "name",
        "type",
        "topics",
        "max_size",
        "listen",
        "password",
        "[queue]",
        "[kafka]",
        "[[source]]",
        "[source.tls]",
        "[kafka.properties]",
        "\"mqtt\"",
        "\"mqtt-listener\"",
        "\"modbus\"",
        "[[source.registers]]",
        "factor",
        "\"2 GiB\"",
        "\"#\"",
        "1",
        "0x",
        "-",
        "1e9",
        "true",
        "2026-01-01",
        "nan",
        "99999999999999999999",
        "0o7",
        "name = \"a\"",
        "type = \"mqtt\"",
        "topics = [\"a\"",
        "users = [{",
    ])
}

const SHIPPED: &str = include_str!("../../edge-config/meterferry.toml");

proptest! {
    /// Any bytes at all.
    #[test]
    fn bytes(content in prop::collection::vec(any::<u8>(), 0..300)) {
        said(&content);
    }

    /// Any order of the pieces of a configuration.
    #[test]
    fn pieces(pieces in prop::collection::vec(piece(), 0..60)) {
        said(pieces.concat().as_bytes());
    }

    /// The shipped file with every key set, and some of it cut out or written over.
    #[test]
    fn damaged(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, piece()), 1..8)) {
        let mut text = SHIPPED.replace("\n#", "\n").into_bytes();
        for (start, length, piece) in cuts {
            let start = start.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.bytes());
        }
        said(&text);
    }

    /// A password that was written into the file is not repeated, however it was written.
    #[test]
    fn secrets_are_not_repeated(
        section in prop::sample::select(vec!["kafka.sasl", "kafka", "queue", "[source]", "kafka.properties", "passwords"]),
        key in prop::sample::select(vec!["password", "sasl.password", "\"sasl.password\"", "passwd", "ssl.key.password"]),
        value in prop::sample::select(vec!["\"hunter2\"", "hunter2", "'hunter2", "[\"hunter2\"]", "\"hunter2\" x"]),
    ) {
        assert_secret(section, key, value);
    }
}

#[track_caller]
fn assert_secret(section: &str, key: &str, value: &str) {
    let said = said(format!("[{section}]\n{key} = {value}\n").as_bytes());
    assert!(said.contains("error: "), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

/// A password without quotes stands in a line that is no TOML, under a key that is nearly one: neither message repeats it.
#[test]
fn secret_in_a_broken_line_under_a_misspelt_key() {
    assert_secret("kafka.sasl", "passwd", "hunter2");
}

/// Keys within keys, deeper than any configuration: an error, not a stack overflow.
#[test]
fn deep_nesting() {
    for text in [
        format!("{} = 1", vec!["a"; 50_000].join(".")),
        format!("[{}]", vec!["a"; 50_000].join(".")),
        format!("x = {}", "[".repeat(50_000)),
        format!("x = {}1{}", "{a = ".repeat(1_000), "}".repeat(1_000)),
        format!("{} = 1\n", vec!["a"; 120].join(".")).repeat(50),
    ] {
        assert!(said(text.as_bytes()).contains("error: "));
    }
}

/// A large file is refused, and many errors take no quadratic time.
#[test]
fn large_files() {
    assert!(said(&vec![b' '; (1 << 20) + 1]).contains("larger than 1 MiB"));
    assert!(said("x\n".repeat(20_000).as_bytes()).contains("error: "));
    assert!(said("[queue]\nx = 1 2\n".repeat(2_000).as_bytes()).contains("error: "));
}
