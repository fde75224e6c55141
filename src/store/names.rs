//! Names of one account's connections, in the order of their last change.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::subject::{Integration, integration_of};

/// Names in memory. A name needs about 150 bytes, its text of 30 included.
#[derive(Default)]
pub(super) struct Names {
    /// By the revision of each connection's entry. A name is its key without the account.
    by_revision: BTreeMap<u64, Arc<str>>,
    revisions: HashMap<Arc<str>, u64>,
    /// Number of names of each integration.
    counts: HashMap<Box<str>, u64>,
}

/// A name with the revision of its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) revision: u64,
    pub(super) name: Arc<str>,
}

/// Part of a list.
pub(super) struct NamesPage {
    pub(super) names: Vec<Named>,
    /// Names on all pages.
    pub(super) total: u64,
    /// True if more follow after the last one.
    pub(super) more: bool,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.revisions.len()
    }

    pub(super) fn revision(&self, name: &str) -> Option<u64> {
        self.revisions.get(name).copied()
    }

    /// Adds a name, or moves it to its newer revision. Keeps a newer one.
    pub(super) fn put(&mut self, name: &str, revision: u64) {
        let name = match self.revisions.get_key_value(name) {
            Some((_, known)) if *known >= revision => return,
            Some((name, known)) => {
                self.by_revision.remove(known);
                Arc::clone(name)
            }
            None => {
                *self.counts.entry(integration_of(name).into()).or_default() += 1;
                Arc::from(name)
            }
        };
        self.by_revision.insert(revision, Arc::clone(&name));
        self.revisions.insert(name, revision);
    }

    /// Removes a name, unless it has a newer revision.
    pub(super) fn remove(&mut self, name: &str, revision: u64) {
        if self.revision(name).is_none_or(|known| known > revision) {
            return;
        }
        if let Some(known) = self.revisions.remove(name) {
            self.by_revision.remove(&known);
        }
        if let Some(count) = self.counts.get_mut(integration_of(name)) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(integration_of(name));
            }
        }
    }

    /// Returns up to `limit` names whose revision is greater than `after`, of one integration or of all.
    pub(super) fn page(&self, integration: Option<&Integration>, after: u64, limit: usize) -> NamesPage {
        let all = u64::try_from(self.len()).unwrap_or(u64::MAX);
        let total = integration.map_or(all, |id| self.counts.get(id.as_str()).copied().unwrap_or(0));
        let is_wanted = |name: &str| integration.is_none_or(|id| integration_of(name) == id.as_str());
        let following = self.by_revision.range((Bound::Excluded(after), Bound::Unbounded));
        let mut following = following.filter(|(_, name)| is_wanted(name));
        let names: Vec<Named> = if total == 0 {
            Vec::new()
        } else {
            let named = |(revision, name): (&u64, &Arc<str>)| Named { revision: *revision, name: Arc::clone(name) };
            following.by_ref().take(limit).map(named).collect()
        };
        // Without the check, an integration without names would cost a look at all names.
        let more = names.len() == limit && following.next().is_some();
        NamesPage { names, total, more }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> String {
        format!("{}.c{number}", if number.is_multiple_of(3) { "other" } else { "odd" })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pages_hold_each_name_at_its_newest_revision(
            changes in prop::collection::vec((0_u8..20, any::<bool>()), 0..80),
            limit in 1_usize..9,
            of_one in any::<bool>(),
        ) {
            let (mut names, mut model) = (Names::default(), BTreeMap::new());
            for (revision, (number, is_removed)) in (1_u64..).zip(changes) {
                if is_removed {
                    names.remove(&name(number), revision);
                    model.remove(&name(number));
                } else {
                    names.put(&name(number), revision);
                    model.insert(name(number), revision);
                }
                // Late news of an older state change nothing.
                names.put(&name(number), 0);
                names.remove(&name(number), 0);
                if is_removed {
                    names.remove(&name(number), revision);
                }
            }
            let integration = of_one.then(|| Integration::parse("odd").unwrap());
            let mut expected: Vec<(u64, String)> = model.into_iter().map(|(name, revision)| (revision, name)).collect();
            expected.retain(|(_, name)| !of_one || name.starts_with("odd."));
            expected.sort_unstable();
            let (mut found, mut after) = (Vec::new(), 0);
            loop {
                let page = names.page(integration.as_ref(), after, limit);
                prop_assert_eq!(page.total, expected.len() as u64);
                found.extend(page.names.iter().map(|named| (named.revision, named.name.to_string())));
                after = page.names.last().map_or(after, |named| named.revision);
                if !page.more {
                    break;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
