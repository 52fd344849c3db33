//! Removal in two steps: a rename that takes a microsecond and frees the name, and a thread that
//! empties the trash when nobody waits. What a crash leaves there goes at the next start.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use berth_sys::at;

use crate::error::{Context, Error, Result};
use crate::root::open_dir;
use crate::tree::{os, remove};

#[derive(Debug)]
enum Order {
    /// Empty the trash.
    Empty,
    /// Say when everything ordered so far is done.
    Report(Sender<()>),
}

/// The trash and its thread.
#[derive(Debug)]
pub(crate) struct Trash {
    dir: OwnedFd,
    path: PathBuf,
    orders: Sender<Order>,
}

impl Trash {
    /// Takes over the trash directory and begins to empty it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let dir = open_dir(path)?;
        let own = open_dir(path)?;
        let (orders, received) = channel();
        std::thread::Builder::new()
            .name("berth-trash".to_owned())
            .spawn(move || {
                while let Ok(order) = received.recv() {
                    match order {
                        Order::Empty => empty(&own),
                        // Whoever asked may be gone.
                        Order::Report(to) => drop(to.send(())),
                    }
                }
            })
            .doing(|| "start a thread".to_owned())?;
        let trash = Trash {
            dir,
            path: path.to_owned(),
            orders,
        };
        trash.order_empty();
        Ok(trash)
    }

    /// Moves a directory or file of the store into the trash. Gives `false` when it was not there.
    pub(crate) fn take(&self, path: &Path) -> Result<bool> {
        let doing = || format!("move {} to the trash", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Io {
                what: doing(),
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        };
        let parent = open_dir(parent)?;
        let mut random = [0; 8];
        loop {
            berth_sys::random::fill(&mut random).doing(doing)?;
            match at::rename_new_at(&parent, name, &self.dir, hex::encode(random)) {
                Ok(()) => break,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(Error::Io {
                        what: doing(),
                        source,
                    });
                }
            }
        }
        self.order_empty();
        Ok(true)
    }

    fn order_empty(&self) {
        // The thread ends only with this value; should it have died, the next start empties.
        if self.orders.send(Order::Empty).is_err() {
            tracing::error!(path = %self.path.display(), "the trash is not being emptied");
        }
    }

    /// Waits until everything that is in the trash now has been removed, or has failed to be.
    pub(crate) fn wait(&self) {
        let (done, told) = channel();
        if self.orders.send(Order::Report(done)).is_ok() {
            let _ = told.recv();
        }
    }
}

fn empty(trash: &OwnedFd) {
    let names = match at::names(trash) {
        Ok(names) => names,
        Err(error) => {
            tracing::error!(%error, "cannot list the trash, ignoring");
            return;
        }
    };
    for name in names {
        // One that cannot be removed must not keep the others.
        if let Err(error) = remove::remove(trash, &name) {
            tracing::warn!(%error, name = %os(&name).display(), "cannot remove from the trash, will be tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("trash");
        std::fs::create_dir_all(path.join("left/over")).unwrap();
        let trash = Trash::open(&path).unwrap();
        for round in 0..3 {
            let victim = root.path().join("victim");
            std::fs::create_dir_all(victim.join("a/b")).unwrap();
            std::fs::write(victim.join("a/f"), [round]).unwrap();
            assert!(trash.take(&victim).unwrap());
            assert!(!trash.take(&victim).unwrap());
        }
        trash.wait();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
