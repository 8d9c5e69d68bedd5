//! A grid of characters with styles, to draw on and to print.

use std::fmt::Write;

use anstyle::Style;

/// Every character put on it must be one column wide.
#[derive(Debug)]
pub struct Canvas {
    width: usize,
    cells: Vec<Vec<(char, Style)>>,
}

const BLANK: (char, Style) = (' ', Style::new());

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, cells: vec![vec![BLANK; width]; height] }
    }

    /// Puts `text` at column `x` of row `y`; what does not fit is cut off.
    pub fn put(&mut self, x: usize, y: usize, style: Style, text: &str) {
        let Some(row) = self.cells.get_mut(y) else { return };
        for (cell, character) in row.iter_mut().skip(x).zip(text.chars()) {
            *cell = (character, style);
        }
    }

    /// Puts `text` so that it ends before column `end`.
    pub fn put_right(&mut self, end: usize, y: usize, style: Style, text: &str) {
        self.put(end.saturating_sub(text.chars().count()), y, style, text);
    }

    /// A frame with a title in its upper edge.
    pub fn frame(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), style: Style, title: &str) {
        let line = "─".repeat(width.saturating_sub(2));
        self.put(x, y, style, &format!("╭{line}╮"));
        for row in y + 1..y + height - 1 {
            self.put(x, row, style, "│");
            self.put(x + width - 1, row, style, "│");
        }
        self.put(x, y + height - 1, style, &format!("╰{line}╯"));
        self.put(x + 2, y, style.bold(), &format!(" {title} "));
    }

    /// Its rows without blanks at their ends; with escape sequences where colours are wanted.
    pub fn rows(&self, colours: bool) -> Vec<String> {
        self.cells.iter().map(|row| render(row, colours)).collect()
    }

    pub fn width(&self) -> usize {
        self.width
    }
}

fn render(row: &[(char, Style)], colours: bool) -> String {
    let end = row.iter().rposition(|cell| *cell != BLANK).map_or(0, |last| last + 1);
    let mut text = String::new();
    let mut current = Style::new();
    for (character, style) in &row[..end] {
        if colours && *style != current {
            let _ = write!(text, "{current:#}{style}");
            current = *style;
        }
        text.push(*character);
    }
    let _ = write!(text, "{current:#}");
    text
}
