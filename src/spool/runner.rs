//! Keeps the child at work: starts one when there is something to do, tells it what earlier ones failed at, and lets
//! it go when nothing is left. Owned by the writer thread.

use std::io;
use std::time::Duration;

use crate::clock::Reading;
use crate::spool::Program;
use crate::spool::backlog::Stock;
use crate::spool::child::Link;
use crate::spool::suspects::Suspects;
use crate::spool::wire::{Known, Reply, Report, Request, Setup};

/// A child with nothing to do is let go after this.
const LINGER: Duration = Duration::from_secs(1);

/// The child, if one runs, and what the next one needs to know.
#[derive(Debug)]
pub(super) struct Runner {
    program: Program,
    setup: Setup,
    link: Option<Link>,
    used: Duration,
    /// What has left the generations, for the next child.
    left: Vec<(u32, Stock)>,
    suspects: Suspects,
    /// What children reported that the writer has not looked at yet.
    heard: Vec<Report>,
}

impl Runner {
    pub(super) fn new(program: Program, setup: Setup) -> Self {
        let (left, suspects, heard) = (Vec::new(), Suspects::default(), Vec::new());
        Self { program, setup, link: None, used: Duration::ZERO, left, suspects, heard }
    }

    /// Has a child do something; `beat` is called while it does. After an error there is none; what was reported before
    /// it holds all the same.
    pub(super) fn ask(&mut self, request: &Request, beat: &dyn Fn()) -> io::Result<Reply> {
        let now = Reading::now();
        if self.link.as_ref().is_some_and(Link::is_worn) {
            self.release();
        }
        let mut link = match self.link.take() {
            Some(link) => link,
            None => {
                let mut link = Link::start(&self.program)?;
                let (condemned, unsynced) = (self.suspects.condemned(), self.suspects.unsynced());
                let known = Known { left: self.left.clone(), condemned, unsynced };
                let open = Request::Open { setup: self.setup.clone(), known, now_ms: now.wall_ms };
                self.speak(&mut link, &open, beat)?;
                self.suspects.opened();
                link
            }
        };
        let reply = self.speak(&mut link, request, beat)?;
        self.suspects.read(link.generation());
        self.used = Reading::now().boot;
        self.link = Some(link);
        Ok(reply)
    }

    /// The frame that follows [`Reply::File`].
    pub(super) fn bytes(&mut self, beat: &dyn Fn()) -> io::Result<Vec<u8>> {
        let bytes = self.link.as_mut().ok_or(io::ErrorKind::NotConnected)?.bytes(beat);
        bytes.inspect_err(|_| self.link = None) // half read, it is of no more use
    }

    /// What was reported since the last call, oldest first.
    pub(super) fn heard(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.heard)
    }

    /// Whether what cannot be read of the open logs is to be given up.
    pub(super) fn gives_up_logs(&self) -> bool {
        self.suspects.logs()
    }

    /// A seal was done.
    pub(super) fn sealed(&mut self) {
        self.suspects.sealed();
    }

    /// Whether a child runs.
    pub(super) fn is_running(&self) -> bool {
        self.link.is_some()
    }

    /// Lets the child go if it has had nothing to do for a while.
    pub(super) fn tire(&mut self, now: Duration) {
        if now.saturating_sub(self.used) >= LINGER {
            self.release();
        }
    }

    /// Lets the child go.
    pub(super) fn release(&mut self) {
        if let Some(link) = self.link.take() {
            link.close();
        }
    }

    /// One request and its answer. After an error the child is of no more use.
    fn speak(&mut self, link: &mut Link, request: &Request, beat: &dyn Fn()) -> io::Result<Reply> {
        let reply = link.ask(request, beat).inspect_err(|error| {
            let blame = link.blame(error);
            self.suspects.failed(blame, link.generation());
        })?;
        match &reply {
            Reply::Done(report) | Reply::NoFile(report) | Reply::File { report, .. } => {
                self.left.clone_from(&report.left);
                self.heard.push(report.clone());
            }
            Reply::Failed { why, blame } => {
                self.suspects.failed(*blame, link.generation());
                return Err(io::Error::other(why.clone()));
            }
            Reply::Opening(_) | Reply::Opened(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(reply)
    }
}
