//! One request over HTTP, bounded in time and in size.

use crate::http::Agents;
use std::fmt::Debug;
use std::time::Duration;
use thiserror::Error;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    /// The body of a success.
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// It did not come in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It was longer than it may be.
    #[error("the answer has more than {0} bytes")]
    TooLong(u64),
    /// Another failure, in words.
    #[error("{0}")]
    Failed(String),
}

/// A way to make requests. A request has to end by itself.
pub trait Transport: Debug + Send + Sync {
    /// Asks for `url` and takes at most `limit_bytes` of an answer.
    ///
    /// # Errors
    ///
    /// There is no response. A status of failure is one.
    fn get(&self, url: &str, limit_bytes: u64) -> Result<Response, TransportError>;
}

/// HTTP and HTTPS.
#[derive(Debug)]
pub struct Https {
    agents: Agents,
    timeout: Duration,
}

impl Https {
    /// Requests that take at most this long, from the first look-up of a name to the last byte.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { agents: Agents::new(timeout), timeout }
    }
}

impl Transport for Https {
    fn get(&self, url: &str, limit_bytes: u64) -> Result<Response, TransportError> {
        let failed = |error: ureq::Error| match error {
            ureq::Error::Timeout(_) => TransportError::Timeout(self.timeout),
            ureq::Error::BodyExceedsLimit(_) => TransportError::TooLong(limit_bytes),
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                TransportError::Timeout(self.timeout)
            }
            other => TransportError::Failed(other.to_string()),
        };
        let agent = self.agents.of(url).map_err(TransportError::Failed)?;
        let mut response = agent.get(url).call().map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(ToString::to_string);
        // Nobody reads what a failure says at length.
        let body = if status == 200 {
            response.body_mut().with_config().limit(limit_bytes).read_to_vec().map_err(failed)?
        } else {
            Vec::new()
        };
        Ok(Response { status, retry_after, body })
    }
}
