//! The client: from the cache if it can be, else from the service, and checked in either case.

use super::cache::Cache;
use super::pace::Pace;
use super::transport::{Response, Transport};
use super::{AMD, KdsError};
use crate::chain::{Bundle, BundleError, Certificate, Chain, ChainError, Role, check_signature};
use crate::clock::Clock;
use crate::file::FileError;
use crate::identity::{ChipId, Product, TcbText};
use exeunt_proto::report::TcbVersion;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// More than any answer of the service has. A chain has about 5000 bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Whose certificate is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The product of the chip.
    pub product: Product,
    /// The chip.
    pub chip: ChipId,
    /// The reported TCB.
    pub tcb: TcbVersion,
}

/// How a [`Client`] goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the service is.
    pub base: String,
    /// How often one thing is asked for.
    pub attempts: u32,
    /// How long a fetch may take, with all its waiting.
    pub patience: Duration,
    /// How much time is between two requests.
    pub spacing: Duration,
    /// The pause after the first failure without a `Retry-After`. It doubles each time.
    pub first_pause: Duration,
    /// The longest of these pauses.
    pub longest_pause: Duration,
    /// Ask nobody.
    pub is_offline: bool,
}

impl Default for Settings {
    /// AMD's service, as often as it allows, for five minutes.
    fn default() -> Self {
        Self {
            base: AMD.into(),
            attempts: 5,
            patience: Duration::from_secs(300),
            spacing: Duration::from_secs(10),
            first_pause: Duration::from_secs(10),
            longest_pause: Duration::from_secs(120),
            is_offline: false,
        }
    }
}

/// Certificates of a chip, and what else happened.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The chain. Its signatures verify; whether its root is to be trusted is for the caller to say.
    pub chain: Chain,
    /// How many requests it took. 0: all was in the cache.
    pub requests: u32,
    /// What went wrong on the way without harm, one line each: a damaged entry of the cache, for example.
    pub notes: Vec<String>,
}

/// A client of the service.
#[derive(Debug)]
pub struct Client {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    cache: Option<Cache>,
    pace: Pace,
}

/// What one fetch has to go by.
struct Fetch {
    deadline: Duration,
    requests: u32,
    notes: Vec<String>,
    seed: String,
}

impl Client {
    /// A client. Without a cache each fetch asks the service, and the spacing holds for this client alone.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        cache: Option<Cache>,
    ) -> Self {
        let pace = Pace::new(cache.as_ref().map(|cache| cache.path(&settings.base, "not-before")));
        Self { transport, clock, settings, cache, pace }
    }

    /// The chain of a chip's VCEK for a TCB.
    ///
    /// # Errors
    ///
    /// There is none, or none in the time that the settings give it. What was fetched until then is in the cache.
    pub fn fetch(&self, request: &Request) -> Result<Fetched, KdsError> {
        let mut fetch = Fetch {
            deadline: self.clock.now().saturating_add(self.settings.patience),
            requests: 0,
            notes: Vec::new(),
            seed: request.chip.to_string(),
        };
        let mut above = self.chain(request.product, true, &mut fetch)?;
        let requests = fetch.requests;
        let mut vcek = self.vcek(request, true, &mut fetch)?;
        let was_kept = fetch.requests == requests;
        let [signer, _] = &above;
        if check_signature(&vcek, signer).is_err() && !self.settings.is_offline && self.cache.is_some() {
            // AMD has signed with another key since the chain was fetched.
            above = self.chain(request.product, false, &mut fetch)?;
            let [signer, _] = &above;
            if was_kept && check_signature(&vcek, signer).is_err() {
                fetch
                    .notes
                    .push("an entry of the cache is damaged: the VCEK is not signed by the ASK".into());
                vcek = self.vcek(request, false, &mut fetch)?;
            }
        }
        let [signer, root] = above;
        check_signature(&vcek, &signer)?;
        Ok(Fetched { chain: Chain { vek: vcek, signer, root }, requests: fetch.requests, notes: fetch.notes })
    }

    /// ASK and ARK of a product.
    fn chain(&self, product: Product, cached: bool, fetch: &mut Fetch) -> Result<[Certificate; 2], KdsError> {
        let name = format!("vcek/v1/{product}/cert_chain");
        self.get(&name, cached, fetch, |bytes, url| {
            let garbage = |source| KdsError::Garbage { url: url.into(), source };
            let mut bundle = Bundle::default();
            bundle.add(bytes).map_err(garbage)?;
            let of = |role| bundle.certificates().iter().find(|one| one.role() == role).cloned();
            let [Some(ask), Some(ark)] = [Role::Ask, Role::Ark].map(of) else {
                return Err(other(url, "it is no ASK with its ARK"));
            };
            if !ask.subject().contains(product.name()) {
                return Err(other(url, &format!("it is for {}", ask.subject())));
            }
            check_signature(&ark, &ark)?;
            check_signature(&ask, &ark)?;
            Ok([ask, ark])
        })
    }

    fn vcek(&self, request: &Request, cached: bool, fetch: &mut Fetch) -> Result<Certificate, KdsError> {
        let Request { product, chip, tcb } = request;
        let TcbVersion { fmc, boot_loader, tee, snp, microcode } = tcb;
        let fmc = fmc.map_or(String::new(), |fmc| format!("fmcSPL={fmc:02}&"));
        let name = format!(
            "vcek/v1/{product}/{chip}?{fmc}blSPL={boot_loader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}"
        );
        self.get(&name, cached, fetch, |bytes, url| {
            let certificate = Certificate::from_der(bytes).map_err(BundleError::Certificate);
            let certificate = certificate.map_err(|source| KdsError::Garbage { url: url.into(), source })?;
            let said = certificate.endorsement().filter(|_| certificate.role() == Role::Vcek);
            let said = said.ok_or_else(|| other(url, "it is no VCEK"))?;
            if said.chip.as_ref() != Some(chip) {
                return Err(other(url, "it is for another chip"));
            }
            if said.tcb != *tcb {
                return Err(other(url, &format!("it is for the TCB {}", TcbText(said.tcb))));
            }
            if said.product() != Some(*product) {
                return Err(other(url, &format!("it is for {}", said.product_name)));
            }
            Ok(certificate)
        })
    }

    /// What is at an address below the service's own, from the cache or from there. Only what `check` takes is used or
    /// kept.
    fn get<T>(
        &self,
        name: &str,
        cached: bool,
        fetch: &mut Fetch,
        check: impl Fn(&[u8], &str) -> Result<T, KdsError>,
    ) -> Result<T, KdsError> {
        let url = format!("{}/{name}", self.settings.base.trim_end_matches('/'));
        let path = self.cache.as_ref().map(|cache| cache.path(&self.settings.base, &file_name(name)));
        if let Some(path) = path.as_ref().filter(|_| cached) {
            match Cache::read(path) {
                Ok(bytes) => match check(&bytes, &path.display().to_string()) {
                    Ok(value) => return Ok(value),
                    Err(error) => fetch.notes.push(format!("an entry of the cache is damaged: {error}")),
                },
                Err(FileError::Missing { .. }) => {}
                Err(error) => fetch.notes.push(error.to_string()),
            }
        }
        if self.settings.is_offline {
            let damage = fetch.notes.last().map_or(String::new(), |note| format!(" ({note})"));
            return Err(KdsError::NotCached { what: format!("{url}{damage}") });
        }
        let body = self.ask(&url, fetch)?;
        let value = check(&body, &url)?;
        if let Some(path) = &path {
            if let Err(error) = Cache::write(path, &body) {
                fetch.notes.push(format!("not kept: {error}"));
            }
        }
        Ok(value)
    }

    /// Asks until there is an answer, as often and for as long as the settings say.
    fn ask(&self, url: &str, fetch: &mut Fetch) -> Result<Vec<u8>, KdsError> {
        let clock = &*self.clock;
        let mut last = String::new();
        for attempt in 0..self.settings.attempts {
            let left = fetch.deadline.saturating_sub(clock.now());
            if let Err(after) = self.pace.wait(self.settings.spacing, left, clock)? {
                return Err(KdsError::RateLimited { url: url.into(), after });
            }
            fetch.requests = fetch.requests.saturating_add(1);
            let mut pause = self.pause(attempt, &fetch.seed);
            match self.transport.get(url, MAX_ANSWER_BYTES) {
                Ok(Response { status: 200, body, .. }) => return Ok(body),
                Ok(Response { status: 404, .. }) => return Err(KdsError::NotFound { url: url.into() }),
                Ok(Response { status, retry_after, .. }) if status == 429 || status >= 500 => {
                    let told = retry_after.and_then(|text| retry_time(&text, clock.wall()));
                    pause = told.unwrap_or(pause);
                    last = format!("status {status}");
                }
                Ok(Response { status, .. }) => return Err(KdsError::Refused { url: url.into(), status }),
                Err(error) => last = error.to_string(),
            }
            let left = fetch.deadline.saturating_sub(clock.now());
            self.pace.hold_off(pause, left.max(Duration::from_secs(1)), clock)?;
        }
        let attempts = self.settings.attempts;
        Err(KdsError::Unreachable { url: url.into(), attempts, last })
    }

    /// The pause after a failure: twice as long each time, and up to a half longer by chip, so that a fleet that was
    /// refused together does not come back together.
    fn pause(&self, attempt: u32, seed: &str) -> Duration {
        let doubled = self.settings.first_pause.saturating_mul(2u32.saturating_pow(attempt));
        let pause = doubled.min(self.settings.longest_pause);
        let digest = Sha256::digest(format!("{seed} {attempt}").as_bytes());
        let share = u32::from(digest.first().copied().unwrap_or(0));
        pause.saturating_add(pause.saturating_mul(share).checked_div(512).unwrap_or_default())
    }
}

fn other(url: &str, reason: &str) -> KdsError {
    KdsError::Other { url: url.into(), reason: reason.into() }
}

/// The file of an address: its letters, digits and points, and `=` and `&` as they make the TCB readable.
fn file_name(name: &str) -> String {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "._/=&".contains(letter) { letter } else { '-' };
    PathBuf::from(name.chars().map(plain).collect::<String>()).display().to_string()
}

/// A `Retry-After`: seconds, or a date.
fn retry_time(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

impl Fetched {
    /// The certificates as a bundle, for a table.
    ///
    /// # Errors
    ///
    /// There is none: a chain has three different certificates.
    pub fn bundle(&self) -> Result<Bundle, ChainError> {
        let mut bundle = Bundle::default();
        for certificate in self.chain.certificates() {
            let role = certificate.role();
            bundle.push(certificate.clone()).map_err(|_| ChainError::Missing { role })?;
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests;
