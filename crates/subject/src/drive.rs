//! Runs a VM to its end.

use crate::arguments::{Arguments, Task};
use crate::host::Console;
use crate::machine::Machine;
use exeunt::run::step_observed;
use exeunt::snapshot::SavedEvents;
use exeunt::terminate::VmEnd;
use exeunt::{Policy, Stop, Watch, drain};
use exeunt_linux::{Kicker, Vcpu};
use std::sync::Arc;
use std::thread;

/// The status of a VMM that could not start.
pub(crate) const NOT_RUN: u8 = 2;

/// Does what it is told to.
///
/// # Errors
///
/// The VM cannot be made, saved or restored, in words.
pub(crate) fn follow(arguments: &Arguments) -> Result<Stop, String> {
    let mut machine = Machine::new(arguments)?;
    match arguments.task {
        Task::Run | Task::SaveAfter(_) => {}
        Task::SaveTwice => {
            save_first(&mut machine)?;
            save_first(&mut machine)?;
        }
        Task::GoBack => {
            let saved = save_first(&mut machine)?;
            restore_first(&mut machine, &saved)?;
        }
        Task::Migrate => {
            let saved = save_first(&mut machine)?;
            machine = Machine::new(arguments)?;
            restore_first(&mut machine, &saved)?;
        }
    }
    let Machine { vcpus, host, policy, launch: _launch } = machine;
    let save_after = match arguments.task {
        Task::SaveAfter(exits) => Some(exits),
        _ => None,
    };
    // A vCPU that waits in the kernel would keep the others waiting.
    if arguments.in_turn && !arguments.irqchip || vcpus.len() == 1 {
        return run_in_turn(vcpus, host, &policy, save_after);
    }
    Ok(run_in_threads(vcpus, &host, &policy))
}

/// Hands over what is pending, then reads the events: what is saved misses nothing.
fn save(vcpu: &mut Vcpu, host: &mut Console, policy: &Policy) -> Result<SavedEvents, String> {
    drain(vcpu, host, policy).map_err(|stop| stop.to_string())?;
    SavedEvents::save(vcpu).map_err(|error| error.to_string())
}

fn save_first(machine: &mut Machine) -> Result<SavedEvents, String> {
    let vcpu = machine.vcpus.first_mut().ok_or("there is no vCPU")?;
    save(vcpu, &mut machine.host, &machine.policy)
}

/// What cannot be restored is not run.
fn restore_first(machine: &mut Machine, saved: &SavedEvents) -> Result<(), String> {
    let vcpu = machine.vcpus.first_mut().ok_or("there is no vCPU")?;
    saved.restore(vcpu).map_err(|error| error.to_string())
}

/// One thread for all vCPUs, an exit of each in turn.
fn run_in_turn(
    vcpus: Vec<Vcpu>,
    mut host: Console,
    policy: &Policy,
    save_after: Option<u32>,
) -> Result<Stop, String> {
    let mut running: Vec<_> = vcpus.into_iter().map(|vcpu| (vcpu, Watch::default())).collect();
    let mut exits = 0u32;
    while !running.is_empty() {
        let mut index = 0;
        while let Some((vcpu, watch)) = running.get_mut(index) {
            let stepped = step_observed(vcpu, &mut host, policy, watch, &mut ());
            exits = exits.saturating_add(1);
            match stepped {
                Ok(()) if save_after == Some(exits) => drop(save(vcpu, &mut host, policy)?),
                Ok(()) => {}
                Err(Stop::Halted) => {
                    running.remove(index);
                    continue;
                }
                Err(stop) => return Ok(stop),
            }
            index = index.saturating_add(1);
        }
    }
    Ok(Stop::Halted)
}

/// A thread for each vCPU. The first that stops ends them all.
fn run_in_threads(vcpus: Vec<Vcpu>, host: &Console, policy: &Policy) -> Stop {
    let kickers: Vec<_> = vcpus.iter().map(Vcpu::kicker).collect();
    let end = Arc::new(VmEnd::with_kick(move || kickers.iter().for_each(Kicker::kick)));
    thread::scope(|scope| {
        for mut vcpu in vcpus {
            let (end, mut host) = (&end, host.clone());
            scope.spawn(move || {
                let mut watch = Watch::default();
                while !end.is_over() {
                    match step_observed(&mut vcpu, &mut host, policy, &mut watch, &mut ()) {
                        Ok(()) => {}
                        // The others may have work to do.
                        Err(Stop::Halted) => return,
                        Err(stop) => {
                            end.end(stop);
                            return;
                        }
                    }
                }
            });
        }
    });
    end.stop().cloned().unwrap_or(Stop::Halted)
}
