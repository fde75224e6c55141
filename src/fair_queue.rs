//! A queue that its holders share fairly: the next entry to run is one of the waiting holder with the fewest running ones.
//!
//! A holder that is alone may use everything. Holders that all wait have equally many entries running, so each of them gets
//! the same time, however long its entries run. If too many entries wait, the holder with the most entries loses the newest of
//! those that wait.

use std::collections::{HashMap, VecDeque};

#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    holders: HashMap<String, Holder<T>>,
    most_running: usize,
    running: usize,
    waiting: usize,
    /// Entries that start before all others, with their holders. They don't count as waiting.
    first: VecDeque<(String, T)>,
    /// Number of entries started so far.
    started: u64,
}

#[derive(Debug)]
struct Holder<T> {
    running: usize,
    waiting: VecDeque<T>,
    /// Value of [`FairQueue::started`] at this holder's last start, or at its arrival. Among holders with equally many running
    /// entries the one with the lowest is next, so that they take turns.
    last_start: u64,
}

impl<T> Holder<T> {
    /// Returns how many entries run or wait.
    fn entries(&self) -> usize {
        self.running + self.waiting.len()
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn new(most_running: usize) -> Self {
        Self { holders: HashMap::new(), most_running, running: 0, waiting: 0, first: VecDeque::new(), started: 0 }
    }

    /// Adds an entry. At most `most` may wait: the holders with the most entries lose their newest ones, which are returned. If the
    /// holder itself has the most, the result is an error, and the entry is one of those.
    pub(crate) fn push(&mut self, holder: &str, entry: T, most: usize) -> Result<Vec<T>, Vec<T>> {
        let mut shed = Vec::new();
        // There may have been more room before.
        while self.waiting > most {
            shed.extend(self.shed(0));
        }
        if self.waiting == most {
            let own = self.holders.get(holder).map_or(0, Holder::entries);
            let Some(other) = self.shed(own + 1) else {
                shed.push(entry);
                return Err(shed);
            };
            shed.push(other);
        }
        if let Some(holder) = self.holders.get_mut(holder) {
            holder.waiting.push_back(entry);
        } else {
            let new = Holder { running: 0, waiting: VecDeque::from([entry]), last_start: self.started };
            self.holders.insert(holder.to_owned(), new);
        }
        self.waiting += 1;
        Ok(shed)
    }

    /// Removes the newest waiting entry of the holder with the most entries, if it has more than `least`.
    fn shed(&mut self, least: usize) -> Option<T> {
        let waiting = self.holders.iter_mut().filter(|(_, holder)| !holder.waiting.is_empty());
        let (name, longest) = waiting.max_by_key(|(_, holder)| holder.entries())?;
        if longest.entries() <= least {
            return None;
        }
        let shed = longest.waiting.pop_back()?;
        self.waiting -= 1;
        if longest.entries() == 0 {
            let name = name.clone();
            self.holders.remove(&name);
        }
        Some(shed)
    }

    /// Adds an entry that starts before all others, and never has to leave.
    pub(crate) fn push_first(&mut self, holder: &str, entry: T) {
        self.first.push_back((holder.to_owned(), entry));
    }

    /// Starts the next entry, unless none waits or enough are running.
    pub(crate) fn start(&mut self) -> Option<(String, T)> {
        if self.is_full() {
            return None;
        }
        if let Some((name, entry)) = self.first.pop_front() {
            self.begin(&name);
            return Some((name, entry));
        }
        let waiting = self.holders.iter_mut().filter(|(_, holder)| !holder.waiting.is_empty());
        let (name, holder) = waiting.min_by_key(|(_, holder)| (holder.running, holder.last_start))?;
        let entry = holder.waiting.pop_front()?;
        self.started += 1;
        holder.last_start = self.started;
        holder.running += 1;
        self.running += 1;
        self.waiting -= 1;
        Some((name.clone(), entry))
    }

    /// Counts an entry as running that has not waited, even if enough are running.
    pub(crate) fn begin(&mut self, holder: &str) {
        let new = Holder { running: 0, waiting: VecDeque::new(), last_start: self.started };
        self.holders.entry(holder.to_owned()).or_insert(new).running += 1;
        self.running += 1;
    }

    /// Returns how many entries wait that start before all others.
    pub(crate) fn waiting_first(&self) -> usize {
        self.first.len()
    }

    /// Changes how many entries may run. More may be running until they end.
    pub(crate) fn set_most_running(&mut self, most: usize) {
        self.most_running = most;
    }

    /// Returns true if as many entries run as may run.
    pub(crate) fn is_full(&self) -> bool {
        self.running >= self.most_running
    }

    /// Ends a running entry of a holder.
    pub(crate) fn end(&mut self, holder: &str) {
        let Some(ended) = self.holders.get_mut(holder) else { return };
        ended.running -= 1;
        self.running -= 1;
        if ended.running == 0 && ended.waiting.is_empty() {
            self.holders.remove(holder);
        }
    }
}

#[cfg(test)]
mod tests;
