//! Text for man(7).

/// `text` such that roff prints it as it is.
pub fn plain(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// Lines that are not filled.
pub fn verbatim<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::from(".nf\n");
    for line in lines {
        out += &plain(line);
        out.push('\n');
    }
    out + ".fi\n"
}

/// The head of a page.
pub fn title(name: &str, section: u8, date: &jiff::Timestamp) -> String {
    let day = date.strftime("%Y-%m-%d");
    let source = concat!("meterferry ", env!("CARGO_PKG_VERSION"));
    format!(".TH \"{}\" \"{section}\" \"{day}\" \"{source}\" \"meterferry\"\n", plain(&name.to_uppercase()))
}
