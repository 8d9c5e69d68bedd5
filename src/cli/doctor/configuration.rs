//! The configuration: what is wrong with it, and whether the agent may read what the doctor has read.

use std::fs;
use std::path::{Path, PathBuf};

use super::account::{Account, ENTER, Owned, READ, name_of};
use super::check::Check;
use crate::config::{Loaded, Problem, Problems};

/// A right one: its files, its warnings, and what the agent's user may not read.
pub fn right(loaded: &Loaded, account: &Account, agent: Check) -> Vec<Check> {
    let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
    let mut checks = vec![Check::ok("file", files.join(", ")), agent];
    checks.extend(loaded.warnings.iter().map(|warning| problem(warning, Check::warning)));
    let hidden = loaded.files.iter().chain(&loaded.named).filter_map(|file| hidden(file, account));
    checks.extend(hidden);
    checks
}

/// A wrong one.
pub fn wrong(problems: &Problems) -> Vec<Check> {
    let errors = problems.errors.iter().map(|error| problem(error, Check::wrong));
    errors.chain(problems.warnings.iter().map(|warning| problem(warning, Check::warning))).collect()
}

fn problem(problem: &Problem, make: impl Fn(String, String, String) -> Check) -> Check {
    let check = make("problem".to_owned(), problem.text(), problem.hint.clone().unwrap_or_default());
    if problem.hint.is_some() { check } else { check.plain() }
}

/// A file that only the doctor may read.
fn hidden(file: &Path, account: &Account) -> Option<Check> {
    let owned = |path: &Path| fs::metadata(path).ok().map(|metadata| Owned::of(&metadata));
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let above = file.ancestors().skip(1).filter_map(|above| Some((above.to_owned(), owned(above)?, ENTER)));
    let itself = owned(&file).map(|owned| (file.clone(), owned, READ));
    // systemd hands credentials to the service alone, whatever their modes say here.
    let credential = file.starts_with("/run/credentials");
    let all: Vec<_> = above.chain(itself).collect();
    let closed = all.into_iter().find(|(_, owned, wanted)| !credential && !account.may(*owned, *wanted))?;
    Some(not_readable(&file, &closed, account))
}

fn not_readable(file: &Path, (closed, owned, _): &(PathBuf, Owned, u32), account: &Account) -> Check {
    let (who, shown) = (&account.name, file.display());
    let owner = name_of(owned.uid);
    let message = match closed == file {
        true => format!("{who} may not read {shown}, which belongs to {owner} with mode {:04o}", owned.mode),
        false => {
            format!("{who} may not read {shown}: {} belongs to {owner} with mode {:04o}", closed.display(), owned.mode)
        }
    };
    match closed == file {
        true => Check::wrong("file", message, "let the agent's group read it, or use systemd's LoadCredential=")
            .run(format!("sudo chgrp {who} {shown} && sudo chmod 0640 {shown}")),
        false => Check::wrong("file", message, "move the file to /etc/meterferry, or let others pass the folder")
            .run(format!("sudo chmod a+x {}", closed.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::print::shown;
    use super::*;

    /// Promise 9: what the agent's user may not read is named, though root may read it.
    #[test]
    fn files_that_only_root_may_read() {
        let account = Account { name: "meterferry".into(), uid: 990, gids: vec![990] };
        let owned = Owned { uid: 0, gid: 0, mode: 0o600 };
        let file = Path::new("/etc/meterferry/password");
        let of =
            |closed: &Path, mode| not_readable(file, &(closed.to_owned(), Owned { mode, ..owned }, READ), &account);
        insta::assert_snapshot!(shown(vec![of(file, 0o600), of(Path::new("/etc/meterferry"), 0o700)]));
    }
}
