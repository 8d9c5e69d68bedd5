//! meterferry(1) and a page for each subcommand, from clap's own description of the command line.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use jiff::Timestamp;
use meterferry::cli::Cli;

use crate::Outcome;
use crate::roff;

/// Every page, `meterferry-queue-status.1` for `meterferry queue status`.
pub fn pages(folder: &Path, date: &Timestamp) -> Outcome {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write(&command, folder, date)
}

fn write(command: &Command, folder: &Path, date: &Timestamp) -> Outcome {
    for subcommand in shown(command) {
        write(subcommand, folder, date)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    fs::write(folder.join(format!("{name}.1")), page(name, command, date)?)?;
    Ok(())
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set())
}

fn page(name: &str, command: &Command, date: &Timestamp) -> Outcome<String> {
    let man = Man::new(command.clone());
    let mut page = roff::title(name, 1, date).into_bytes();
    // One line, so that apropos finds it.
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default();
    page.extend(format!(".SH NAME\n{} \\- {}\n", roff::plain(name), roff::plain(about)).bytes());
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if shown(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    let more = command.get_after_long_help().or_else(|| command.get_after_help());
    page.extend(sections(&more.map(ToString::to_string).unwrap_or_default()).bytes());
    page.extend(see_also(name).bytes());
    Ok(String::from_utf8(page)?)
}

/// What stands behind the options in the help: "Examples:" and indented lines become a section, prose is filled.
fn sections(help: &str) -> String {
    let mut out = String::new();
    let mut prose = false;
    for block in help.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut lines = block.trim_start_matches('\n').lines();
        let first = lines.next().unwrap_or_default();
        match first.strip_suffix(':') {
            Some(heading) if block.contains("\n  ") => {
                out += &format!(".SH {}\n{}", roff::plain(&heading.to_uppercase()), roff::verbatim(lines));
                prose = false;
            }
            _ => {
                out += if prose { ".PP\n" } else { ".SH NOTES\n" };
                out += &block.trim().lines().map(|line| roff::plain(line) + "\n").collect::<String>();
                prose = true;
            }
        }
    }
    out
}

fn see_also(name: &str) -> String {
    let whole = if name == "meterferry" { "" } else { ".BR meterferry (1),\n" };
    format!(".SH SEE ALSO\n{whole}.BR meterferry.toml (5)\n")
}

/// Under the names that each shell looks for.
pub fn completions(folder: &Path) -> Outcome {
    for (shell, name) in [(Shell::Bash, "meterferry"), (Shell::Zsh, "_meterferry"), (Shell::Fish, "meterferry.fish")] {
        let mut file = fs::File::create(folder.join(name))?;
        clap_complete::generate(shell, &mut Cli::command(), "meterferry", &mut file);
    }
    Ok(())
}
