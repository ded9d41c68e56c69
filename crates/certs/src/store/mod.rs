//! Certificates of a fleet: a store that hosts publish to and fetch from.
//!
//! ```text
//! chips/<chip>/<tcb>/<sha256>.table    a table, written once
//! current/<chip>.json                  which one of them is the host's now: changed only by who has seen the last one
//! ```
//!
//! A VLEK belongs to a cloud service provider and not to a chip; its tables are below `csp/`.

#[cfg(all(test, feature = "s3"))]
mod fake_s3;
mod location;
mod pointer;
#[cfg(feature = "s3")]
mod s3;

pub use location::Location;
pub use pointer::{FORMAT, Pointer, PointerError};

use crate::chain::{Chain, ChainError};
use crate::clock::Clock;
use crate::file::{FileError, FileLock, Mode};
use crate::identity::{ChipId, TcbText, hex, is_at_least};
use exeunt::certs::{CheckedTable, MAX_TABLE_BYTES};
use exeunt_proto::report::TcbVersion;
use object_store::path::Path;
use object_store::{
    Error as ObjectError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// More than a pointer has.
const MAX_POINTER_BYTES: u64 = 16 << 10;
/// How often a pointer is tried to be changed while others change it.
const MAX_TRIES: u32 = 16;
/// How many tables of one chip and TCB are looked at.
const MAX_LISTED: usize = 1000;
/// How long others may hold the lock of a pointer in a folder.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Whose certificates they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A chip's: VCEK.
    Chip(ChipId),
    /// A cloud service provider's: VLEK.
    Csp(String),
}

impl Subject {
    /// Whose a chain is.
    ///
    /// # Errors
    ///
    /// Its certificate does not say.
    pub fn of(chain: &Chain) -> Result<Self, ChainError> {
        let endorsement = chain.endorsement()?;
        match (&endorsement.csp, &endorsement.chip) {
            (Some(csp), _) => Ok(Self::Csp(csp.clone())),
            (None, Some(chip)) => Ok(Self::Chip(chip.clone())),
            (None, None) => Err(ChainError::Missing { role: chain.vek.role() }),
        }
    }

    /// The names of providers are of any length and letters, so their digest stands for them.
    fn names(&self) -> [String; 2] {
        match self {
            Self::Chip(chip) => [format!("chips/{chip}"), format!("current/{chip}")],
            Self::Csp(csp) => {
                let digest = hex(&Sha256::digest(csp.as_bytes()));
                [format!("csp/{digest}"), format!("current/csp-{digest}")]
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chip(chip) => write!(f, "chip {chip}"),
            Self::Csp(csp) => write!(f, "provider {csp}"),
        }
    }
}

/// Why a store did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address has no meaning.
    #[error("'{url}' is no store: {reason}")]
    Address {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// There is no table for this.
    #[error("nothing is published for {subject}{}", .tcb.map_or(String::new(), |tcb| format!(" at the TCB {}", TcbText(tcb))))]
    NotPublished {
        /// For whom.
        subject: Subject,
        /// At which TCB, if one was asked for.
        tcb: Option<TcbVersion>,
    },
    /// The store refuses, or is not there.
    #[error("cannot {what} {path}: {source}")]
    Backend {
        /// What was tried.
        what: &'static str,
        /// On which object.
        path: String,
        /// The store's word.
        source: ObjectError,
    },
    /// What is in the store is not what was put there.
    #[error("the store is damaged: {path} {reason}")]
    Damaged {
        /// The object.
        path: String,
        /// How that shows.
        reason: String,
    },
    /// The pointer has no meaning.
    #[error("the store is damaged: {path}: {source}")]
    Pointer {
        /// The object.
        path: String,
        /// What is wrong with it.
        source: PointerError,
    },
    /// The host has newer certificates already.
    #[error("{subject} is at the TCB {}, and {} is older", TcbText(*.current), TcbText(*.new))]
    Older {
        /// Whose.
        subject: Subject,
        /// What is published.
        current: TcbVersion,
        /// What was to be.
        new: TcbVersion,
    },
    /// Others changed the pointer each time.
    #[error("{path} was changed by others {tries} times meanwhile")]
    Contended {
        /// The object.
        path: String,
        /// How often.
        tries: u32,
    },
    /// The table has no chain that could be published.
    #[error("the table: {0}")]
    Chain(#[from] ChainError),
    /// The lock of a pointer in a folder.
    #[error(transparent)]
    Lock(#[from] FileError),
    /// It took too long.
    #[error("the store did not answer within {0:?}")]
    Timeout(Duration),
    /// The threads that wait for the store cannot be made.
    #[error("cannot wait for a store: {0}")]
    Runtime(std::io::Error),
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Whose certificates they are.
    pub subject: Subject,
    /// What the pointer says now.
    pub pointer: Pointer,
    /// Whether that is new.
    pub is_new: bool,
}

/// A store.
#[derive(Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: String,
    /// The folder, if it is one: its pointers are changed under a lock, because a folder has no conditional writes.
    folder: Option<PathBuf>,
    clock: Arc<dyn Clock>,
}

/// A pointer as it was read.
struct Seen {
    pointer: Pointer,
    bytes: Vec<u8>,
    version: UpdateVersion,
}

impl Store {
    /// Opens the store at a location.
    ///
    /// # Errors
    ///
    /// [`StoreError::Address`], or the folder cannot be made.
    pub fn open(location: &Location, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        location.open().map(|(objects, prefix, folder)| Self { objects, prefix, folder, clock })
    }

    /// A store over any other one, which has to have conditional writes.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, prefix: &str, clock: Arc<dyn Clock>) -> Self {
        Self { objects, prefix: prefix.trim_matches('/').into(), folder: None, clock }
    }

    /// Publishes a table for each of its chains: puts it there, then lets the pointer lead to it. Whether the chains hold
    /// is for the caller to have seen.
    ///
    /// # Errors
    ///
    /// [`StoreError::Older`] for a TCB that is below the published one in some part, unless `allow_older`; else as the
    /// variants say. The pointer leads to a complete table in any case.
    pub async fn publish(
        &self,
        table: &CheckedTable,
        allow_older: bool,
    ) -> Result<Vec<Published>, StoreError> {
        let mut published = Vec::new();
        for chain in Chain::all_of(table)? {
            let subject = Subject::of(&chain)?;
            let endorsement = chain.endorsement()?;
            let digest: [u8; 32] = Sha256::digest(table.as_bytes()).into();
            let pointer = Pointer {
                format: FORMAT,
                generation: 1,
                product: endorsement.product_name.clone(),
                tcb: TcbText(endorsement.tcb).to_string(),
                sha256: hex(&digest),
                bytes: table.as_bytes().len() as u64,
            };
            self.put_table(&subject, &pointer, table).await?;
            published.push(self.move_pointer(subject, endorsement.tcb, pointer, allow_older).await?);
        }
        Ok(published)
    }

    /// The table of a subject: the current one, or the newest one for a TCB. Digest, form, subject and TCB are checked.
    ///
    /// # Errors
    ///
    /// As the variants say.
    pub async fn fetch(
        &self,
        subject: &Subject,
        tcb: Option<TcbVersion>,
    ) -> Result<CheckedTable, StoreError> {
        let seen = self.pointer(subject).await?;
        let current = seen.map(|seen| (seen.pointer.tcb.clone(), seen.pointer.sha256));
        let not_published = || StoreError::NotPublished { subject: subject.clone(), tcb };
        let (of, sha256) = match (tcb.map(|tcb| TcbText(tcb).to_string()), current) {
            (None, Some(current)) => current,
            (Some(wanted), Some((of, sha256))) if of == wanted => (of, sha256),
            (Some(wanted), _) => {
                let sha256 = self.newest(subject, &wanted).await?.ok_or_else(not_published)?;
                (wanted, sha256)
            }
            (None, None) => return Err(not_published()),
        };
        let path = self.table_path(subject, &of, &sha256);
        let (bytes, _) = self.get(&path, MAX_TABLE_BYTES).await?.ok_or_else(|| StoreError::Damaged {
            path: path.to_string(),
            reason: "is what the pointer leads to, and is not there".into(),
        })?;
        let damaged = |reason: String| StoreError::Damaged { path: path.to_string(), reason };
        if hex(&Sha256::digest(&bytes)) != sha256 {
            return Err(damaged("has another content than its name says".into()));
        }
        let table = CheckedTable::new(bytes).map_err(|error| damaged(error.to_string()))?;
        let is_for = |chain: &Chain| {
            let of_tcb = chain.endorsement().is_ok_and(|one| TcbText(one.tcb).to_string() == of);
            of_tcb && Subject::of(chain).is_ok_and(|one| one == *subject)
        };
        if Chain::all_of(&table)?.iter().any(is_for) {
            Ok(table)
        } else {
            Err(damaged("holds certificates for another chip or TCB".into()))
        }
    }

    /// What the pointer of a subject says.
    ///
    /// # Errors
    ///
    /// As the variants say.
    pub async fn current(&self, subject: &Subject) -> Result<Option<Pointer>, StoreError> {
        Ok(self.pointer(subject).await?.map(|seen| seen.pointer))
    }

    async fn put_table(
        &self,
        subject: &Subject,
        pointer: &Pointer,
        table: &CheckedTable,
    ) -> Result<(), StoreError> {
        let path = self.table_path(subject, &pointer.tcb, &pointer.sha256);
        if self.put(&path, table.as_bytes(), PutMode::Create).await? {
            return Ok(());
        }
        let found = self.get(&path, MAX_TABLE_BYTES).await?;
        if found.is_some_and(|(bytes, _)| bytes == table.as_bytes()) {
            return Ok(());
        }
        let reason = "is there with another content than its name says".into();
        Err(StoreError::Damaged { path: path.to_string(), reason })
    }

    async fn move_pointer(
        &self,
        subject: Subject,
        tcb: TcbVersion,
        new: Pointer,
        allow_older: bool,
    ) -> Result<Published, StoreError> {
        let path = self.pointer_path(&subject);
        for _ in 0..MAX_TRIES {
            let seen = self.pointer(&subject).await?;
            let mut pointer = new.clone();
            if let Some(Seen { pointer: old, .. }) = &seen {
                if old.sha256 == new.sha256 && old.tcb == new.tcb {
                    return Ok(Published { subject, pointer: old.clone(), is_new: false });
                }
                let current = old.tcb().map_err(|source| pointer_error(&path, source))?;
                if !allow_older && !is_at_least(tcb, current) {
                    return Err(StoreError::Older { subject, current, new: tcb });
                }
                pointer.generation = old.generation.saturating_add(1);
            }
            let bytes = pointer.to_bytes();
            if self.swap(&subject, &path, seen.as_ref(), &bytes).await? {
                return Ok(Published { subject, pointer, is_new: true });
            }
        }
        Err(StoreError::Contended { path: path.to_string(), tries: MAX_TRIES })
    }

    /// Writes a pointer if it is still the one that was seen. `false` if it is not.
    async fn swap(
        &self,
        subject: &Subject,
        path: &Path,
        seen: Option<&Seen>,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let Some(folder) = &self.folder else {
            let mode = seen.map_or(PutMode::Create, |seen| PutMode::Update(seen.version.clone()));
            return self.put(path, bytes, mode).await;
        };
        // Locks on the pointer itself would vanish with each rename.
        let [_, current] = subject.names();
        let lock_path = folder.join(current.replacen("current/", "locks/", 1));
        let failed = |source| FileError::System { what: "create", path: lock_path.clone(), source };
        if let Some(locks) = lock_path.parent() {
            std::fs::create_dir_all(locks).map_err(failed)?;
        }
        std::fs::OpenOptions::new().append(true).create(true).open(&lock_path).map_err(failed)?;
        let _lock = FileLock::acquire(&lock_path, Mode::Exclusive, LOCK_LIMIT, &*self.clock)?;
        let now = self.get(path, MAX_POINTER_BYTES).await?.map(|(bytes, _)| bytes);
        if now.as_deref() != seen.map(|seen| seen.bytes.as_slice()) {
            return Ok(false);
        }
        self.put(path, bytes, PutMode::Overwrite).await
    }

    async fn pointer(&self, subject: &Subject) -> Result<Option<Seen>, StoreError> {
        let path = self.pointer_path(subject);
        let Some((bytes, version)) = self.get(&path, MAX_POINTER_BYTES).await? else { return Ok(None) };
        let pointer = Pointer::from_bytes(&bytes).map_err(|source| pointer_error(&path, source))?;
        Ok(Some(Seen { pointer, bytes, version }))
    }

    /// The digest of the newest table of a subject at a TCB.
    async fn newest(&self, subject: &Subject, tcb: &str) -> Result<Option<String>, StoreError> {
        let [tables, _] = subject.names();
        let folder = self.path(&format!("{tables}/{tcb}"));
        let listed = self.objects.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|source| backend("list", &folder, source))?;
        let tables = listed.objects.into_iter().take(MAX_LISTED).filter_map(|object| {
            let digest = object.location.filename()?.strip_suffix(".table")?.to_string();
            Some((object.last_modified, digest))
        });
        Ok(tables.max().map(|(_, digest)| digest))
    }

    fn table_path(&self, subject: &Subject, tcb: &str, sha256: &str) -> Path {
        let [tables, _] = subject.names();
        self.path(&format!("{tables}/{tcb}/{sha256}.table"))
    }

    fn pointer_path(&self, subject: &Subject) -> Path {
        let [_, current] = subject.names();
        self.path(&format!("{current}.json"))
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    async fn get(
        &self,
        path: &Path,
        limit_bytes: u64,
    ) -> Result<Option<(Vec<u8>, UpdateVersion)>, StoreError> {
        let found = match self.objects.get(path).await {
            Ok(found) => found,
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(backend("read", path, source)),
        };
        if found.meta.size > limit_bytes {
            let reason = format!("has {} bytes and may have {limit_bytes}", found.meta.size);
            return Err(StoreError::Damaged { path: path.to_string(), reason });
        }
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = found.bytes().await.map_err(|source| backend("read", path, source))?;
        Ok(Some((bytes.to_vec(), version)))
    }

    /// `false` if the condition of the mode does not hold.
    async fn put(&self, path: &Path, bytes: &[u8], mode: PutMode) -> Result<bool, StoreError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.objects.put_opts(path, PutPayload::from(bytes.to_vec()), options).await {
            Ok(_) => Ok(true),
            Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => Ok(false),
            Err(source) => Err(backend("write", path, source)),
        }
    }
}

fn backend(what: &'static str, path: &Path, source: ObjectError) -> StoreError {
    StoreError::Backend { what, path: path.to_string(), source }
}

fn pointer_error(path: &Path, source: PointerError) -> StoreError {
    StoreError::Pointer { path: path.to_string(), source }
}

/// Waits for work on a store, for `limit` at most, on a thread that runs nothing else asynchronous.
///
/// # Errors
///
/// Those of the work, and [`StoreError::Timeout`].
pub fn wait<T>(limit: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(StoreError::Runtime)?;
    let result = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    // A thread that a file keeps waiting is left behind.
    runtime.shutdown_background();
    result.unwrap_or(Err(StoreError::Timeout(limit)))
}

#[cfg(test)]
mod tests;
