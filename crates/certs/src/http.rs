//! HTTP for what is fetched and stored, with one TLS stack: rustls over the roots of the system.

use rustls::crypto::ring;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// Agents that end every request within a time, whatever the server does.
#[derive(Debug)]
pub(crate) struct Agents {
    timeout: Duration,
    plain: Agent,
    /// Reading the roots takes tens of milliseconds, so that is left until there is an address that needs them.
    secure: OnceLock<Result<Agent, String>>,
}

impl Agents {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, plain: agent(timeout, None), secure: OnceLock::new() }
    }

    /// The agent for an address.
    ///
    /// # Errors
    ///
    /// The system has no certificate authorities, in words.
    pub(crate) fn of(&self, url: &str) -> Result<&Agent, String> {
        if !url.starts_with("https:") {
            return Ok(&self.plain);
        }
        let secure = self.secure.get_or_init(|| Ok(agent(self.timeout, Some(roots()?))));
        secure.as_ref().map_err(Clone::clone)
    }
}

fn agent(timeout: Duration, roots: Option<TlsConfig>) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(3)
        // Requests are seconds apart, and a connection that the server has closed meanwhile would be one that failed.
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .user_agent("exeunt");
    match roots {
        Some(tls) => config.tls_config(tls).build().into(),
        None => config.build().into(),
    }
}

fn roots() -> Result<TlsConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let roots: Vec<_> = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    if roots.is_empty() {
        return Err("this system has no certificate authorities: install ca-certificates, or name a file in SSL_CERT_FILE".into());
    }
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build())
}
