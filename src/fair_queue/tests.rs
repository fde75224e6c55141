use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Holder = u16;

/// A queue with everything that has happened to its entries.
struct Watched {
    queue: FairQueue<usize>,
    most_waiting: usize,
    pushed: usize,
    running: Vec<Holder>,
    waiting: BTreeMap<Holder, VecDeque<usize>>,
    first: VecDeque<(Holder, usize)>,
}

impl Watched {
    fn new(most_running: usize, most_waiting: usize) -> Self {
        let queue = FairQueue::new(most_running);
        Self { queue, most_waiting, pushed: 0, running: Vec::new(), waiting: BTreeMap::new(), first: VecDeque::new() }
    }

    /// Adds an entry. Returns the holders that lose one.
    fn push(&mut self, holder: Holder) -> Vec<Holder> {
        self.pushed += 1;
        self.waiting.entry(holder).or_default().push_back(self.pushed);
        let shed = self.queue.push(&holder.to_string(), self.pushed, self.most_waiting);
        let shed = shed.unwrap_or_else(|with_own| with_own).into_iter();
        let losers = shed.map(|shed| {
            let (loser, waiting) =
                self.waiting.iter_mut().find(|(_, waiting)| waiting.back() == Some(&shed)).expect("the newest is shed");
            waiting.pop_back();
            *loser
        });
        losers.collect()
    }

    fn push_first(&mut self, holder: Holder) {
        self.pushed += 1;
        self.first.push_back((holder, self.pushed));
        self.queue.push_first(&holder.to_string(), self.pushed);
    }

    /// Starts all that may run. Those that go first start in their order, and then each holder's entries in theirs.
    fn start_all(&mut self) {
        while let Some((holder, entry)) = self.queue.start() {
            let holder = holder.parse().expect("the holders are numbers");
            match self.first.pop_front() {
                Some(first) => assert_eq!(first, (holder, entry)),
                None => assert_eq!(self.waiting.get_mut(&holder).and_then(VecDeque::pop_front), Some(entry)),
            }
            self.running.push(holder);
        }
    }

    /// Counts an entry as running.
    fn begin(&mut self, holder: Holder) {
        self.queue.begin(&holder.to_string());
        self.running.push(holder);
    }

    /// Ends the running entry with this index, counted in a circle.
    fn end(&mut self, index: usize) {
        if !self.running.is_empty() {
            let holder = self.running.remove(index % self.running.len());
            self.queue.end(&holder.to_string());
        }
    }

    fn all_waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn running_of(&self, holder: Holder) -> usize {
        self.running.iter().filter(|running| **running == holder).count()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(Holder),
    PushFirst(Holder),
    Begin(Holder),
    End(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let holder = 0..5_u16;
    let step = prop_oneof![
        4 => holder.clone().prop_map(Step::Push),
        1 => holder.clone().prop_map(Step::PushFirst),
        1 => holder.prop_map(Step::Begin),
        5 => any::<usize>().prop_map(Step::End),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn h11_no_entry_is_lost_and_no_permit_idle(
        steps in steps(), most_running in 1..6_usize, most_waiting in 0..10_usize,
    ) {
        let mut watched = Watched::new(most_running, most_waiting);
        for step in steps {
            match step {
                Step::Push(holder) => drop(watched.push(holder)),
                Step::PushFirst(holder) => watched.push_first(holder),
                Step::Begin(holder) => watched.begin(holder),
                Step::End(index) => watched.end(index),
            }
            prop_assert!(watched.all_waiting() <= most_waiting);
            watched.start_all();
            let running = watched.running.len();
            prop_assert!(running >= most_running || watched.all_waiting() == 0 && watched.first.is_empty());
        }
        while !watched.running.is_empty() {
            watched.end(0);
            watched.start_all();
        }
        prop_assert_eq!(watched.all_waiting(), 0);
        prop_assert!(watched.queue.holders.is_empty(), "idle holders are forgotten");
    }

    #[test]
    fn h11_holders_that_all_wait_run_equally_many(ends in prop::collection::vec(any::<usize>(), 80), holders in 2..6_u16) {
        let mut watched = Watched::new(12, 1_000);
        for _ in 0..300 {
            watched.push(0);
        }
        watched.start_all();
        prop_assert_eq!(watched.running_of(0), 12, "a holder that is alone uses everything");
        for holder in (1..holders).flat_map(|holder| [holder; 100]) {
            watched.push(holder);
        }
        // The others get the first permits that the first holder returns, however many of its own entries wait.
        let share = 12 / usize::from(holders);
        for _ in share..12 {
            watched.end(watched.running.iter().position(|holder| *holder == 0).expect("one of the first"));
            watched.start_all();
        }
        for index in ends {
            let counts: Vec<usize> = (0..holders).map(|holder| watched.running_of(holder)).collect();
            let fair = counts.iter().all(|count| (share..=share + 1).contains(count));
            prop_assert!(fair, "{counts:?}");
            watched.end(index);
            watched.start_all();
        }
    }
}

#[test]
fn h11_holders_take_turns_when_there_are_more_of_them_than_permits() {
    let mut watched = Watched::new(1, 100);
    for holder in [0, 0, 0, 1, 1, 2] {
        watched.push(holder);
    }
    let mut order = Vec::new();
    for arrives in [3, 3, 3, 3, 3, 3] {
        watched.start_all();
        order.push(watched.running[0]);
        watched.push(arrives);
        watched.end(0);
    }
    // A holder that keeps calling gets no more than its turn.
    assert_eq!(order[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{order:?}");
    assert!(order.iter().filter(|holder| **holder == 3).count() <= 2, "{order:?}");
}

#[test]
fn h11_the_longest_queue_loses_its_newest() {
    let mut watched = Watched::new(0, 4);
    assert_eq!([0, 0, 0, 0].map(|holder| watched.push(holder)), [const { Vec::<Holder>::new() }; 4]);
    assert_eq!(watched.push(0), [0], "the arriving entry is its holder's newest");
    assert_eq!([1, 1, 1].map(|holder| watched.push(holder)), [[0], [0], [1]]);
    let losers = [2, 3].map(|holder| watched.push(holder));
    assert!(
        [[[0], [1]], [[1], [0]]].contains(&losers.clone().map(|lost| [lost[0]])),
        "each has two entries: {losers:?}"
    );
    assert_eq!(watched.push(4), [4], "each holder has one");
}

#[test]
fn with_less_room_than_before_the_longest_queues_lose_their_newest() {
    let mut watched = Watched::new(0, 6);
    for holder in [0, 0, 0, 0, 1, 2] {
        watched.push(holder);
    }
    watched.most_waiting = 2;
    let losers = watched.push(3);
    assert_eq!((losers.len(), &losers[..3], losers[4]), (5, &[0; 3][..], 3), "{losers:?}");
    assert_eq!(watched.all_waiting(), 2, "one each");
    assert_eq!(watched.queue.holders.len(), 2, "a holder that lost all is forgotten");
}

/// As many flooding holders as places, each with running entries, keep no other holder out.
#[test]
fn h11_a_holder_without_entries_takes_the_place_of_one_with_several() {
    let mut watched = Watched::new(4, 4);
    for holder in [0, 1, 2, 3] {
        watched.begin(holder);
        watched.push(holder);
    }
    assert_eq!(watched.push(0), [0], "all have as many");
    let losers = watched.push(4);
    assert_eq!(losers.len(), 1);
    assert_ne!(losers, [4]);
    assert_eq!(watched.push(5).len(), 1);
    assert_eq!(watched.push(4), [4], "it has one");
}
