//! Consistent hashing: the same key, the same instance, and when one instance
//! goes only its own keys move.

use crate::table::point;

/// Places of each instance on the ring. The largest share of one is then some
/// 30 % above the mean.
const PLACES: usize = 100;
/// Entries of a Maglev table: a prime, some hundred times as many as there are
/// usually instances (Eisenbud et al., 2016, §5.3).
const ENTRIES: usize = 65_537;

/// Instances by hash. All of them, whether usable or not: so a key comes back
/// to its instance when that does.
#[derive(Debug)]
pub enum Hashed {
    /// Places in ascending order, each with an index of an instance.
    Ring(Box<[(u64, u16)]>),
    /// For each entry an index of an instance.
    Maglev(Box<[u16]>),
}

impl Hashed {
    /// A ring of instances with these ids; the first 65,535.
    #[must_use]
    pub fn ring<'a>(ids: impl Iterator<Item = &'a str>) -> Self {
        let places = ids.zip(0..u16::MAX).flat_map(|(id, index)| {
            (0..PLACES).map(move |place| (point(format!("{id}#{place}").as_bytes()), index))
        });
        let mut ring: Vec<_> = places.collect();
        ring.sort_unstable();
        Self::Ring(ring.into())
    }

    /// A Maglev table of instances with these ids; the first 65,535.
    #[must_use]
    pub fn maglev<'a>(ids: impl Iterator<Item = &'a str>) -> Self {
        // In the order of their hashes: the table does not depend on the order
        // in which instances are listed.
        let mut all: Vec<(u64, u64, u16)> = ids
            .zip(0..u16::MAX)
            .map(|(id, index)| {
                (point(id.as_bytes()), point(format!("{id}#skip").as_bytes()), index)
            })
            .collect();
        all.sort_unstable();
        if all.is_empty() {
            return Self::Maglev(Box::default());
        }
        let size = ENTRIES as u64;
        let mut next: Vec<(u64, u64)> =
            all.iter().map(|(offset, skip, _)| (offset % size, skip % (size - 1) + 1)).collect();
        let mut table: Vec<Option<u16>> = vec![None; ENTRIES];
        let mut filled = 0;
        while filled < ENTRIES {
            for ((at, skip), (.., index)) in next.iter_mut().zip(&all) {
                while table[entry(*at)].is_some() {
                    *at = (*at + *skip) % size;
                }
                table[entry(*at)] = Some(*index);
                filled += 1;
                if filled == ENTRIES {
                    break;
                }
            }
        }
        Self::Maglev(table.into_iter().flatten().collect())
    }

    /// The instance of a key: the first from its place on that `may` takes.
    pub fn find(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let walk = |from: usize, length: usize, at: &dyn Fn(usize) -> u16| {
            let mut refused = None;
            for step in 0..length {
                let index = at((from + step) % length);
                // Neighbours are often the same.
                if refused == Some(index) {
                    continue;
                }
                if may(index.into()) {
                    return Some(usize::from(index));
                }
                refused = Some(index);
            }
            None
        };
        match self {
            Self::Ring(ring) => {
                let from = ring.partition_point(|(place, _)| *place < key);
                walk(from, ring.len(), &|at| ring[at].1)
            }
            Self::Maglev(table) => walk(entry(key % ENTRIES as u64), table.len(), &|at| table[at]),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below 65,537")]
fn entry(at: u64) -> usize {
    at as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: u64 = 4_000;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("web-v1@10.0.0.{i}:80")).collect()
    }

    fn place<'a>(hashed: &Hashed, ids: &'a [String], key: u64) -> &'a str {
        &ids[hashed.find(point(&key.to_be_bytes()), |_| true).unwrap()]
    }

    fn make(ring: bool, ids: &[String]) -> Hashed {
        let ids = ids.iter().map(String::as_str);
        if ring { Hashed::ring(ids) } else { Hashed::maglev(ids) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn when_one_goes_little_more_than_its_keys_move(
            count in 2..20_usize, gone in any::<prop::sample::Index>(), ring in any::<bool>(),
        ) {
            let before = ids(count);
            let mut after = before.clone();
            let gone = after.remove(gone.index(count));
            let (old, new) = (make(ring, &before), make(ring, &after));
            let (mut own, mut others) = (0, 0);
            for key in 0..KEYS {
                let (from, to) = (place(&old, &before, key), place(&new, &after, key));
                prop_assert_ne!(to, gone.as_str());
                own += u64::from(from == gone);
                others += u64::from(from != gone && from != to);
            }
            // Not more than its share, with what a hash spreads unevenly.
            prop_assert!(own <= KEYS * 2 / count as u64, "{own} of {KEYS} keys were its own");
            match ring {
                true => prop_assert_eq!(others, 0),
                false => prop_assert!(others <= KEYS / 20, "{others} of {KEYS} keys moved as well"),
            }
        }

        #[test]
        fn one_that_is_left_out_moves_its_own_keys_alone(
            count in 2..20_usize, out in any::<prop::sample::Index>(), ring in any::<bool>(),
        ) {
            let ids = ids(count);
            let hashed = make(ring, &ids);
            let out = out.index(count);
            for key in (0..KEYS).map(|key| point(&key.to_be_bytes())) {
                let usual = hashed.find(key, |_| true).unwrap();
                let now = hashed.find(key, |index| index != out).unwrap();
                prop_assert!(now != out && (usual == out || usual == now));
            }
        }

        #[test]
        fn shares_are_about_even(count in 1..20_usize, ring in any::<bool>()) {
            let ids = ids(count);
            let hashed = make(ring, &ids);
            let mut shares = vec![0_u64; count];
            for key in (0..KEYS).map(|key| point(&key.to_be_bytes())) {
                shares[hashed.find(key, |_| true).unwrap()] += 1;
            }
            let mean = KEYS / count as u64;
            for share in shares {
                prop_assert!((mean / 2..=mean * 2).contains(&share), "{share} of {mean}");
            }
        }
    }

    #[test]
    fn without_instances_there_is_none() {
        for ring in [true, false] {
            assert_eq!(make(ring, &[]).find(7, |_| true), None);
        }
    }
}
