//! A command: a profile with its placeholders filled in.

use super::fill::{self, Piece, Placeholder};
use super::{Profile, ProfileError, program};
use exeunt_linux::host_c_bit;
use exeunt_linux::image::ImageFile;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// How a VMM is started, and what it reads. The files are gone with this value.
#[derive(Debug)]
pub struct Command {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables of its environment, besides those of this process.
    pub env: Vec<(OsString, OsString)>,
    /// What the arguments name.
    files: Vec<ImageFile>,
}

impl Command {
    /// How many guest images and texts were made for it.
    #[must_use]
    pub fn made(&self) -> usize {
        self.files.len()
    }
}

impl Profile {
    /// The command for a program, or for the profile's own if none is named. The user's arguments come last, so that
    /// where a VMM takes an option twice the user's holds.
    ///
    /// # Errors
    ///
    /// There is no such program; a file is not found; an image cannot be made.
    pub fn command(&self, program: Option<&OsStr>, user_args: &[OsString]) -> Result<Command, ProfileError> {
        let wanted = program.unwrap_or(OsStr::new(&self.program));
        let program = program::find(wanted).ok_or_else(|| ProfileError::NoProgram {
            profile: self.name.clone(),
            program: wanted.to_string_lossy().into_owned(),
        })?;
        // The folder of the file itself: a link to it may be anywhere.
        let real = program.canonicalize().unwrap_or_else(|_| program.clone());
        let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
        let mut filler = Filler { profile: self, folder, files: Vec::new() };
        let mut args = Vec::new();
        for arg in &self.args {
            args.push(filler.fill(arg)?);
        }
        args.extend_from_slice(user_args);
        let mut env = Vec::new();
        for (name, value) in &self.env {
            env.push((name.into(), filler.fill(value)?));
        }
        Ok(Command { program, args, env, files: filler.files })
    }
}

struct Filler<'a> {
    profile: &'a Profile,
    folder: PathBuf,
    files: Vec<ImageFile>,
}

impl Filler<'_> {
    fn fill(&mut self, text: &str) -> Result<OsString, ProfileError> {
        let invalid =
            |message| ProfileError::Invalid { origin: self.profile.name.clone(), key: text.into(), message };
        let mut filled = OsString::new();
        for piece in fill::pieces(text).map_err(invalid)? {
            match piece {
                Piece::Text(text) => filled.push(text),
                Piece::Hole(Placeholder::ProgramDir) => filled.push(&self.folder),
                Piece::Hole(Placeholder::HostCBit) => filled.push(host_c_bit().to_string()),
                Piece::Hole(Placeholder::File(name)) => filled.push(self.find(&name)?),
                Piece::Hole(Placeholder::Image { kind, options }) => {
                    filled.push(self.keep(kind.name(), &kind.build(options))?);
                }
                Piece::Hole(Placeholder::Text(name)) => {
                    let text = self.profile.texts.get(&name).cloned().unwrap_or_default();
                    let text = self.fill(&text)?;
                    filled.push(self.keep(&name, text.as_encoded_bytes())?);
                }
            }
        }
        Ok(filled)
    }

    fn keep(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf, ProfileError> {
        let failed =
            |error: std::io::Error| ProfileError::Image { what: name.into(), reason: error.to_string() };
        let file = ImageFile::with_bytes(name, bytes).map_err(failed)?;
        let path = file.path();
        self.files.push(file);
        Ok(path)
    }

    fn find(&mut self, name: &str) -> Result<PathBuf, ProfileError> {
        let mut folders = Vec::new();
        for folder in &self.profile.files_in {
            let folder = PathBuf::from(self.fill(folder)?);
            folders.push(match (folder.strip_prefix("~"), std::env::var_os("HOME")) {
                (Ok(below), Some(home)) => Path::new(&home).join(below),
                _ => folder,
            });
        }
        let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            let help = self.profile.help.clone();
            let help = help.unwrap_or_else(|| "copy the profile and name its folder in files-in".into());
            ProfileError::NoFile { file: name.into(), folders: folders.join(", "), help }
        })
    }
}
