//! Buckets, over the HTTP client that is there for AMD's service as well.

use crate::http::Agents;
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Method, Request, Response};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than any answer has that is waited for: a table, or a list of a thousand names.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

pub(super) fn open(
    bucket: &str,
    endpoint: Option<&str>,
    region: Option<&str>,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    build(AmazonS3Builder::from_env(), bucket, endpoint, region).map(|store| Arc::new(store) as _)
}

pub(super) fn build(
    builder: AmazonS3Builder,
    bucket: &str,
    endpoint: Option<&str>,
    region: Option<&str>,
) -> object_store::Result<AmazonS3> {
    let retry =
        RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() };
    let mut builder = builder
        .with_bucket_name(bucket)
        .with_retry(retry)
        .with_http_connector(Connector(Arc::new(Agents::new(TIMEOUT))));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http:"));
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    builder.build()
}

#[derive(Clone, Debug)]
struct Connector(Arc<Agents>);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    /// One request after the other: nothing else runs on the thread that waits for a store.
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let words = |words: String| HttpError::new_boxed(HttpErrorKind::Unknown, words.into());
        let agent = self.0.of(&parts.uri.to_string()).map_err(words)?;
        let response = if body.is_empty() && parts.method != Method::PUT && parts.method != Method::POST {
            agent.run(Request::from_parts(parts, ()))
        } else {
            agent.run(Request::from_parts(parts, body.to_vec()))
        };
        let (parts, mut body) = response.map_err(failed)?.into_parts();
        let body = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec().map_err(failed)?;
        Ok(Response::from_parts(parts, bytes::Bytes::from(body).into()))
    }
}

fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => HttpErrorKind::Connect,
        ureq::Error::Io(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
