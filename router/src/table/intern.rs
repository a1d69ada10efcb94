//! Small numbers for things that outlive a table, so that workers can keep
//! state about them in a vector.

use std::collections::HashMap;
use std::hash::Hash;

/// Gives each key a number, the same one for as long as it lives here.
///
/// Numbers of keys that are gone are given again, so that a mesh whose
/// instances come and go does not grow without bound. A number is given again
/// only after `HELD` other tables were built, by when no request of the old
/// table is still about to look it up.
#[derive(Debug)]
pub struct Interner<K> {
    numbers: HashMap<K, (u32, u64)>,
    free: Vec<(u64, u32)>,
    next: u32,
    epoch: u64,
}

const HELD: u64 = 64;

impl<K: Hash + Eq + Clone> Interner<K> {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { numbers: HashMap::new(), free: Vec::new(), next: 0, epoch: 0 }
    }

    /// Begins a table: what is not asked for until [`Interner::sweep`] goes.
    pub fn begin(&mut self) {
        self.epoch += 1;
    }

    /// The number of `key`.
    pub fn number(&mut self, key: &K) -> u32 {
        let epoch = self.epoch;
        if let Some((number, seen)) = self.numbers.get_mut(key) {
            *seen = epoch;
            return *number;
        }
        let ripe = self.free.iter().position(|(freed, _)| freed + HELD <= epoch);
        let number = match ripe {
            Some(at) => self.free.swap_remove(at).1,
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        self.numbers.insert(key.clone(), (number, epoch));
        number
    }

    /// Ends a table.
    pub fn sweep(&mut self) {
        let epoch = self.epoch;
        let free = &mut self.free;
        self.numbers.retain(|_, (number, seen)| {
            if *seen != epoch {
                free.push((epoch, *number));
            }
            *seen == epoch
        });
    }
}

impl<K: Hash + Eq + Clone> Default for Interner<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_and_is_not_given_again_soon() {
        let mut interner = Interner::new();
        interner.begin();
        let a = interner.number(&"a");
        let b = interner.number(&"b");
        interner.sweep();
        interner.begin();
        assert_eq!(interner.number(&"a"), a);
        interner.sweep();
        interner.begin();
        assert_ne!(interner.number(&"c"), b);
        interner.sweep();
        for _ in 0..HELD {
            interner.begin();
            interner.number(&"a");
            interner.sweep();
        }
        interner.begin();
        assert_eq!(interner.number(&"d"), b);
    }
}
