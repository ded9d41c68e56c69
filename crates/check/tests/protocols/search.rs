//! Searching a model: all of it, or up to the first property that breaks.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

/// The page that has a row for each search.
const PAGE: &str = include_str!("../../../../docs/protocols.md");

/// A model that can be searched from end to end.
pub(crate) trait Searched: Model + Send + Sync + Clone + 'static {
    /// The name of the protocol, as `docs/protocols.md` has it.
    const NAME: &'static str;
    /// What must stay in reach from every state, in the words of that page.
    const GOAL: &'static str;

    /// Whether a state has reached what must stay in reach. It holds for all states of a search, or the model would
    /// have somebody wait for ever.
    fn is_goal(&self, state: &Self::State) -> bool;
}

/// Walks every state: nothing that must always hold breaks, everything that must be possible is seen, and the goal can
/// be reached from everywhere. At least `floor` states, or the walk proves nothing.
pub(crate) fn exhaust<M>(model: &M, floor: usize)
where
    M: Searched,
    M::State: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let started = Instant::now();
    let checker = model.clone().checker().spawn_bfs().join();
    assert!(checker.is_done(), "the search ended early");
    checker.assert_properties();
    let states = checker.unique_state_count();
    assert!(states >= floor, "{}: {states} states are too few", M::NAME);
    let graph = Graph::of(model);
    // Two walks by two programs that count the same states.
    assert_eq!(graph.states.len(), states);
    if let Some(stranded) = graph.stranded(model) {
        panic!("{}: the goal \"{}\" is out of reach after\n{stranded:#?}", M::NAME, M::GOAL);
    }
    let row = format!("| {} | none | all | {states} | {} |", M::NAME, graph.depth());
    println!("{row} {:.1} s", started.elapsed().as_secs_f64());
    assert!(PAGE.contains(&row), "docs/protocols.md lacks the row\n{row}");
}

/// Searches breadth first for the shortest way to a state where this property breaks.
///
/// Stateright finds that it breaks. Of several states that break it, it reports whichever came last, so the shortest
/// way is searched for here.
pub(crate) fn refute<M>(model: &M, bug: impl Debug, property: &'static str) -> Vec<M::Action>
where
    M: Searched,
    M::State: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let only = HasDiscoveries::AnyOf([property].into());
    let checker = model.clone().checker().finish_when(only).spawn_bfs().join();
    assert!(checker.discoveries().contains_key(property), "{bug:?} does not break \"{property}\"");
    let holds = model.property(property).condition;
    let graph = Graph::until(model, |state| !holds(model, state));
    let actions = graph.way(model, graph.states.len() - 1);
    replay(model, &actions, property);
    row::<M>(bug, property, graph.states.len(), actions.len());
    actions
}

/// Searches for the shortest way to a state that the goal cannot be reached from.
pub(crate) fn strand<M>(model: &M, bug: impl Debug) -> Vec<M::Action>
where
    M: Searched,
    M::State: Clone + Debug + PartialEq + Eq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let graph = Graph::of(model);
    let actions = graph.stranded(model).unwrap_or_else(|| panic!("{bug:?} strands nobody"));
    let mut replayed = model
        .init_states()
        .into_iter()
        .filter_map(|first| Path::from_actions(model, first, &actions).map(|path| path.last_state().clone()));
    assert!(replayed.any(|last| !model.is_goal(&last)), "the way cannot be gone again: {actions:#?}");
    row::<M>(bug, M::GOAL, graph.states.len(), actions.len());
    actions
}

/// Goes the way once more, action by action, and breaks the property at its end and not before.
fn replay<M>(model: &M, actions: &[M::Action], property: &'static str)
where
    M: Searched,
    M::State: Clone + Debug + PartialEq + Eq + Hash,
    M::Action: Clone + Debug + PartialEq,
{
    let holds = model.property(property).condition;
    let replayed = model.init_states().into_iter().any(|first| {
        let Some(path) = Path::from_actions(model, first, actions) else { return false };
        let states = path.into_states();
        let (last, before) = states.split_last().expect("a path has a state");
        !holds(model, last) && before.iter().all(|state| holds(model, state))
    });
    assert!(replayed, "\"{property}\" does not break at the end of {actions:#?}");
}

fn row<M: Searched>(bug: impl Debug, property: &str, states: usize, steps: usize) {
    let row = format!("| {} | `{bug:?}` | {property} | {states} | {steps} |", M::NAME);
    println!("{row}");
    assert!(PAGE.contains(&row), "docs/protocols.md lacks the row\n{row}");
}

/// Every reachable state, in the order of its distance from the first.
///
/// Stateright's own `eventually` is blind where ways join or go in circles, so what must stay in reach is looked for
/// here: backwards from the goals.
struct Graph<S> {
    states: Vec<S>,
    /// Of each state: the state it was first found from, and its distance.
    found: Vec<(usize, usize)>,
    /// Of each state: the states before it.
    before: Vec<Vec<usize>>,
}

impl<S: Clone + Debug + Eq + Hash> Graph<S> {
    fn of<M: Searched<State = S>>(model: &M) -> Self {
        Self::until(model, |_| false)
    }

    /// The states up to the first that ends the search, which is the last one then.
    fn until<M: Searched<State = S>>(model: &M, ends: impl Fn(&S) -> bool) -> Self {
        let mut graph = Self { states: Vec::new(), found: Vec::new(), before: Vec::new() };
        let mut index = HashMap::new();
        let mut queue = VecDeque::new();
        for state in model.init_states() {
            let at = graph.add(&mut index, &mut queue, state, None);
            assert!(!ends(&graph.states[at]), "it is so from the start");
        }
        while let Some(from) = queue.pop_front() {
            let state = graph.states[from].clone();
            for next in model.next_states(&state) {
                let at = graph.add(&mut index, &mut queue, next, Some(from));
                if ends(&graph.states[at]) {
                    return graph;
                }
            }
        }
        graph
    }

    fn add(
        &mut self,
        index: &mut HashMap<S, usize>,
        queue: &mut VecDeque<usize>,
        state: S,
        from: Option<usize>,
    ) -> usize {
        let at = *index.entry(state).or_insert_with_key(|state| {
            let at = self.states.len();
            self.states.push(state.clone());
            self.found.push(from.map_or((at, 1), |from| (from, self.found[from].1 + 1)));
            self.before.push(Vec::new());
            queue.push_back(at);
            at
        });
        if let Some(from) = from {
            self.before[at].push(from);
        }
        at
    }

    fn depth(&self) -> usize {
        self.found.iter().map(|(_, depth)| *depth).max().unwrap_or(0)
    }

    /// The shortest way to a state from which no goal can be reached.
    fn stranded<M>(&self, model: &M) -> Option<Vec<M::Action>>
    where
        M: Searched<State = S>,
        M::Action: Clone + PartialEq,
    {
        let mut reaches = vec![false; self.states.len()];
        let mut queue: VecDeque<usize> =
            (0..self.states.len()).filter(|at| model.is_goal(&self.states[*at])).collect();
        for at in &queue {
            reaches[*at] = true;
        }
        while let Some(at) = queue.pop_front() {
            for before in &self.before[at] {
                if !reaches[*before] {
                    reaches[*before] = true;
                    queue.push_back(*before);
                }
            }
        }
        let at = reaches.iter().position(|reaches| !reaches)?;
        Some(self.way(model, at))
    }

    /// The way on which a state was found, from a first state on.
    fn way<M>(&self, model: &M, mut at: usize) -> Vec<M::Action>
    where
        M: Searched<State = S>,
        M::Action: Clone + PartialEq,
    {
        let mut actions = Vec::new();
        while self.found[at].1 > 1 {
            let from = self.found[at].0;
            let steps = model.next_steps(&self.states[from]);
            let step = steps.into_iter().find(|(_, next)| *next == self.states[at]);
            actions.push(step.expect("the state was found from there").0);
            at = from;
        }
        actions.reverse();
        actions
    }
}
