//! Reports in files: a file has its old content or the whole new one, and one that cannot be written is found before
//! anything runs.

use super::Args;
use crate::Failure;
use exeunt_check::judgement::{self, Report};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// How a report is made.
type Make = fn(&Report) -> Result<String, serde_json::Error>;

/// The files that are asked for.
pub(super) struct Outputs(Vec<Output>);

struct Output {
    /// As it was given, for messages.
    name: PathBuf,
    place: Place,
    make: Make,
}

enum Place {
    /// A file, whether it is there or not: a new one takes its name.
    File(PathBuf),
    /// A device, a pipe: it is written to and stays what it is.
    Stream(PathBuf),
}

impl Outputs {
    /// Finds out whether each can be written.
    pub(super) fn new(args: &Args) -> Result<Self, Failure> {
        let asked: [(&Option<PathBuf>, Make); 3] = [
            (&args.junit, |report| Ok(judgement::junit(report))),
            (&args.sarif, judgement::sarif),
            (&args.html, |report| Ok(judgement::html(report))),
        ];
        let mut outputs: Vec<Output> = Vec::new();
        for (name, make) in asked {
            let Some(name) = name else { continue };
            let place = Place::of(name).map_err(|error| cannot_write(name, &error))?;
            if let Place::File(path) = &place {
                let is_same = |output: &&Output| matches!(&output.place, Place::File(other) if other == path);
                if let Some(other) = outputs.iter().find(is_same) {
                    let (name, other) = (shown(name), shown(&other.name));
                    return Err(format!("two reports would be one file: {other} and {name}"));
                }
            }
            outputs.push(Output { name: name.clone(), place, make });
        }
        Ok(Self(outputs))
    }

    /// Writes all of them.
    pub(super) fn write(&self, report: &Report) -> Result<(), Failure> {
        for Output { name, place, make } in &self.0 {
            let text = make(report).map_err(|error| format!("cannot make {}: {error}", shown(name)))?;
            place.write(text.as_bytes()).map_err(|error| cannot_write(name, &error))?;
        }
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    crate::one_line(&path.to_string_lossy())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    format!("cannot write {}: {error}", shown(path))
}

impl Place {
    fn of(name: &Path) -> io::Result<Self> {
        match fs::metadata(name) {
            Ok(found) if found.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            // Names of open files among them, which a rename would not reach.
            Ok(found) if !found.is_file() || name.starts_with("/dev") || name.starts_with("/proc") => {
                // Without a reader, to open a pipe takes until there is one.
                if !found.file_type().is_fifo() {
                    OpenOptions::new().write(true).open(name)?;
                }
                Ok(Self::Stream(name.into()))
            }
            Ok(_) => {
                // A link is followed, so that the file behind it is replaced. One that nobody may write to is not.
                let path = fs::canonicalize(name)?;
                OpenOptions::new().write(true).open(&path)?;
                Self::file(path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name_in_folder = name.file_name().ok_or(error)?;
                Self::file(fs::canonicalize(folder(name))?.join(name_in_folder))
            }
            Err(error) => Err(error),
        }
    }

    /// A file can be made beside the one that is to be replaced.
    fn file(path: PathBuf) -> io::Result<Self> {
        drop(Temporary::new(&path)?);
        Ok(Self::File(path))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(path) => {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.write_all(bytes)
            }
            Self::File(path) => {
                let mut temporary = Temporary::new(path)?;
                temporary.file.write_all(bytes)?;
                // A full disk may tell only now.
                temporary.file.sync_all()?;
                temporary.rename(path)
            }
        }
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// How many names are tried for a new file.
const TRIES: u32 = 100;

/// A new file in the folder of another, gone when this is dropped.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn new(beside: &Path) -> io::Result<Self> {
        let process = std::process::id();
        for number in 0..TRIES {
            let path = folder(beside).join(format!(".exeunt-{process}-{number}.tmp"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| Self { path, file }),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn rename(self, to: &Path) -> io::Result<()> {
        // What is dropped afterwards is gone already.
        fs::rename(&self.path, to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone if it took its name, and there is nobody to tell if not.
        let _ = fs::remove_file(&self.path);
    }
}
