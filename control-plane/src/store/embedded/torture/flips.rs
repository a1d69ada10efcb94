//! Every byte of every value, and whole entries, altered behind the store's back.

use redb::ReadableTable as _;

use super::disk::{Disk, image};
use super::*;

/// Whatever a value is: a way to alter it.
type Alter<'a> = &'a dyn Fn(&WriteTransaction);

/// A disk with the story on it.
fn written() -> Vec<Op> {
    let disk = Disk::default();
    let store = Embedded::on(disk.clone()).unwrap();
    story(&store, |_, _| {}).unwrap();
    drop(store);
    disk.log()
}

/// The faults of a store in which something was altered.
fn altered(log: &[Op], alter: Alter<'_>) -> Vec<Fault> {
    let disk = image(log.iter());
    let database = Database::builder().create_with_backend(disk).unwrap();
    let store = Embedded { database };
    let write = store.begin().unwrap();
    alter(&write);
    write.commit().unwrap();
    store.verify(&[]).unwrap().faults
}

/// Keys and values of a table whose values are bytes.
fn values<K: redb::Key + 'static, T>(
    log: &[Op],
    table: TableDefinition<'_, K, &'static [u8]>,
    own: impl Fn(K::SelfType<'_>) -> T,
) -> Vec<(T, Vec<u8>)> {
    let database = Database::builder().create_with_backend(image(log.iter())).unwrap();
    let read = database.begin_read().unwrap();
    let table = read.open_table(table).unwrap();
    let items = table.iter().unwrap().map(|item| {
        let (key, value) = item.unwrap();
        (own(key.value()), value.value().to_vec())
    });
    items.collect()
}

fn flipped(value: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut value = value.to_vec();
    value[at] ^= 1 << bit;
    value
}

#[test]
fn every_flipped_byte_is_found() {
    let log = written();
    let mut tried = 0;
    let mut found = |what: String, alter: Alter<'_>| {
        assert_ne!(altered(&log, alter), [], "{what}");
        tried += 1;
    };
    for (revision, value) in values(&log, HISTORY, |key| key) {
        for at in 0..value.len() {
            let bad = flipped(&value, at, (at % 8) as u8);
            found(format!("history {revision} at {at}"), &|write| {
                write.open_table(HISTORY).unwrap().insert(revision, bad.as_slice()).unwrap();
            });
        }
    }
    for (key, value) in values(&log, STATE, |key| key.to_owned()) {
        for at in 0..value.len() {
            let bad = flipped(&value, at, (at % 8) as u8);
            found(format!("state {key} at {at}"), &|write| {
                write.open_table(STATE).unwrap().insert(key.as_str(), bad.as_slice()).unwrap();
            });
        }
    }
    for (hash, value) in values(&log, BLOBS, |key| key.to_vec()) {
        // Each is one run of a letter: some of it tells for all.
        for at in (0..value.len()).step_by(997) {
            let bad = flipped(&value, at, (at % 8) as u8);
            found(format!("blob at {at}"), &|write| {
                write.open_table(BLOBS).unwrap().insert(hash.as_slice(), bad.as_slice()).unwrap();
            });
        }
        for at in 0..hash.len() {
            let bad = flipped(&hash, at, (at % 8) as u8);
            found(format!("blob's hash at {at}"), &|write| {
                let mut table = write.open_table(BLOBS).unwrap();
                table.remove(hash.as_slice()).unwrap();
                table.insert(bad.as_slice(), value.as_slice()).unwrap();
            });
        }
    }
    println!("{tried} flips");
}

/// Numbers: each bit. What is next may only grow: any larger number does as well, as
/// long as the one that it must at least be is not larger.
#[test]
fn every_flipped_bit_of_a_number_is_found_or_means_nothing() {
    let log = written();
    let names = [FORMAT, NEXT, NEXT_LEAST, HEAD_REVISION].into_iter().chain(HEAD);
    for name in names {
        for bit in 0..64 {
            let mut grows = false;
            let old = std::cell::Cell::new(0);
            let faults = altered(&log, &|write| {
                let mut table = write.open_table(META).unwrap();
                let value = table.get(name).unwrap().unwrap().value();
                old.set(value);
                table.insert(name, value ^ (1 << bit)).unwrap();
            });
            let new = old.get() ^ (1 << bit);
            grows |= name == NEXT && new > old.get() && new <= NEXT_MOST;
            grows |= name == NEXT_LEAST && new < old.get();
            assert_eq!(faults.is_empty(), grows, "{name} bit {bit}: {faults:?}");
        }
    }
}

#[test]
fn entries_that_are_deleted_inserted_or_exchanged_are_found() {
    let log = written();
    let entries = values(&log, HISTORY, |key| key);
    let last = entries.len() as u32;
    for (revision, value) in &entries {
        let faults = altered(&log, &|write| {
            write.open_table(HISTORY).unwrap().remove(revision).unwrap();
        });
        assert_ne!(faults, [], "{revision} deleted");
        let faults = altered(&log, &|write| {
            let mut table = write.open_table(HISTORY).unwrap();
            for (at, value) in entries.iter().filter(|(at, _)| at >= revision) {
                table.insert(at + 1, value.as_slice()).unwrap();
            }
        });
        assert_ne!(faults, [], "one inserted before {revision}");
        for (other, own) in entries.iter().filter(|(other, _)| other > revision) {
            let faults = altered(&log, &|write| {
                let mut table = write.open_table(HISTORY).unwrap();
                table.insert(revision, own.as_slice()).unwrap();
                table.insert(other, value.as_slice()).unwrap();
            });
            assert_ne!(faults, [], "{revision} and {other} exchanged");
        }
    }
    let faults = altered(&log, &|write| {
        write.open_table(HISTORY).unwrap().insert(last + 1, b"".as_slice()).unwrap();
    });
    assert_ne!(faults, [], "one appended");
    // All of it gone, as if there never had been anything.
    let faults = altered(&log, &|write| {
        write.delete_table(HISTORY).unwrap();
        write.open_table(HISTORY).unwrap();
        write.delete_table(STATE).unwrap();
        write.open_table(STATE).unwrap();
        write.delete_table(CHANGED).unwrap();
        write.open_table(CHANGED).unwrap();
    });
    assert_ne!(faults, [], "everything deleted");
}

#[test]
fn the_index_is_what_the_history_says() {
    let log = written();
    let faults = altered(&log, &|write| {
        write.open_table(CHANGED).unwrap().remove(("service/products", 2)).unwrap();
    });
    assert_ne!(faults, []);
    let faults = altered(&log, &|write| {
        write.open_table(CHANGED).unwrap().insert(("route/web", 2), ()).unwrap();
    });
    assert_ne!(faults, []);
    let faults = altered(&log, &|write| {
        let state = b"".as_slice();
        write.open_table(STATE).unwrap().insert("route/web", state).unwrap();
    });
    assert_ne!(faults, []);
    assert_eq!(altered(&log, &|_| {}), []);
}

/// Files of a Weir that did not protect the newest entry, and what it adds to those of
/// one that does.
#[test]
fn what_an_older_weir_wrote_is_read() {
    let log = written();
    let without = |write: &WriteTransaction| {
        let mut table = write.open_table(META).unwrap();
        for name in [HEAD_REVISION, NEXT_LEAST].into_iter().chain(HEAD) {
            table.remove(name).unwrap();
        }
    };
    assert_eq!(altered(&log, &without), []);
    let disk = image(log.iter());
    let store = Embedded::on(disk.clone()).unwrap();
    let head = |store: &Embedded| {
        let read = store.database.begin_read().unwrap();
        let table = read.open_table(META).unwrap();
        let names = [HEAD_REVISION].into_iter().chain(HEAD);
        names.map(|name| (name, table.get(name).unwrap().unwrap().value())).collect::<Vec<_>>()
    };
    let old = head(&store);
    shift(&store, 50, 0).unwrap();
    let write = store.begin().unwrap();
    for (name, value) in old {
        write.open_table(META).unwrap().insert(name, value).unwrap();
    }
    write.commit().unwrap();
    assert_eq!(store.verify(&[]).unwrap().faults, []);
}
