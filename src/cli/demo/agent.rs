//! The agent as a child process: started, killed, stopped.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Beyond the agent's own `stop_timeout`.
const STOP: Duration = Duration::from_secs(15);

/// How long the kernel may take to end a killed process.
const KILL: Duration = Duration::from_secs(10);

/// `meterferry run` as a child. It is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    executable: PathBuf,
    configuration: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// The agent did not do what the story wants.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent cannot be started")]
    Start(#[source] io::Error),
    #[error("the agent ended by itself ({0})")]
    Ended(ExitStatus),
    #[error("the agent was asked to stop and ended badly ({0})")]
    EndedBadly(ExitStatus),
    #[error("the agent did not end within {} s", .0.as_secs())]
    Stubborn(Duration),
    #[error("the agent's process cannot be waited for")]
    Wait(#[source] io::Error),
    #[error("the agent does not run")]
    NotRunning,
}

impl Agent {
    /// Nothing is started yet. Its standard error goes to `log`.
    pub fn new(executable: PathBuf, configuration: PathBuf, log: PathBuf) -> Self {
        Self { executable, configuration, log, child: None }
    }

    /// Starts it; returns its process id.
    pub fn start(&mut self) -> Result<u32, AgentError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(AgentError::Start)?;
        let child = Command::new(&self.executable)
            .arg("run")
            // A demo that is killed leaves no agent behind.
            .arg("--with-parent")
            .arg("--config")
            .arg(&self.configuration)
            // Nothing of the surroundings (a service manager's socket, folders) is meant for this agent.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C in the terminal is for the demo, which then ends its agent in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(AgentError::Start)?;
        let pid = child.id().unwrap_or_default();
        self.child = Some(child);
        Ok(pid)
    }

    /// An error if it ended although nobody asked it to.
    pub fn check(&mut self) -> Result<(), AgentError> {
        let child = self.child.as_mut().ok_or(AgentError::NotRunning)?;
        match child.try_wait().map_err(AgentError::Wait)? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                Err(AgentError::Ended(status))
            }
        }
    }

    /// SIGKILL; returns when the process is gone.
    pub async fn kill(&mut self) -> Result<(), AgentError> {
        self.check()?;
        let mut child = self.child.take().ok_or(AgentError::NotRunning)?;
        child.start_kill().map_err(AgentError::Wait)?;
        match timeout(KILL, child.wait()).await {
            Ok(ended) => ended.map(drop).map_err(AgentError::Wait),
            Err(_) => Err(AgentError::Stubborn(KILL)),
        }
    }

    /// SIGTERM, and SIGKILL if that takes too long. Nothing where it does not run.
    pub async fn stop(&mut self) -> Result<(), AgentError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Gone already is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        match timeout(STOP, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(AgentError::EndedBadly(status)),
            Ok(Err(error)) => Err(AgentError::Wait(error)),
            Err(_) => {
                let _ = timeout(KILL, child.kill()).await;
                Err(AgentError::Stubborn(STOP))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn script(folder: &Path, text: &str) -> Agent {
        let path = folder.join("agent");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        Agent::new(path, folder.join("meterferry.toml"), folder.join("log"))
    }

    /// Promise 9: an agent that ends by itself is noticed, and what it said is in the log.
    #[tokio::test]
    async fn an_agent_that_ends_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut agent = script(folder.path(), "echo \"$@\" >&2; exit 3");
        agent.start().expect("started");
        let error = loop {
            match agent.check() {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "the agent ended by itself (exit status: 3)");
        let log = fs::read_to_string(folder.path().join("log")).expect("a log");
        assert!(log.starts_with("run --with-parent --config ") && log.ends_with("meterferry.toml\n"), "{log}");
        assert!(matches!(agent.kill().await, Err(AgentError::NotRunning)));
        agent.stop().await.expect("nothing to stop");
    }

    /// "Leaves no process": neither killed, stopped nor forgotten.
    #[tokio::test]
    async fn no_process_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut agent = script(folder.path(), "exec sleep 600");
        let gone = |pid: u32| kill(Pid::from_raw(pid as i32), None).is_err();
        let pid = agent.start().expect("started");
        agent.check().expect("it runs");
        agent.kill().await.expect("killed");
        assert!(gone(pid));
        let pid = agent.start().expect("started");
        assert!(matches!(agent.stop().await, Err(AgentError::EndedBadly(_))), "SIGTERM ends sleep by signal");
        assert!(gone(pid));
    }
}
