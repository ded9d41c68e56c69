use exeunt_check::foreign::{self, Choice, ForeignError, Stage, Subject, Via};
use exeunt_check::rules;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/unseen.c");

fn judge(program: &Path, via: Option<Via>) -> Result<usize, ForeignError> {
    let subject = Subject { command: vec![program.into()], profile: None, via };
    let choice = Choice {
        rules: rules::all().map(|rule| rule.id.as_str()).collect(),
        dialect: None,
        stage: Some(Stage::Scripted),
        scene: Some("unknown-exit".into()),
        seed: 0,
        timeout: Duration::from_secs(10),
        shard: None,
        stop: Arc::default(),
    };
    foreign::judge(&subject, &choice, &mut |_| {}).map(|judged| judged.len())
}

#[test]
fn a_dynamic_vmm_that_makes_system_calls_by_itself_is_supervised_unless_the_shim_is_asked_for() {
    let program = std::env::temp_dir().join(format!("exeunt-unseen-{}", std::process::id()));
    let compiled = Command::new("cc").arg("-o").arg(&program).arg(SOURCE).status();
    if !compiled.is_ok_and(|status| status.success()) {
        return println!("skipped: a VMM that makes system calls by itself: no C compiler");
    }
    let chosen = judge(&program, None);
    let shim = judge(&program, Some(Via::Shim));
    std::fs::remove_file(&program).unwrap();
    assert!(chosen.is_ok_and(|judged| judged > 0), "it made a VM, seen by the supervisor");
    assert!(matches!(shim, Err(ForeignError::NoVm { .. })), "{shim:?}");
}
