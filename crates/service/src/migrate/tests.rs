use super::*;
use std::collections::HashSet;

mod world;
use world::{AFTER, OFFERED, Process, World};

/// Every world that can be reached with so many mishaps.
fn reachable(mishaps: u8) -> HashSet<World> {
    let mut seen = HashSet::new();
    let mut left = vec![World::new(mishaps)];
    while let Some(world) = left.pop() {
        if seen.contains(&world) {
            continue;
        }
        left.extend(world.next());
        seen.insert(world);
    }
    seen
}

/// Lets the sides go on, the preferred one first, without further mishaps, and starts again whoever stopped without
/// knowing whose the VM is.
fn settle(mut world: World, first: usize) -> World {
    world.mishaps = 0;
    for _ in 0..200 {
        let mut next = Vec::new();
        for side in [first, 1 - first] {
            if world.processes[side] == Process::Dead {
                next.push(world.restart(side));
            }
            world.step(side, &mut next);
            if !next.is_empty() {
                break;
            }
        }
        // Both wait, and nobody says anything: the time is up.
        let Some(one) = next.into_iter().next() else {
            if world.processes.iter().all(|process| *process == Process::Ended) {
                return world;
            }
            world.is_cut = true;
            continue;
        };
        world = one;
    }
    panic!("does not settle: {world:?}");
}

fn assert_one_owner(world: &World, from: &World) {
    let owners = world.disks.iter().filter(|disk| matches!(disk.record, Some(Record::Owns { .. }))).count();
    assert_eq!(owners, 1, "{world:?}\nfrom {from:?}");
}

#[test]
fn whatever_is_killed_cut_or_fails_at_whatever_step_the_vm_has_one_owner() {
    let worlds = reachable(3);
    assert!(worlds.len() > 10_000, "{}", worlds.len());
    for world in &worlds {
        let runs = |it: &Process| matches!(it, Process::Runs(OFFERED | AFTER) | Process::Ran(_));
        assert!(world.processes.iter().filter(|it| runs(it)).count() <= 1, "both run: {world:?}");
        assert!(world.ran != [true; 2], "both ran: {world:?}");
        for disk in &world.disks {
            let named = disk.record.and_then(|record| record.checkpoint());
            assert!(named.is_none_or(|it| disk.checkpoints.contains(&it)), "a record without its checkpoint");
        }
        for first in [0, 1] {
            assert_one_owner(&settle(world.clone(), first), world);
            // Both killed here, and started again in either order.
            assert_one_owner(&settle(world.kill(0).kill(1), first), world);
            assert_one_owner(&settle(world.kill(first), 1 - first), world);
        }
    }
}

#[test]
fn without_a_mishap_the_target_has_the_vm_and_runs_it_once() {
    let worlds = reachable(0);
    let ends: Vec<_> = worlds.iter().filter(|world| world.next().is_empty()).collect();
    assert!(!ends.is_empty());
    for end in ends {
        assert_eq!(end.disks[0].record, Some(Record::Gave { transfer: world::TRANSFER }));
        assert_eq!(end.disks[1].record, Some(Record::Owns { checkpoint: AFTER }));
        assert_eq!((end.ran, end.said), ([false, true], 2));
    }
}

#[test]
fn every_step_of_both_machines_is_reached() {
    let (mut source, mut target) = (HashSet::new(), HashSet::new());
    for world in reachable(2) {
        for process in &world.processes {
            match process {
                Process::Source(machine, _) => drop(source.insert(machine.step())),
                Process::Target(machine, _) => drop(target.insert(machine.step())),
                _ => {}
            }
        }
    }
    assert_eq!(source, SourceStep::ALL.iter().copied().collect());
    assert_eq!(target, TargetStep::ALL.iter().copied().collect());
    for name in SourceStep::ALL.iter().map(|step| step.name()) {
        assert_eq!(SourceStep::from_name(name).map(SourceStep::name), Some(name));
    }
    assert_eq!(TargetStep::from_name("saved"), None);
}

/// All that each machine can be told, wherever it is.
fn inputs() -> Vec<Input> {
    let texts = [Message::Refuse("no".into()), Message::Dropped("late".into())];
    let messages = [Message::Offer(world::offer()), Message::Accept, Message::Data(vec![1]), Message::Taken];
    let mut inputs: Vec<_> = messages.into_iter().chain(texts).map(Input::Message).collect();
    inputs.extend([
        Input::Done,
        Input::Saved(world::offer()),
        Input::Failed("failed".into()),
        Input::Broken(MessageError::CutOff),
        Input::Closed,
        Input::Late,
        Input::Decided(Side::Source),
        Input::Decided(Side::Target),
    ]);
    inputs
}

#[test]
fn no_input_that_does_not_belong_makes_a_side_run_or_forget() {
    for world in reachable(1) {
        for process in &world.processes {
            for input in inputs() {
                match process {
                    Process::Source(machine, _) => {
                        let (after, action) = machine.clone().handle(1, input.clone());
                        let runs = action == Action::Run;
                        let is_right = match machine.step() {
                            SourceStep::Kept => input == Input::Done,
                            SourceStep::Saved => matches!(input, Input::Failed(_)),
                            _ => false,
                        };
                        assert!(!runs || is_right, "{machine:?} on {input:?} makes {after:?}");
                        let gives = matches!(action, Action::Record(Record::Gave { .. }));
                        assert!(!gives || input == Input::Decided(Side::Target), "{machine:?}");
                    }
                    Process::Target(machine, _) => {
                        let (after, action) = machine.clone().handle(1, input.clone());
                        let is_right = machine.step() == TargetStep::Released && input == Input::Done;
                        assert!(
                            action != Action::Run || is_right,
                            "{machine:?} on {input:?} makes {after:?}"
                        );
                        let owns = matches!(action, Action::Record(Record::Owns { .. }));
                        assert!(!owns || input == Input::Decided(Side::Target), "{machine:?}");
                        let asks = matches!(action, Action::Decide(..));
                        assert!(!asks || machine.step() == TargetStep::Holds && input == Input::Done);
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_target_takes_no_more_and_no_less_than_was_offered() {
    let at_data = || {
        let (target, _) = Target::begin(0, 10, 100);
        let (target, check) = target.handle(0, Input::Message(Message::Offer(world::offer())));
        assert_eq!(check, Action::Check(world::offer()));
        let (target, accept) = target.handle(0, Input::Done);
        assert_eq!(accept, Action::Send(Message::Accept));
        let (target, wait) = target.handle(5, Input::Done);
        assert_eq!(wait, Action::Wait { until_ns: 15 });
        target
    };
    let (_, refused) = at_data().handle(6, Input::Message(Message::Data(vec![0; 3])));
    assert!(matches!(refused, Action::Send(Message::Refuse(_))));
    let (target, kept) = at_data().handle(6, Input::Message(Message::Data(vec![0])));
    assert_eq!(kept, Action::Keep { bytes: vec![0], left_bytes: 1, until_ns: 16 });
    for (input, why) in [
        (Input::Closed, Why::Closed),
        (Input::Late, Why::Late),
        (Input::Broken(MessageError::CutOff), Why::Broken(MessageError::CutOff)),
        (Input::Done, Why::Unexpected("done")),
    ] {
        assert_eq!(target.clone().handle(7, input).1, Action::Stop(End::Nothing { why }));
    }
    let (_, built) = target.handle(7, Input::Message(Message::Data(vec![0]))).0.handle(8, Input::Done);
    assert_eq!(built, Action::Build { checkpoint: OFFERED });
    for bytes in [0, 101, u64::MAX] {
        let (target, _) = Target::begin(0, 10, 100);
        let huge = Offer { bytes, ..world::offer() };
        let (_, refused) = target.handle(0, Input::Message(Message::Offer(huge)));
        assert!(matches!(refused, Action::Send(Message::Refuse(_))), "{bytes}");
    }
}

#[test]
fn a_socket_that_closes_after_any_byte_of_the_source_leaves_the_target_with_nothing() {
    let sent = [Message::Offer(world::offer()), Message::Data(vec![1]), Message::Data(vec![2])];
    let bytes: Vec<u8> = sent.iter().flat_map(Message::to_bytes).collect();
    for length in 0..bytes.len() {
        let mut frames = Frames::default();
        frames.push(&bytes[..length]);
        let (mut target, mut action) = Target::begin(0, 10, 100);
        let end = loop {
            let input = match &action {
                Action::Stop(end) => break end.clone(),
                Action::Wait { .. } | Action::Keep { left_bytes: 1.., .. } => match frames.pop() {
                    Ok(Some(message)) => Input::Message(message),
                    _ => frames.finish().map_or_else(Input::Broken, |()| Input::Closed),
                },
                Action::Check(_) | Action::Send(Message::Accept) => Input::Done,
                other => panic!("after {length} bytes: {other:?}"),
            };
            (target, action) = target.handle(0, input);
        };
        assert!(matches!(end, End::Nothing { .. }), "after {length} bytes: {end:?}");
    }
}
