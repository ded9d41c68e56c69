use super::*;
use std::collections::BTreeSet;

#[test]
fn a_fault_happens_at_its_count_of_its_point_and_nowhere_else() {
    for nth in 0..5 {
        for point in Point::ALL {
            let faults = Faults::default();
            faults.set(FaultPlan::new().with(point, nth, Fault::Fails(Errno::ENOMEM)));
            for passed in 0..10 {
                for other in Point::ALL {
                    let expected = if other == point && passed == nth { Err(Errno::ENOMEM) } else { Ok(()) };
                    assert_eq!(faults.fail_at(other), expected, "{} {passed}", other.name());
                }
            }
            let met = faults.met();
            assert_eq!(met, [Met { point, nth, fault: Fault::Fails(Errno::ENOMEM) }]);
        }
    }
}

#[test]
fn without_a_plan_nothing_goes_wrong_and_nothing_is_counted() {
    let faults = Faults::default();
    assert!((0..100).all(|_| Point::ALL.iter().all(|point| faults.at(*point).is_none())));
    assert_eq!(faults.lock().counts.len(), 0);
}

#[test]
fn the_seed_decides_every_fault() {
    let draw = |seed| {
        let faults = Faults::default();
        faults.set(FaultPlan::seeded(seed, 3));
        for _ in 0..200 {
            for point in Point::ALL {
                faults.at(point);
            }
        }
        faults.met()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let points: BTreeSet<_> = draw(1).iter().map(|met| met.point).collect();
    let by_chance = Point::ALL.into_iter().filter(|point| *point != Point::GuestRequestRead);
    assert!(
        points.into_iter().eq(by_chance),
        "each point that chance does not spare goes wrong at one in three"
    );
}

#[test]
fn one_in_zero_never_goes_wrong() {
    let faults = Faults::default();
    faults.set(FaultPlan::seeded(1, 0));
    assert!((0..1000).all(|_| faults.at(Point::Act).is_none()));
}

#[test]
fn a_new_plan_counts_from_0_and_what_is_kept_is_bounded() {
    let faults = Faults::default();
    faults.set(FaultPlan::seeded(1, 1));
    for _ in 0..10_000 {
        faults.at(Point::Act);
    }
    assert_eq!(faults.met().len(), MAX_MET);
    faults.set(FaultPlan::new().with(Point::Act, 0, Fault::Signal));
    assert_eq!(faults.at(Point::Act), Some(Fault::Signal));
}
