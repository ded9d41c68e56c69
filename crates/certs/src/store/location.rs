//! Where a store is: a folder, or a bucket.

use super::StoreError;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A folder: a path, or `file:///path`.
    Folder(PathBuf),
    /// A bucket that is reached by the S3 protocol: `s3://bucket/prefix?endpoint=URL&region=NAME`. Keys and whatever else
    /// is not in the address comes from the environment, as for other tools: `AWS_ACCESS_KEY_ID` and so on.
    #[cfg(feature = "s3")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// What all names begin with.
        prefix: String,
        /// The server, if it is not Amazon's.
        endpoint: Option<String>,
        /// The region.
        region: Option<String>,
    },
}

/// An open store: its objects, what their names begin with, and its folder.
pub(super) type Opened = (Arc<dyn ObjectStore>, String, Option<PathBuf>);

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(url: &str) -> Result<Self, StoreError> {
        let wrong = |reason: &str| StoreError::Address { url: url.into(), reason: reason.into() };
        let Some((scheme, rest)) = url.split_once("://") else {
            return if url.is_empty() { Err(wrong("it is empty")) } else { Ok(Self::Folder(url.into())) };
        };
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Folder(rest.into())),
            "file" => Err(wrong("a file URL has three slashes and an absolute path")),
            #[cfg(feature = "s3")]
            "s3" => bucket(rest).map_err(|reason| wrong(&reason)),
            #[cfg(not(feature = "s3"))]
            "s3" => Err(wrong("this build has no S3")),
            _ => Err(wrong("there are folders, file:// and s3://")),
        }
    }
}

#[cfg(feature = "s3")]
fn bucket(rest: &str) -> Result<Location, String> {
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = name.split_once('/').unwrap_or((name, ""));
    if bucket.is_empty() {
        return Err("the bucket is missing".into());
    }
    let (mut endpoint, mut region) = (None, None);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("endpoint", value)) => endpoint = Some(value.to_string()),
            Some(("region", value)) => region = Some(value.to_string()),
            _ => return Err(format!("'{part}' is neither endpoint= nor region=")),
        }
    }
    let prefix = prefix.trim_matches('/').to_string();
    Ok(Location::Bucket { bucket: bucket.into(), prefix, endpoint, region })
}

impl Location {
    pub(super) fn open(&self) -> Result<Opened, StoreError> {
        match self {
            Self::Folder(folder) => {
                let wrong =
                    |reason: String| StoreError::Address { url: folder.display().to_string(), reason };
                std::fs::create_dir_all(folder).map_err(|error| wrong(error.to_string()))?;
                let objects =
                    LocalFileSystem::new_with_prefix(folder).map_err(|error| wrong(error.to_string()))?;
                Ok((Arc::new(objects.with_fsync(true)), String::new(), Some(folder.clone())))
            }
            #[cfg(feature = "s3")]
            Self::Bucket { bucket, prefix, endpoint, region } => {
                let objects =
                    super::s3::open(bucket, endpoint.as_deref(), region.as_deref()).map_err(|error| {
                        StoreError::Address { url: bucket.clone(), reason: error.to_string() }
                    })?;
                Ok((objects, prefix.clone(), None))
            }
        }
    }
}
