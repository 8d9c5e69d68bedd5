//! Debian's machine-readable copyright (DEP-5) of everything that is linked into the binary.
//!
//! Which crates those are, cargo says; their files say whose they are. Where a crate offers a choice, MIT or Apache-2.0
//! is taken and the offer noted; any other licence is quoted in full. The C libraries that crates bring along, and Rust's
//! own library, are listed by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Outcome;

/// Fewer crates than this, and the metadata was not understood.
const FEWEST_CRATES: usize = 50;

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: meterferry
Comment: The binary is linked with the libraries below. Each crate is published at
 https://crates.io under its name and version; C libraries are those that the
 named crate brings along.

Files: *
Copyright: The meterferry developers
License: MIT
Comment: Offered: MIT OR Apache-2.0

Files: rust/library/*
Copyright: The Rust Project contributors
License: MIT
Comment: The Rust standard library. Offered: MIT OR Apache-2.0
";

const MIT: &str = include_str!("../../LICENSE-MIT");

/// Debian has the text of this one, and wants it referred to.
const APACHE: &str = "\
On Debian systems the full text of the Apache License, Version 2.0, is in
/usr/share/common-licenses/Apache-2.0.
";
const APACHE_BEGINS: &str = "TERMS AND CONDITIONS FOR USE, REPRODUCTION";
const APACHE_ENDS: &str = "END OF TERMS AND CONDITIONS";

/// C code inside a crate: the crate, the library, its files there, whose it is, and the files that hold the licence.
const BROUGHT_ALONG: [(&str, &str, &str, &str, &[&str]); 4] = [
    ("openssl-src", "OpenSSL", "openssl", "1998-2026 The OpenSSL Project Authors", &["openssl/LICENSE.txt"]),
    (
        "rdkafka-sys",
        "librdkafka",
        "librdkafka",
        "2012-2022 Magnus Edenhill, 2023 Confluent Inc., and those named in the licence",
        &["librdkafka/LICENSES.txt"],
    ),
    ("libz-sys", "zlib", "src/zlib", "1995-2024 Jean-loup Gailly and Mark Adler", &["src/zlib/LICENSE"]),
    ("zstd-sys", "zstd", "zstd", "Meta Platforms, Inc. and affiliates", &["zstd/LICENSE"]),
];

/// From the output of `cargo metadata --format-version 1 --filter-platform TARGET`.
pub fn machine_readable(metadata: &str) -> Outcome<String> {
    let metadata: Value = serde_json::from_str(metadata)?;
    let linked = linked(&metadata)?;
    let mut crates: Vec<_> = list(&metadata["packages"])
        .filter(|package| linked.contains(text(&package["id"])) && !package["source"].is_null())
        .map(Crate::of)
        .collect::<Outcome<_>>()?;
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    if crates.len() < FEWEST_CRATES {
        return Err(format!("only {} crates are linked", crates.len()).into());
    }
    let mut out = String::from(HEAD);
    let mut quoted = BTreeMap::new();
    for one in &crates {
        out += &one.paragraph(&mut quoted)?;
    }
    for (name, library, folder, holder, files) in BROUGHT_ALONG {
        let one = crates.iter().find(|one| one.name == name).ok_or_else(|| format!("{name} is not linked"))?;
        out += &format!(
            "\nFiles: {}/{folder}/*\nCopyright: {holder}\nLicense: {library}\nComment: The C library {library}.\n",
            one.folder()
        );
        let texts: Vec<_> =
            files.iter().map(|file| fs::read_to_string(one.root.join(file))).collect::<Result<_, _>>()?;
        quoted.insert(library.to_owned(), referring(&texts.join("\n\n")));
    }
    out += &format!("\nLicense: MIT\n{}", indented(without_holder(MIT)));
    out += &format!("\nLicense: Apache-2.0\n{}", indented(APACHE));
    for (name, text) in quoted {
        out += &format!("\nLicense: {name}\n{}", indented(&text));
    }
    Ok(out)
}

/// Ids of the packages that the program is linked with, and openssl-src, which only builds what is linked.
fn linked(metadata: &Value) -> Outcome<BTreeSet<&str>> {
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).map(|node| (text(&node["id"]), node)).collect();
    let mut found = BTreeSet::new();
    let mut ahead = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = ahead.pop() {
        if !found.insert(id) {
            continue;
        }
        let node = nodes.get(id).ok_or_else(|| format!("cargo knows no {id}"))?;
        let wanted = list(&node["deps"]).filter(|dependency| {
            let normal = list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
            normal || text(&dependency["name"]) == "openssl_src"
        });
        ahead.extend(wanted.map(|dependency| text(&dependency["pkg"])));
    }
    Ok(found)
}

struct Crate<'a> {
    name: &'a str,
    version: &'a str,
    offered: String,
    root: &'a Path,
    authors: Vec<&'a str>,
    /// What lies at the top of the crate and speaks of licences, by name.
    files: Vec<String>,
}

impl<'a> Crate<'a> {
    fn of(package: &'a Value) -> Outcome<Self> {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let root = Path::new(text(&package["manifest_path"])).parent().ok_or("a manifest without a folder")?;
        let mut names = fs::read_dir(root)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Outcome<Vec<_>>>()?;
        names.sort();
        names.retain(|name| {
            let name = name.to_ascii_lowercase();
            ["license", "licence", "copying", "copyright", "notice", "unlicense"]
                .iter()
                .any(|word| name.starts_with(word))
        });
        let files = names.iter().filter_map(|name| fs::read_to_string(root.join(name)).ok()).collect();
        let offered = package["license"].as_str().map(|license| license.replace('/', " OR "));
        let offered = offered.ok_or_else(|| format!("{name} {version} names no licence"))?;
        Ok(Self { name, version, offered, root, authors: list(&package["authors"]).map(text).collect(), files })
    }

    fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// As Debian writes the licence that is taken; in any other case than MIT or Apache-2.0 the text is quoted.
    fn taken(&self, quoted: &mut BTreeMap<String, String>) -> Outcome<String> {
        let choices: Vec<_> = self.offered.split(" OR ").map(str::trim).collect();
        if let Some(simple) = ["MIT", "Apache-2.0"].into_iter().find(|simple| choices.contains(simple)) {
            return Ok(simple.to_owned());
        }
        if self.files.is_empty() {
            return Err(format!("{} {} is {} and brings no text of it", self.name, self.version, self.offered).into());
        }
        let name = format!("{}-terms", self.name);
        quoted.insert(name.clone(), referring(&self.files.join("\n\n")));
        Ok(name)
    }

    fn holders(&self) -> BTreeSet<String> {
        let lines = self.files.iter().flat_map(|file| file.lines()).map(str::trim);
        let mut holders: BTreeSet<_> = lines.filter_map(holder).map(ToOwned::to_owned).collect();
        if holders.is_empty() {
            holders.extend(self.authors.iter().map(|author| (*author).to_owned()));
        }
        if holders.is_empty() {
            holders.insert(format!("The authors of {}", self.name));
        }
        holders
    }

    fn paragraph(&self, quoted: &mut BTreeMap<String, String>) -> Outcome<String> {
        let holders: Vec<_> = self.holders().into_iter().collect();
        Ok(format!(
            "\nFiles: {}/*\nCopyright: {}\nLicense: {}\nComment: Offered: {}\n",
            self.folder(),
            holders.join("\n           "),
            self.taken(quoted)?,
            self.offered
        ))
    }
}

/// Who holds the copyright, if the line is a notice and not a form's or a sentence about one.
fn holder(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("Copyright ").or_else(|| line.strip_prefix("Portions Copyright "))?;
    let rest = rest.strip_prefix("(c) ").or_else(|| rest.strip_prefix("(C) ")).unwrap_or(rest);
    let rest = rest.strip_prefix("© ").unwrap_or(rest).trim();
    let form = ["[yyyy]", "{yyyy}", "<YEAR>", "notice", "License", "owner"].iter().any(|word| rest.contains(word));
    (!form && !rest.is_empty()).then_some(rest)
}

/// The MIT licence from its first word, without the names above it.
fn without_holder(text: &str) -> &str {
    text.find("Permission is hereby granted").map_or(text, |at| &text[at..])
}

/// With a reference in the stead of the Apache License's terms.
fn referring(text: &str) -> String {
    match (text.find(APACHE_BEGINS), text.find(APACHE_ENDS)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{APACHE}{}", &text[..begin], referring(&text[end + APACHE_ENDS.len()..]))
        }
        _ => text.to_owned(),
    }
}

/// As a field's further lines: one space before each, a dot for an empty one.
fn indented(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => " .\n".to_owned(),
        line => format!(" {}\n", line.replace('\t', "    ")),
    };
    text.trim().lines().map(line).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
