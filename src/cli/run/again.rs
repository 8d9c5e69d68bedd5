//! The same process, executed anew.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::SigSet;
use nix::unistd::execv;
use tracing::error;

/// Linux says so of a program whose file was replaced since its start (proc(5), `/proc/pid/exe`).
const REPLACED: &[u8] = b" (deleted)";

/// Executes this program anew, with the same arguments, environment and process number; where an upgrade has replaced it,
/// the new one. `hangup` is blocked until that one listens. Returns only if it fails, and then the service manager starts
/// the agent.
pub(super) fn execute(hangup: SigSet) -> ExitCode {
    match replace(hangup) {
        Ok(never) => match never {},
        Err(error) => {
            error!(%error, "the agent has stopped and cannot begin anew; it has to be started");
            ExitCode::FAILURE
        }
    }
}

fn replace(hangup: SigSet) -> io::Result<Infallible> {
    // A signal between the two would end the process.
    hangup.thread_block()?;
    let program = CString::new(program()?.into_os_string().into_vec())?;
    let arguments = std::env::args_os().map(|argument| CString::new(argument.into_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    Ok(execv(&program, &arguments)?)
}

fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(match own.as_os_str().as_bytes().strip_suffix(REPLACED) {
        Some(path) if !own.exists() => OsString::from_vec(path.to_owned()).into(),
        _ => own,
    })
}
