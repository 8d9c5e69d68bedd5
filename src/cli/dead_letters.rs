//! `meterferry dead-letters`: what was set aside, and why.

use std::process::ExitCode;

use super::queue::{Folder, body_json, preview, received};
use super::units::{local_time, rfc3339};
use super::{Global, fail, out, queue_folder};
use crate::queue::inspect::Inspector;
use crate::reading::{Body, DeadLetter};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the dead letters, oldest first
    #[command(
        after_help = "Examples:\n  meterferry dead-letters list\n  meterferry dead-letters list --json | jq -r .reason"
    )]
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    folder: Folder,
    /// One JSON object a line, with the whole payload
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command, global: &Global) -> ExitCode {
    let Command::List(args) = command;
    let folder = match queue_folder(args.folder.path.as_deref(), global) {
        Ok(folder) => folder,
        Err(code) => return code,
    };
    let letters = match Inspector::open(&folder) {
        Ok(inspector) => inspector.dead_letters(),
        Err(error) => return fail(&error),
    };
    match letters {
        Ok(letters) if args.json => {
            out(&letters.iter().map(|letter| format!("{}\n", letter_json(letter))).collect::<String>())
        }
        Ok(letters) if letters.is_empty() => out("There are no dead letters.\n"),
        Ok(letters) => out(&table(&letters)),
        Err(error) => fail(&error),
    }
}

fn table(letters: &[DeadLetter]) -> String {
    let mut text = format!("{:>12}  {:<19}  {:<12}  {:<16}  reason\n", "sequence", "received", "source", "topic");
    for letter in letters {
        let (source, topic, payload) = match &letter.body {
            Body::Reading(reading) => (&*reading.source, reading.topic.as_str(), preview(&reading.payload)),
            Body::Dead(dead) => (&*dead.source, dead.topic.as_str(), preview(&dead.payload)),
            Body::Gap(_) | Body::Daily(_) => ("", "", String::new()),
        };
        let time = local_time(received(&letter.body).wall_ms);
        text.push_str(&format!(
            "{:>12}  {time:<19}  {source:<12}  {topic:<16}  {}\n{:14}{payload}\n",
            letter.sequence, letter.reason, ""
        ));
    }
    text
}

fn letter_json(letter: &DeadLetter) -> serde_json::Value {
    let mut value = body_json(&letter.body);
    if let Some(object) = value.as_object_mut() {
        object.insert("queue_id".into(), letter.queue_id.to_string().into());
        object.insert("sequence".into(), letter.sequence.into());
        object.insert("reason".into(), letter.reason.clone().into());
        object.insert("set_aside".into(), rfc3339(letter.set_aside.wall_ms).into());
    }
    value
}
