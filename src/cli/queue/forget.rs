//! `meterferry queue forget`

use std::process::ExitCode;

use serde_json::json;

use super::Folder;
use crate::agent::ingest::Withheld;
use crate::cli::progress::{Progress, Unit};
use crate::cli::units::count;
use crate::cli::{Global, fail, out, terminal};
use crate::queue::OpenError;
use crate::queue::forget::{self, ForgetError, Forgotten};

const EXAMPLES: &str = "\
Examples:
  systemctl stop meterferry && meterferry queue forget --device 90296857 && systemctl start meterferry
  meterferry queue forget --device \"flat 3\" --device \"flat 4\"

A device's readings that wait are never sent; gap records say in Kafka that they are missing, not what they
were. Its readings that were sent and are still on the disk, and its dead letters, are deleted too; messages
that could not be decoded name no device: see meterferry dead-letters. With privacy.pseudonym_key_file the
device may be named as it calls itself. What is in Kafka already is deleted there. The source goes on
reading a device that is still there: take it out of the configuration, too.

Exit codes:
  0   nothing of it is left
  1   it could not be done, or an agent has the queue
  78  the configuration is wrong";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// The device's name, as it is the key in Kafka; may be given several times
    #[arg(long = "device", value_name = "NAME", required = true)]
    devices: Vec<String>,
    /// One JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, ExitCode> {
    let (options, settings) = args.folder.options(global)?;
    let mut names = args.devices.clone();
    if let Some(settings) = &settings {
        let withheld = Withheld::new(&settings.privacy);
        names.extend(args.devices.iter().map(|device| withheld.device(device.clone())));
    }
    let forgotten = {
        let mut bar = Progress::new("forgetting", 0, Unit::Records);
        let is_meant = |reading: &crate::reading::Reading| names.contains(&reading.device);
        let done = forget::forget(&options, &is_meant, |done, of| {
            bar.of(of as u64);
            bar.at(done as u64);
        });
        done.map_err(failed)?
    };
    Ok(out(&if args.json { format!("{}\n", forgotten_json(&forgotten)) } else { text(&forgotten) }))
}

fn failed(error: ForgetError) -> ExitCode {
    match error {
        ForgetError::Open(OpenError::Locked { path, pid }) => {
            terminal::fail(format_args!(
                "an agent (process {pid}) has the queue in {}\n  hint: systemctl stop meterferry, and again",
                path.display()
            ));
            ExitCode::FAILURE
        }
        error @ ForgetError::NotClosed => {
            terminal::fail(format_args!(
                "{error}\n  hint: systemctl start meterferry; systemctl stop meterferry, and again"
            ));
            ExitCode::FAILURE
        }
        error => fail(&error),
    }
}

fn text(forgotten: &Forgotten) -> String {
    if *forgotten == Forgotten::default() {
        return "There was nothing of it.\n".to_owned();
    }
    format!("{} readings and {} dead letters are gone.\n", count(forgotten.readings), count(forgotten.dead_letters))
}

fn forgotten_json(forgotten: &Forgotten) -> serde_json::Value {
    json!({ "readings": forgotten.readings, "dead_letters": forgotten.dead_letters })
}
