//! The arbiter as a directory that both sides reach: a file for each transfer, of which the first link wins.

use super::store::{Middle, make_dir, sync_dir};
use crate::Failure;
use exeunt::migrate::{Arbiter, Side, TransferId};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How often this process has asked: no two who ask write the same file.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Decisions in a directory.
pub(crate) struct Directory<'a> {
    dir: PathBuf,
    middle: Middle<'a>,
}

impl<'a> Directory<'a> {
    pub(crate) fn new(dir: &Path, middle: Middle<'a>) -> Self {
        Self { dir: dir.to_owned(), middle }
    }

    /// Makes the directory if it is not there, for a transfer that begins. Whoever recovers does not make one: in a directory
    /// that is not the arbiter's each side is the first to ask.
    pub(crate) fn make(dir: &Path) -> Result<(), Failure> {
        make_dir(dir).map_err(|error| format!("cannot open the arbiter {}: {error}", dir.display()))
    }

    fn try_decide(&self, transfer: TransferId, me: Side) -> std::io::Result<Side> {
        let decision = self.dir.join(transfer.to_string());
        let (process, count) = (std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed));
        let mine = self.dir.join(format!("{transfer}.{me}.{process}.{count}"));
        // One that a killed process of this number left behind may be the decision by another name.
        match fs::remove_file(&mine) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::create_new(&mine)?;
        writeln!(file, "{me}")?;
        file.sync_all()?;
        (self.middle)();
        // A link is made or is there already: no one can see half of a decision, and there is one.
        let linked = fs::hard_link(&mine, &decision);
        // The name that is left over says nothing.
        let _ = fs::remove_file(&mine);
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // Also who reads the other's decision makes it durable before it acts on it.
        sync_dir(&self.dir)?;
        let mut text = String::new();
        File::open(&decision)?.take(64).read_to_string(&mut text)?;
        match text.as_str() {
            "source\n" => Ok(Side::Source),
            "target\n" => Ok(Side::Target),
            _ => Err(std::io::Error::new(ErrorKind::InvalidData, "the decision names neither side")),
        }
    }
}

impl Arbiter for Directory<'_> {
    type Error = Failure;

    fn decide(&mut self, transfer: TransferId, me: Side) -> Result<Side, Failure> {
        self.try_decide(transfer, me)
            .map_err(|error| format!("the arbiter {} did not decide: {error}", self.dir.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn of_many_who_ask_at_once_one_side_wins_and_all_hear_the_same() {
        let dir = std::env::temp_dir().join(format!("exeunt-arbiter-{}", std::process::id()));
        Directory::make(&dir).unwrap();
        for round in 0..20 {
            let transfer = TransferId([round; 16]);
            let barrier = Barrier::new(8);
            let heard: Vec<Side> = std::thread::scope(|scope| {
                let ask = |index: usize| {
                    barrier.wait();
                    let me = [Side::Source, Side::Target][index % 2];
                    Directory::new(&dir, &|| {}).decide(transfer, me).unwrap()
                };
                let threads: Vec<_> = (0..8).map(|index| scope.spawn(move || ask(index))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(heard.iter().all(|side| *side == heard[0]), "{heard:?}");
            for me in [Side::Source, Side::Target] {
                assert_eq!(Directory::new(&dir, &|| {}).decide(transfer, me), Ok(heard[0]));
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_decides_nothing_and_is_not_made() {
        let dir = std::env::temp_dir().join(format!("exeunt-arbiter-elsewhere-{}", std::process::id()));
        for me in [Side::Source, Side::Target] {
            let error = Directory::new(&dir, &|| {}).decide(TransferId([3; 16]), me).unwrap_err();
            assert!(error.contains("did not decide"), "{error}");
        }
        assert!(!dir.exists(), "each side would be the first to ask");
    }

    #[test]
    fn a_file_that_a_killed_process_of_this_number_left_behind_is_not_written_through() {
        let dir = std::env::temp_dir().join(format!("exeunt-arbiter-left-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let transfer = TransferId([2; 16]);
        let decision = dir.join(transfer.to_string());
        fs::write(&decision, "target\n").unwrap();
        // It was killed between the link and the removal, so that its file is the decision by another name.
        let count = ASKED.load(Ordering::Relaxed);
        for count in count..count + 1000 {
            fs::hard_link(&decision, dir.join(format!("{transfer}.source.{}.{count}", std::process::id())))
                .unwrap();
        }
        assert_eq!(Directory::new(&dir, &|| {}).decide(transfer, Side::Source), Ok(Side::Target));
        assert_eq!(fs::read_to_string(&decision).unwrap(), "target\n");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_decision_that_cannot_be_read_is_no_decision() {
        let dir = std::env::temp_dir().join(format!("exeunt-arbiter-broken-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for text in ["", "source", "nobody\n", "target\ntarget\n"] {
            fs::write(dir.join(TransferId([1; 16]).to_string()), text).unwrap();
            let error = Directory::new(&dir, &|| {}).decide(TransferId([1; 16]), Side::Target).unwrap_err();
            assert!(error.contains("names neither side"), "{error}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
