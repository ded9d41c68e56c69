//! Where no VMM of somebody else's can be judged: its processes are x86-64 ones on Linux.

use super::choose::Row;
use super::{Args, Format};
use crate::Failure;
use exeunt_check::judgement::Report;
use exeunt_check::rules::Rule;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const WHY: &str = "a VMM is judged on x86-64 Linux only; without one, our own half is judged anywhere";

pub(super) fn judge(
    _: &Args,
    _: &[&'static Rule],
    _: &Arc<AtomicBool>,
) -> Result<(Report, Option<Failure>), Failure> {
    Err(WHY.into())
}

pub(super) fn plan(_: &Args, _: &[&'static Rule]) -> Result<Vec<Row>, Failure> {
    Err(WHY.into())
}

pub(super) fn profiles(_: Format) -> Result<ExitCode, Failure> {
    Err(WHY.into())
}
