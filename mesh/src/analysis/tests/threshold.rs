use crate::analysis::{Judgement, Threshold, ThresholdDecision};

fn after(judgements: &[Judgement]) -> ThresholdDecision {
    let mut threshold = Threshold::new(1, 3);
    judgements.iter().for_each(|judgement| threshold.observe(*judgement));
    threshold.verdict()
}

#[test]
fn passes_promote_failures_roll_back_and_silence_does_neither() {
    use Judgement::{Fail, Pass, Unknown};
    assert_eq!(after(&[]), ThresholdDecision::NotEnough { more: 3 });
    assert_eq!(after(&[Unknown; 50]), ThresholdDecision::NotEnough { more: 3 });
    assert_eq!(after(&[Pass, Fail, Pass]), ThresholdDecision::NotEnough { more: 1 });
    assert_eq!(after(&[Pass, Fail, Pass, Pass]), ThresholdDecision::Promote);
    assert_eq!(after(&[Fail, Unknown, Fail]), ThresholdDecision::RollBack);
    assert_eq!(after(&[Fail, Fail, Pass, Pass, Pass]), ThresholdDecision::RollBack);
    assert_eq!(Threshold::new(0, 0).verdict(), ThresholdDecision::NotEnough { more: 1 });
}
