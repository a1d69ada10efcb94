use proptest::prelude::*;
use weir_mesh::model::Transport;

use super::*;

const GRACES: Graces = Graces { leave: Duration::from_secs(5), empty: Duration::from_secs(30) };

fn seen(id: &str, healthy: bool) -> Seen {
    let port = id.bytes().map(u16::from).sum();
    let instance = Instance {
        id: id.into(),
        service: "web".parse().unwrap(),
        version: "v1".parse().unwrap(),
        address: ([10, 0, 0, 1], port).into(),
        transport: Transport::Plain,
        zone: "".into(),
        healthy,
        identity: None,
    };
    Seen { instance, protocol: None }
}

fn answer(index: u64, ids: &[&str]) -> Answer {
    let seen = ids.iter().map(|id| seen(id, true)).collect();
    Answer { index: Some(index), filtered: false, seen }
}

fn ids(known: &Known) -> Vec<String> {
    known.instances().iter().map(|i| i.id.to_string()).collect()
}

fn healthy(known: &Known) -> Vec<bool> {
    known.instances().iter().map(|i| i.healthy).collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn one_that_is_not_listed_stays_for_a_while() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(1, &["a", "b"]), start);
    known.take(answer(2, &["a"]), start);
    assert_eq!((ids(&known).len(), known.kept()), (2, 1));
    assert_eq!(known.next(), Some(start + seconds(5)));
    known.pass(start + seconds(4));
    known.take(answer(3, &["a", "b"]), start + seconds(4));
    known.pass(start + seconds(9));
    assert_eq!(ids(&known), ["a", "b"], "it came back");
    known.take(answer(4, &["a"]), start + seconds(10));
    known.take(answer(5, &["a"]), start + seconds(14));
    known.pass(start + seconds(15));
    assert_eq!(ids(&known), ["a"], "other answers do not begin its grace anew");
}

#[test]
fn one_that_comes_to_the_place_of_another_takes_it() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(1, &["ab", "c"]), start);
    known.take(answer(2, &["c"]), start);
    known.take(answer(3, &["ba", "c"]), start);
    assert_eq!(ids(&known), ["ba", "c"], "the same address");
}

#[test]
fn an_empty_answer_must_be_confirmed() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(7, &["a"]), start);
    known.take(answer(8, &[]), start);
    assert!(known.doubt().is_some());
    known.pass(start + seconds(1000));
    assert_eq!(ids(&known), ["a"], "time alone does not empty it");
    known.take(answer(8, &[]), start + seconds(29));
    known.take(answer(8, &[]), start + seconds(29));
    assert_eq!(ids(&known), ["a"], "nor do answers alone");
    known.take(answer(8, &[]), start + seconds(30));
    assert!(known.is_empty());
}

#[test]
fn one_answer_late_is_not_enough() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(7, &["a"]), start);
    known.take(answer(8, &[]), start);
    known.take(answer(8, &[]), start + seconds(60));
    assert_eq!(ids(&known), ["a"]);
    known.take(answer(9, &["a"]), start + seconds(61));
    assert_eq!(known.kept(), 0, "it was a hiccup");
}

#[test]
fn an_index_that_does_not_grow_is_a_memory_that_was_lost() {
    for index in [7, 2] {
        let start = Instant::now();
        let mut known = Known::new(GRACES, Vec::new());
        known.take(answer(7, &["a"]), start);
        for at in [0, 30, 60, 299] {
            known.take(answer(index, &[]), start + seconds(at));
        }
        assert_eq!(ids(&known), ["a"], "index {index}");
        known.take(answer(index, &[]), start + seconds(300));
        assert!(known.is_empty(), "index {index}");
    }
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(7, &["a"]), start);
    known.take(answer(8, &[]), start);
    known.take(answer(3, &[]), start + seconds(29));
    for at in [30, 40, 50] {
        known.take(answer(3, &[]), start + seconds(at));
    }
    assert_eq!(ids(&known), ["a"], "it went back in between");
}

#[test]
fn what_was_held_back_empties_nothing() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(7, &["a", "b"]), start);
    assert!(!known.lacks(&answer(8, &["a", "b", "c"]).seen));
    assert!(known.lacks(&answer(8, &["b"]).seen));
    for at in 0..10 {
        known.take(Answer { index: None, ..answer(8, &[]) }, start + seconds(at * 100));
    }
    assert_eq!((ids(&known).len(), known.doubt()), (2, None));
}

#[test]
fn what_acls_hide_is_not_gone() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    known.take(answer(1, &["a", "b"]), start);
    let filtered = |ids| Answer { filtered: true, ..answer(2, ids) };
    known.take(filtered(&["b"]), start);
    known.pass(start + seconds(1000));
    for at in 0..10 {
        known.take(filtered(&[]), start + seconds(at * 100));
    }
    assert_eq!(ids(&known), ["a", "b"]);
}

#[test]
fn one_that_falls_often_must_pass_for_a_while() {
    let start = Instant::now();
    let mut known = Known::new(GRACES, Vec::new());
    let set = |known: &mut Known, healthy, at| {
        let answer = Answer { index: None, filtered: false, seen: vec![seen("a", healthy)] };
        known.take(answer, start + seconds(at));
    };
    set(&mut known, true, 0);
    set(&mut known, false, 1);
    assert_eq!(healthy(&known), [false], "critical counts at once");
    set(&mut known, true, 2);
    assert_eq!(healthy(&known), [true], "the first time");
    set(&mut known, false, 3);
    set(&mut known, true, 4);
    assert_eq!(healthy(&known), [false], "the second time it must pass for 5 s");
    assert_eq!(known.next(), Some(start + seconds(9)));
    set(&mut known, true, 5);
    known.pass(start + seconds(9));
    assert_eq!(healthy(&known), [true]);
    set(&mut known, false, 10);
    set(&mut known, true, 11);
    known.pass(start + seconds(20));
    assert_eq!(healthy(&known), [false], "the third time for 10 s");
    known.pass(start + seconds(21));
    assert_eq!(healthy(&known), [true]);
    set(&mut known, false, 200);
    set(&mut known, true, 201);
    assert_eq!(healthy(&known), [true], "old falls are forgotten");
}

#[test]
fn most_say_what_a_service_speaks() {
    let mut known = Known::new(GRACES, Vec::new());
    assert_eq!(known.protocol(), Protocol::Http1);
    let with = |id, protocol| Seen { protocol, ..seen(id, true) };
    let all = vec![
        with("a", Some(Protocol::Grpc)),
        with("b", None),
        with("c", Some(Protocol::Grpc)),
        with("d", Some(Protocol::Http1)),
    ];
    known.take(Answer { index: Some(1), filtered: false, seen: all }, Instant::now());
    assert_eq!(known.protocol(), Protocol::Grpc);
}

proptest! {
    /// Whatever Consul answers, and whenever: within the shorter grace of the last
    /// answer that listed something, something is there.
    #[test]
    fn a_service_is_never_emptied_at_once(
        steps in prop::collection::vec(
            (0u64..20, 0u64..6, prop::collection::vec(0u8..4, 0..3), any::<bool>()),
            1..40,
        ),
    ) {
        let start = Instant::now();
        let mut known = Known::new(GRACES, Vec::new());
        let (mut now, mut listed) = (start, None);
        for (after, index, ids, filtered) in steps {
            now += seconds(after);
            known.pass(now);
            let names = ["a", "b", "c", "d"];
            let ids: Vec<_> = ids.iter().map(|i| names[usize::from(*i)]).collect();
            known.take(Answer { filtered, ..answer(index, &ids) }, now);
            if !ids.is_empty() {
                listed = Some(now);
            }
            for id in &ids {
                prop_assert!(known.instances().iter().any(|i| &*i.id == *id), "{id} is listed");
            }
            if listed.is_some_and(|at| now < at + GRACES.empty) {
                prop_assert!(!known.is_empty());
            }
        }
    }
}
