//! How the card wears and how the agent came up, as rows of a table.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::units::{self, decimal, duration};
use crate::agent::live::Live;
use crate::card::{Card, Outlook, TIMES};
use crate::wear::Wear;

/// Beyond this, something else ends a card.
const FAR_YEARS: i16 = 50;

/// What a running agent knows of both.
pub fn rows(live: &Live, now_ms: i64) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(wear) = &live.wear {
        rows.push(("written", written(wear)));
    }
    if let Some(card) = &live.card {
        rows.push(("card", lasts(card, live.outlook.as_ref(), now_ms)));
        rows.extend(own_word(card).map(|word| ("", word)));
    }
    if let Some(words) = live.start.words() {
        rows.push(("last start", format!("{words}; {}", since(live))));
    }
    rows
}

/// Of readings, since the start.
fn since(live: &Live) -> String {
    let recognised: u64 = live.sources.iter().map(|source| source.redelivered).sum();
    format!("{} lost, {} sent again and recognised since", units::count(live.lost), units::count(recognised))
}

fn written(wear: &Wear) -> String {
    let Some((bytes, flushes)) = wear.bytes_per_reading().zip(wear.flushes_per_reading()) else {
        return "nothing stored yet".to_owned();
    };
    let reading = format!("{} and {flushes:.2} flushes a reading", decimal(bytes));
    match wear.per_day().zip(wear.bytes_per_year()) {
        None => reading,
        Some(((day, flushes), year)) => format!(
            "{reading}; {} and {} flushes a day, {} a year (over {})",
            decimal(day),
            units::count(flushes),
            decimal(year),
            duration(Duration::from_secs(wear.seconds))
        ),
    }
}

fn lasts(card: &Card, outlook: Option<&Outlook>, now_ms: i64) -> String {
    let name = format!("{} ({})", card.device, decimal(card.bytes));
    let Some(outlook) = outlook else {
        return format!("{name}: how long it lasts is known after ten minutes");
    };
    let year = |at_ms: i64| Timestamp::from_millisecond(at_ms).map(|at| at.to_zoned(TimeZone::UTC).year());
    let this_year = year(now_ms).unwrap_or(i16::MAX);
    let until = match outlook.until_ms.map(year) {
        Some(Ok(year)) if year < this_year => "has had what it was made for".to_owned(),
        Some(Ok(year)) if year <= this_year.saturating_add(FAR_YEARS) => format!("lasts until about {year}"),
        _ => format!("lasts for more than {FAR_YEARS} years"),
    };
    let bears = match outlook.assumed {
        true => format!("if it bears {TIMES} times its size, {}", decimal(outlook.endurance)),
        false => format!("as it bears {} (queue.card_endurance)", decimal(outlook.endurance)),
    };
    let all = match outlook.per_year - outlook.own_per_year.min(outlook.per_year) {
        0 => "all of it by meterferry".to_owned(),
        _ => format!("{} of it by meterferry", decimal(outlook.own_per_year)),
    };
    format!(
        "{name}: this card {until}, {bears}, and {} a year are written, {all}: an estimate",
        decimal(outlook.per_year)
    )
}

/// What an eMMC says of itself.
fn own_word(card: &Card) -> Option<String> {
    let used = card.life_used.map(|(from, to)| match from {
        100.. => "it says that it is beyond what it was made for".to_owned(),
        from => format!("it says that {from} to {to} % of its life are used"),
    });
    let spare = card.pre_eol.map(|step| match step {
        2 => "80 % of its spare blocks are used",
        _ => "its spare blocks are nearly used up: replace it",
    });
    match (used, spare) {
        (None, None) => None,
        (Some(used), None) => Some(used),
        (None, Some(spare)) => Some(spare.to_owned()),
        (Some(used), Some(spare)) => Some(format!("{used}; {spare}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    /// Promise 9: a date that a person can use, what it is assumed from, and that it is an estimate.
    #[test]
    fn the_card_in_words() {
        let wear = Wear { since_ms: NOW, seconds: 864_000, bytes: 5_400_000_000, flushes: 345_600, readings: 864_000 };
        let card =
            Card { device: "mmcblk0".into(), bytes: 32_000_000_000, written: None, life_used: None, pre_eol: None };
        let outlook = Outlook::of(&card, None, &wear, Duration::ZERO, NOW);
        let more = Outlook {
            per_year: 685_000_000_000,
            until_ms: Some(NOW + 442_000_000_000),
            ..outlook.clone().expect("enough")
        };
        let given = Outlook { assumed: false, until_ms: Some(0), ..more.clone() };
        let worn = Card { life_used: Some((100, 110)), pre_eol: Some(3), ..card.clone() };
        let lines = [
            written(&wear),
            written(&Wear { seconds: 60, ..wear }),
            lasts(&card, outlook.as_ref(), NOW),
            lasts(&card, Some(&more), NOW),
            lasts(&card, Some(&given), NOW),
            lasts(&card, None, NOW),
            own_word(&worn).unwrap_or_default(),
        ];
        insta::assert_snapshot!("card", lines.join("\n"));
        assert_eq!(own_word(&card), None);
    }
}
