use super::*;
use PageState::{Private, Shared};

fn range(gfn: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(gfn), pages).unwrap()
}

fn known(runs: &[(u64, u64, PageInfo)]) -> Tracker {
    let mut tracker = Tracker::default();
    for (gfn, pages, info) in runs {
        tracker.set(range(*gfn, *pages), *info);
    }
    tracker
}

fn all_infos() -> impl Iterator<Item = PageInfo> {
    (0..16).map(|bits| PageInfo {
        state: if bits & 1 == 0 { Shared } else { Private },
        is_certain: bits & 2 != 0,
        has_shared: bits & 4 != 0,
        has_private: bits & 8 != 0,
    })
}

#[test]
fn a_fresh_page_has_no_idle_memory_and_each_info_says_what_is_idle() {
    for state in [Shared, Private] {
        assert!(!PageInfo::fresh(state).has_idle() && PageInfo::fresh(state).is(state));
    }
    for info in all_infos() {
        let idle = if info.state == Shared { info.has_private } else { info.has_shared };
        assert_eq!(info.has_idle(), info.is_certain && idle, "{info:?}");
        let doubted = PageInfo { is_certain: false, has_shared: true, has_private: true, ..info };
        assert_eq!(info.doubted(), doubted);
        for state in [Shared, Private] {
            assert_eq!(info.is(state), info.is_certain && info.state == state, "{info:?}");
        }
    }
}

#[test]
fn the_state_of_a_range_is_known_only_if_all_of_it_is_so_and_sure() {
    let doubtful = PageInfo { is_certain: false, ..PageInfo::fresh(Shared) };
    let tracker = known(&[
        (0, 8, PageInfo::fresh(Shared)),
        (8, 8, PageInfo::fresh(Private)),
        (32, 4, doubtful),
        (36, 4, PageInfo { has_private: true, ..PageInfo::fresh(Shared) }),
        (40, 4, PageInfo::fresh(Shared)),
    ]);
    for (gfn, pages, state) in [
        (0, 8, Some(Shared)),
        (9, 7, Some(Private)),
        (7, 2, None),
        (15, 2, None),
        (20, 1, None),
        (32, 1, None),
        (36, 8, Some(Shared)),
        (40, 5, None),
    ] {
        assert_eq!(tracker.state_of(range(gfn, pages)), state, "{gfn} {pages}");
    }
    // Pages without a private half are shared; a page in doubt is not.
    for (gfn, pages, is_shared) in
        [(0, 8, true), (20, 4, true), (0, 9, false), (32, 1, false), (36, 99, true)]
    {
        assert_eq!(tracker.is_shared(range(gfn, pages)), is_shared, "{gfn} {pages}");
    }
}

#[test]
fn a_search_joins_runs_that_differ_in_what_does_not_matter() {
    let tracker = known(&[
        (0, 4, PageInfo::fresh(Private)),
        (4, 4, PageInfo { has_shared: true, ..PageInfo::fresh(Private) }),
        (8, 4, PageInfo::fresh(Shared)),
        (16, 4, PageInfo::fresh(Private)),
    ]);
    let work = |to, pages: Range<u64>, reclaims| tracker.first_work(to, pages, reclaims);
    let change = |gfn, pages| Some(Work::Change(range(gfn, pages)));
    for reclaims in [false, true] {
        assert_eq!(work(Shared, 0..100, reclaims), change(0, 8));
        assert_eq!(work(Shared, 2..6, reclaims), change(2, 4));
        assert_eq!(work(Shared, 8..100, reclaims), change(16, 4), "not over a hole");
    }
    assert_eq!(work(Private, 0..8, false), None);
    assert_eq!(work(Private, 0..100, true), Some(Work::Reclaim(range(4, 4))), "whichever comes first");
    assert_eq!(work(Private, 0..100, false), change(8, 4));
    assert_eq!(tracker.first_idle(0..100), Some((range(4, 4), Private)));
    assert_eq!(tracker.first_idle(8..100), None);
}

#[test]
fn the_count_of_idle_pages_is_that_of_the_runs_after_any_changes() {
    let mut tracker = Tracker::default();
    let mut seed = 7u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % bound
    };
    let infos: Vec<_> = all_infos().collect();
    for _ in 0..5000 {
        let part = range(below(64), below(16) + 1);
        let info = infos[usize::try_from(below(16)).unwrap()];
        match below(3) {
            0 => tracker.set(part, info),
            1 => tracker.update(part, |old| PageInfo { state: info.state, ..old }),
            _ => tracker.forget(part),
        }
        let idle = tracker.runs().filter(|(_, info)| info.has_idle()).map(|(range, _)| range.pages());
        assert_eq!(tracker.idle_pages(), idle.sum::<u64>());
    }
}
