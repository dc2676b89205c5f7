//! Children of this binary: the sample upstream, the hub and the gateway.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a child may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(5);

/// A child; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Process {
    /// Starts `tidegate ROLE ARGUMENTS`; what it says goes to `folder/NAME.log`.
    pub(super) fn start<A: AsRef<OsStr>>(
        name: &'static str,
        folder: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(std::env::current_exe().context("cannot tell where this program is")?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        Ok(Self { child, name, log })
    }

    /// Waits until it takes connections on `address`.
    pub(super) async fn wait_listening(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_))) {
            self.lives()?;
            if Instant::now() > deadline {
                bail!("the {} does not listen on {address}; see {}", self.name, self.log.display());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// An error where it has ended by itself.
    pub(super) fn lives(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("the {} ended with {status}, and nobody had asked it to; see {}", self.name, self.log.display())
            }
        }
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("cannot kill the {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for the {}", self.name)).map(drop)
    }

    /// SIGTERM: it drains, and ends by itself.
    pub(super) fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        rustix::process::kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop the {}", self.name))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the {} did not end within {PATIENCE:?}; see {}", self.name, self.log.display());
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only where it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that nobody listens on at this moment.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
    Ok(listener.local_addr()?)
}
