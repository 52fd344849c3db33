//! How fast the store takes images in and gives them out: `measure TAR DIRECTORY`.
//!
//! TAR is the archive of a root file system, DIRECTORY a scratch place on the file system to measure.
//! As root. Prints one line for each operation; nothing is left behind but an empty directory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use berth_storage::{ImportConfig, MountOptions, SaveImage, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(tar), Some(dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: measure TAR DIRECTORY".into());
    };
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    let mb = std::fs::metadata(&tar)?.len() as f64 / 1e6;
    let mut out = std::io::stdout();
    let mut tell = |what: &str, since: Instant, mb: f64| {
        let seconds = since.elapsed().as_secs_f64();
        writeln!(
            out,
            "{what:<28}{:>9.1} ms{:>9.0} MB/s",
            seconds * 1e3,
            mb / seconds
        )
    };

    let first = dir.join("first");
    let store = Store::open(&first, None)?;
    let start = Instant::now();
    let id = store.import(&mut File::open(&tar)?, ImportConfig::default())?;
    tell("import", start, mb)?;

    let saved = dir.join("saved.tar");
    let start = Instant::now();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&saved)?);
    store.save(
        &[SaveImage {
            id,
            refs: Vec::new(),
        }],
        &mut file,
    )?;
    file.flush()?;
    tell("save", start, mb)?;
    let start = Instant::now();
    store.save(
        &[SaveImage {
            id,
            refs: Vec::new(),
        }],
        &mut std::io::sink(),
    )?;
    tell("save to nowhere", start, mb)?;

    let second = dir.join("second");
    let store = Store::open(&second, None)?;
    let start = Instant::now();
    store.load(&mut File::open(&saved)?, &mut |_| {})?;
    tell("load", start, mb)?;
    let start = Instant::now();
    store.load(&mut File::open(&saved)?, &mut |_| {})?;
    tell("load again", start, mb)?;

    for (name, options) in [
        ("a", MountOptions::default()),
        ("b", MountOptions { volatile: true }),
    ] {
        let start = Instant::now();
        store.snapshot_create(name, Some(&id))?;
        tell("snapshot made", start, 0.0)?;
        let start = Instant::now();
        let mount = store.snapshot_mount(name, &options)?;
        tell("snapshot mounted", start, 0.0)?;
        drop(mount);
        let start = Instant::now();
        store.snapshot_remove(name)?;
        tell("snapshot removed", start, 0.0)?;
    }
    drop(store);
    let start = Instant::now();
    let store = Store::open(&second, None)?;
    tell("open", start, 0.0)?;
    store.remove_image(&id)?;
    let start = Instant::now();
    store.settle();
    tell("image emptied out", start, mb)?;
    drop(store);
    std::fs::remove_dir_all(&first)?;
    std::fs::remove_dir_all(&second)?;
    std::fs::remove_file(&saved)?;
    Ok(())
}
