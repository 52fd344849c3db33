//! Where things lie: the data root survives the boot, the run root does not.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The two roots and the names below them.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    data: PathBuf,
    run: PathBuf,
}

impl Paths {
    /// Makes the roots where they are missing, closed to everybody else. Blocking.
    pub(crate) fn open(data: &Path, run: &Path) -> Result<Self> {
        let paths = Self {
            data: data.to_owned(),
            run: run.to_owned(),
        };
        // Images hold set-uid programs: no user of the host may reach below the data root.
        ensure(data, 0o710)?;
        ensure(run, 0o711)?;
        ensure(&paths.containers(), 0o700)?;
        ensure(&paths.trash(), 0o700)?;
        ensure(&paths.run_containers(), 0o700)?;
        Ok(paths)
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }
    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("db.sqlite")
    }
    pub(crate) fn events(&self) -> PathBuf {
        self.run.join("events")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }
    /// Moved here, a directory is gone for everybody; emptied in the background.
    pub(crate) fn trash(&self) -> PathBuf {
        self.data.join("trash")
    }
    /// What a container keeps over its runs.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
    pub(crate) fn log_name(id: &str) -> String {
        format!("{id}-json.log")
    }
    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(Self::log_name(id))
    }
    pub(crate) fn run_containers(&self) -> PathBuf {
        self.run.join("containers")
    }
    /// What one run of a container needs.
    pub(crate) fn run_container(&self, id: &str) -> PathBuf {
        self.run_containers().join(id)
    }
}

fn ensure(path: &Path, mode: u32) -> Result<()> {
    let fail = |e: io::Error| {
        Error::unavailable(format!("cannot prepare the directory {}", path.display()))
            .with_source(e)
    };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(fail)?;
    let found = std::fs::metadata(path).map_err(fail)?.permissions().mode() & 0o777;
    if found & !mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    }
    Ok(())
}

/// Removes a tree; one that is not there is removed already.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directories right below `path`, by name.
pub(crate) fn subdirectories(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
