//! The line as a picture: meters, agent, queue and Kafka, the acts, and the queue's depth over time. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::board::{Agent, Device, Figures, SAMPLE};
use super::canvas::Canvas;
use super::story::ACTS;
use crate::cli::terminal::printable;
use crate::cli::units::{bytes, count, duration};

/// The smallest terminal that it fits into.
pub const SMALLEST: (usize, usize) = (80, 24);

/// Wider, and the eye loses the line.
const WIDEST: usize = 112;

/// Of the frames of meters, agent, queue and Kafka.
const WIDTHS: [usize; 4] = [19, 14, 18, 17];
/// What the meters' names need besides, where the terminal has it.
const NAMES: usize = 10;
const FRAME: usize = 6;
/// Rows that are not the chart.
const OTHER_ROWS: usize = 20;
const CHART: (usize, usize) = (3, 9);
/// The chart's scale at least: a line that keeps up is a low one.
const LEAST: u64 = 40;
/// Columns of the chart's scale.
const SCALE: usize = 7;

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUEUE: Style = AnsiColor::Yellow.on_default();
const NOW: Style = AnsiColor::Cyan.on_default().bold();

/// What does not change while it is shown.
#[derive(Debug, Clone)]
pub struct Caption {
    /// Meters and pace.
    pub meters: String,
    /// What Kafka is here: "stand-in", or the real one's address.
    pub kafka: String,
    /// How readings are delivered.
    pub delivery: &'static str,
    /// The broker between the adapters that publish and the agent.
    pub broker: Option<String>,
}

/// Draws the line. `beat` counts the pictures, and moves what flows.
pub fn draw(figures: &Figures, caption: &Caption, (width, height): (usize, usize), beat: usize) -> Canvas {
    let width = width.min(WIDEST);
    let chart = height.saturating_sub(OTHER_ROWS + 1).clamp(CHART.0, CHART.1);
    let mut canvas = Canvas::new(width, OTHER_ROWS + chart);
    title(&mut canvas, figures, caption);
    line(&mut canvas, figures, caption, beat);
    acts(&mut canvas, figures);
    let now = wrap(&figures.now, width - 4);
    for (row, text) in now.iter().take(2).enumerate() {
        canvas.put(2, 15 + row, NOW, text);
    }
    depth(&mut canvas, figures, 18, chart);
    canvas
}

fn title(canvas: &mut Canvas, figures: &Figures, caption: &Caption) {
    let width = canvas.width();
    canvas.put(1, 0, BOLD, "meterferry demo");
    let clock = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
    let elapsed = figures.began.elapsed();
    let whole = format!(" of about {}", clock(figures.length));
    canvas.put_right(width - 1, 0, DIM, &whole);
    let elapsed = clock(elapsed);
    let clock_at = width - 1 - whole.len() - elapsed.len();
    canvas.put(clock_at, 0, BOLD, &elapsed);
    if 18 + caption.meters.chars().count() < clock_at {
        canvas.put(18, 0, DIM, &caption.meters);
    }
}

fn line(canvas: &mut Canvas, figures: &Figures, caption: &Caption, beat: usize) {
    let mut widths = WIDTHS;
    widths[0] += if canvas.width() - 2 >= WIDTHS.iter().sum::<usize>() + NAMES + 9 { NAMES } else { 0 };
    let arrow = (canvas.width() - 2 - widths.iter().sum::<usize>()) / 3;
    let mut at = [1; 4];
    for index in 1..4 {
        at[index] = at[index - 1] + widths[index - 1] + arrow;
    }
    let runs = matches!(figures.agent, Agent::Running { .. });
    let alive = match figures.agent {
        Agent::Running { .. } => GOOD,
        Agent::Killed => BAD,
        Agent::NotStarted | Agent::Stopped => PLAIN,
    };
    let reachable = if figures.cluster_up { GOOD } else { BAD };
    let styles = [PLAIN, alive, QUEUE, reachable];
    for (index, name) in ["METERS", "AGENT", "QUEUE", "KAFKA"].into_iter().enumerate() {
        canvas.frame((at[index], 2), (widths[index], FRAME), styles[index], name);
    }
    meters(canvas, figures, at[0] + 2, widths[0] - 4);
    agent(canvas, figures, at[1] + 2);
    queue(canvas, figures, at[2] + 2);
    kafka(canvas, figures, caption, at[3] + 2);
    let in_flow = match figures.agent {
        Agent::Running { .. } => Flow::Moving,
        Agent::Killed => Flow::Cut,
        Agent::NotStarted | Agent::Stopped => Flow::Still,
    };
    let stored = if runs { Flow::Moving } else { Flow::Still };
    let out = match (figures.cluster_up, runs) {
        (false, _) => Flow::Cut,
        (true, true) => Flow::Moving,
        (true, false) => Flow::Still,
    };
    for (index, flow) in [in_flow, stored, out].into_iter().enumerate() {
        flow.draw(canvas, at[index] + widths[index], arrow, beat);
    }
    totals(canvas, figures, caption, at);
}

/// What moves between two frames.
enum Flow {
    Moving,
    Still,
    Cut,
}

impl Flow {
    fn draw(&self, canvas: &mut Canvas, x: usize, length: usize, beat: usize) {
        let (style, shaft) = match self {
            Self::Moving => (GOOD, "─"),
            Self::Still => (DIM, "╌"),
            Self::Cut => (BAD, "╌"),
        };
        canvas.put(x, 4, style, &shaft.repeat(length.saturating_sub(1)));
        canvas.put(x + length - 1, 4, style, "▶");
        match self {
            Self::Moving => canvas.put(x + beat % (length - 1).max(1), 4, GOOD.bold(), "●"),
            Self::Still => {}
            Self::Cut => canvas.put(x + (length - 1) / 2, 4, BAD, "╳"),
        }
    }
}

fn meters(canvas: &mut Canvas, figures: &Figures, x: usize, width: usize) {
    let rows = FRAME - 2;
    let named = width >= WIDTHS[0] - 4 + NAMES;
    let shown = if figures.devices.len() > rows { rows - 1 } else { rows };
    for (row, device) in in_turn(&figures.devices).into_iter().take(shown).enumerate() {
        let style = if device.connected { PLAIN } else { BAD };
        let watts = device.watts.map_or_else(String::new, |watts| format!("{watts} W"));
        canvas.put(x, 3 + row, style, device.kind.name());
        if named {
            canvas.put(x + 8, 3 + row, style, &printable(&device.name, NAMES - 1));
        }
        canvas.put_right(x + width, 3 + row, if device.connected { GOOD } else { DIM }, &watts);
    }
    if figures.devices.len() > rows {
        canvas.put(x, 3 + shown, DIM, &format!("and {} more", figures.devices.len() - shown));
    }
}

/// The first of each kind, then the second ones.
fn in_turn(devices: &[Device]) -> Vec<&Device> {
    let mut turns = BTreeMap::new();
    for device in devices {
        let of_kind = devices.iter().filter(|other| other.kind == device.kind);
        turns.insert((of_kind.take_while(|other| other.name != device.name).count(), device.kind), device);
    }
    turns.into_values().collect()
}

fn agent(canvas: &mut Canvas, figures: &Figures, x: usize) {
    match figures.agent {
        Agent::NotStarted => canvas.put(x, 3, DIM, "starting"),
        Agent::Running { pid } => {
            canvas.put(x, 3, GOOD, "running");
            canvas.put(x, 4, DIM, &format!("pid {pid}"));
        }
        Agent::Killed => {
            canvas.put(x, 3, BAD, "KILLED");
            canvas.put(x, 4, BAD, "kill -9");
        }
        Agent::Stopped => canvas.put(x, 3, BOLD, "stopped"),
    }
    let starts = match figures.starts {
        0 => String::new(),
        1 => "1 start".to_owned(),
        starts => format!("{starts} starts"),
    };
    canvas.put(x, 6, DIM, &starts);
}

fn queue(canvas: &mut Canvas, figures: &Figures, x: usize) {
    const WIDTH: usize = 14;
    let most = figures.history.iter().copied().max().unwrap_or(0).max(figures.depth.waiting).max(LEAST);
    let filled = usize::try_from(figures.depth.waiting * WIDTH as u64 / most).unwrap_or(WIDTH).min(WIDTH);
    canvas.put(x, 3, QUEUE, &"█".repeat(filled));
    canvas.put(x + filled, 3, DIM, &"░".repeat(WIDTH - filled));
    canvas.put(x, 4, QUEUE.bold(), &format!("{} waiting", count(figures.depth.waiting)));
    if figures.depth.waiting > 0 {
        canvas.put(x, 5, PLAIN, &format!("oldest {}", duration(figures.depth.oldest)));
    }
    canvas.put(x, 6, DIM, &format!("disk {}", bytes(figures.depth.bytes)));
}

fn kafka(canvas: &mut Canvas, figures: &Figures, caption: &Caption, x: usize) {
    if figures.cluster_up {
        canvas.put(x, 3, GOOD, "reachable");
    } else {
        canvas.put(x, 3, BAD, "UNREACHABLE");
    }
    canvas.put(x, 4, PLAIN, &printable(&caption.kafka, WIDTHS[3] - 3));
    canvas.put(x, 6, DIM, caption.delivery);
}

fn totals(canvas: &mut Canvas, figures: &Figures, caption: &Caption, at: [usize; 4]) {
    let y = 2 + FRAME;
    canvas.put(at[0] + 1, y, BOLD, &format!("{} safe", count(figures.safe_so_far())));
    if let Some(broker) = &caption.broker {
        let label = format!("by the broker {broker}");
        canvas.put(at[1] + 2, y, DIM, &printable(&label, at[3] - at[1] - 2));
    } else if figures.missed > 0 {
        canvas.put(at[1] + 2, y, DIM, &format!("{} found no agent", count(figures.missed)));
    }
    canvas.put_right(at[3] + WIDTHS[3] - 1, y, BOLD, &format!("{} delivered", count(figures.delivered)));
}

fn acts(canvas: &mut Canvas, figures: &Figures) {
    for (number, title) in ACTS.iter().enumerate() {
        let y = 10 + number;
        let (mark, style) = if number < figures.acts_done {
            ("✓", GOOD)
        } else if figures.act == Some(number) {
            ("▶", BOLD)
        } else {
            (" ", DIM)
        };
        canvas.put(2, y, style, mark);
        let text = if number < figures.acts_done { PLAIN } else { style };
        canvas.put(4, y, text, &format!("{}  {title}", number + 1));
    }
}

/// Readings waiting, over the time of the story.
fn depth(canvas: &mut Canvas, figures: &Figures, y: usize, rows: usize) {
    const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let columns = canvas.width() - SCALE - 3;
    let most = figures.history.iter().copied().max().unwrap_or(0).max(LEAST);
    canvas.put(1, y - 1, DIM, "readings waiting on the disk");
    canvas.put_right(SCALE, y, DIM, &count(most));
    canvas.put_right(SCALE, y + rows - 1, DIM, "0");
    for row in 0..rows {
        canvas.put(SCALE + 1, y + row, DIM, "│");
    }
    let whole = figures.length.max(figures.began.elapsed());
    let samples = usize::try_from(whole.as_millis() / SAMPLE.as_millis()).unwrap_or(0).max(1) + 1;
    let levels = rows as u64 * 8;
    for column in 0..columns {
        let (from, to) = (column * samples / columns, ((column + 1) * samples).div_ceil(columns));
        let Some(slice) = figures.history.get(from..to.min(figures.history.len())) else { break };
        let Some(value) = slice.iter().copied().max() else { break };
        // Something that waits is seen, however little it is.
        let level = (value * levels).div_ceil(most);
        for row in 0..rows {
            let below = (rows - 1 - row) as u64 * 8;
            let eighths = usize::try_from(level.saturating_sub(below).min(8)).unwrap_or(8);
            canvas.put(SCALE + 2 + column, y + row, QUEUE, EIGHTHS[eighths]);
        }
    }
    canvas.put(SCALE + 1, y + rows, DIM, &format!("└{}", "─".repeat(columns)));
    canvas.put(1, y + rows + 1, DIM, "Ctrl-C ends it");
}

/// `text` in lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
