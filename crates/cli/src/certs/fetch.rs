//! `exeunt certs fetch`: a table from a store, or from AMD.

use super::publish::{LIMIT, one_line};
use super::trust::Trust;
use super::verify::check_report;
use super::{Wait, install};
use crate::{Failure, print};
use exeunt::certs::CheckedTable;
use exeunt_certs::chain::parse_report;
use exeunt_certs::clock::SystemClock;
use exeunt_certs::file::read_bounded;
use exeunt_certs::identity::{ChipId, Product, TcbText};
use exeunt_certs::kds::{AMD, Cache, Client, Https, KdsError, Request, Settings};
use exeunt_certs::store::{self, Location, Store, Subject};
use exeunt_proto::report::{KnownReport, SigningKey, TcbVersion};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Fetch the certificates of a host, verify them, and put their table in the place of the old one.
///
/// They come from a store that `exeunt certs publish` fills, or from AMD's key distribution service. The service answers a
/// request in ten seconds; it is asked no more often, told to wait it is waited for, and what it said is kept in a cache.
/// Which certificates are wanted is seen from a report of the host, or said by --chip and --tcb.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  exeunt certs fetch --kds --report report.bin -o certs.bin --root ark.pem
  exeunt certs fetch --kds --product Milan --chip 4f.. --tcb bl3.tee0.snp20.ucode209 -o certs.bin --root ark.pem
  exeunt certs fetch --kds --offline --report report.bin -o certs.bin --root ark.pem     what was fetched before
  exeunt certs fetch --from s3://fleet/certs --report report.bin -o certs.bin --root ark.pem
  exeunt certs fetch --from /srv/certs --csp 'a provider' -o certs.bin --root ark.pem    a VLEK

Exit status: 0 it is written, 1 the chain does not hold, 2 there is none or something cannot be written.")]
pub(super) struct Args {
    /// A store
    #[arg(long, value_name = "STORE", required_unless_present = "kds", conflicts_with = "kds")]
    from: Option<Location>,

    /// The key distribution service: AMD's, or the one at URL
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = AMD)]
    kds: Option<String>,

    /// An attestation report of the host
    #[arg(long, value_name = "FILE", conflicts_with_all = ["chip", "tcb"])]
    report: Option<PathBuf>,

    /// The chip, 128 hex digits, or 16 for Turin
    #[arg(long, value_name = "HEX", required_unless_present_any = ["report", "csp"])]
    chip: Option<ChipId>,

    /// The cloud service provider of a VLEK, instead of the chip
    #[arg(long, value_name = "NAME", conflicts_with_all = ["chip", "kds"])]
    csp: Option<String>,

    /// The reported TCB; without it a store gives what is current
    #[arg(long, value_name = "TCB")]
    tcb: Option<TcbText>,

    /// The product, if no report names it: Milan, Genoa or Turin
    #[arg(long, value_name = "PRODUCT")]
    product: Option<Product>,

    /// Where the table goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// --kds: ask nobody, take what is in the cache
    #[arg(long)]
    offline: bool,

    /// --kds: the folder of the cache [default: ~/.cache/exeunt/kds]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,

    /// --kds: seconds to wait for the service, with all its refusals
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    patience: u64,

    /// --kds: seconds between two requests; fewer for a mirror of one's own
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    spacing: u64,

    #[command(flatten)]
    trust: Trust,

    #[command(flatten)]
    wait: Wait,
}

/// Whose certificates are wanted.
struct Wanted {
    chip: Option<ChipId>,
    tcb: Option<TcbVersion>,
    product: Option<Product>,
}

pub(super) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let trusted = args.trust.read()?;
    let bytes = args.report.as_deref().map(read_bounded).transpose().map_err(|error| error.to_string())?;
    let report = bytes.as_deref().map(parse_report).transpose();
    let report = report.map_err(|error| {
        let name = args.report.as_deref().unwrap_or(&args.output);
        format!("{}: {error}", name.display())
    })?;
    let wanted = wanted(args, report.as_ref())?;
    let table = match (&args.from, &args.kds) {
        (Some(location), _) => from_store(args, location, &wanted)?,
        (None, Some(base)) => from_kds(args, base, &wanted)?,
        (None, None) => return Err("where from? Name a store by --from, or --kds".into()),
    };
    install(&table, &args.output, &trusted, &args.wait, |chains| {
        report.as_ref().map_or(Ok(()), |report| check_report(chains, report))
    })
}

fn wanted(args: &Args, report: Option<&KnownReport<'_>>) -> Result<Wanted, Failure> {
    let Some(report) = report else {
        let tcb = args.tcb.map(|TcbText(tcb)| tcb);
        return Ok(Wanted { chip: args.chip.clone(), tcb, product: args.product });
    };
    if report.signing_key() == SigningKey::Vlek && args.csp.is_none() {
        return Err(
            "the report is signed by a VLEK, which a report does not name the provider of: give --from \
                    and --csp"
                .into(),
        );
    }
    let product = args.product.or_else(|| report.cpuid().and_then(Product::of_cpu));
    let tcb = Some(report.tcb(report.wire.reported_tcb));
    Ok(Wanted { chip: ChipId::of_report(report), tcb, product })
}

fn from_store(args: &Args, location: &Location, wanted: &Wanted) -> Result<CheckedTable, Failure> {
    let subject = match (&args.csp, &wanted.chip) {
        (Some(csp), _) => Subject::Csp(csp.clone()),
        (None, Some(chip)) => Subject::Chip(chip.clone()),
        (None, None) => return Err("the host hides its chip in reports: give --chip and --tcb".into()),
    };
    let store = Store::open(location, Arc::new(SystemClock::default())).map_err(|error| one_line(&error))?;
    store::wait(LIMIT, store.fetch(&subject, wanted.tcb)).map_err(|error| one_line(&error))
}

fn from_kds(args: &Args, base: &str, wanted: &Wanted) -> Result<CheckedTable, Failure> {
    let chip = wanted.chip.clone().ok_or("the host hides its chip in reports: give --chip and --tcb")?;
    let tcb = wanted.tcb.ok_or("which TCB? Give --report, or --tcb")?;
    let product = wanted.product.ok_or("which product? The report does not name it: give --product")?;
    let folder = args.cache.clone().or_else(Cache::default_folder);
    let settings = Settings {
        base: base.into(),
        patience: Duration::from_secs(args.patience),
        spacing: Duration::from_secs(args.spacing),
        is_offline: args.offline,
        ..Settings::default()
    };
    let timeout = Duration::from_secs(args.patience.clamp(1, 30));
    let client = Client::new(
        Arc::new(Https::new(timeout)),
        Arc::new(SystemClock::default()),
        settings,
        folder.map(Cache::new),
    );
    let fetched = client.fetch(&Request { product, chip, tcb }).map_err(|error| kds_line(&error))?;
    for note in &fetched.notes {
        print(&format!("note: {note}\n"))?;
    }
    let bundle = fetched.bundle().map_err(|error| error.to_string())?;
    bundle.table().map_err(|error| error.to_string())
}

/// An error of the service, with what to do next.
fn kds_line(error: &KdsError) -> Failure {
    let advice = match error {
        KdsError::NotFound { .. } => ": is this the reported TCB, and the product right?",
        KdsError::RateLimited { .. } => ", or wait longer with --patience",
        KdsError::NotCached { .. } => ": fetch it once without --offline",
        _ => "",
    };
    format!("{error}{advice}").replace('\n', " ")
}
