use super::*;

fn at(epoch: u32, sequence: u64) -> Counter {
    Counter { epoch, sequence }
}

fn digest_of(counter: Counter) -> Digest {
    crate::digest(alloc::format!("{counter:?}").as_bytes())
}

fn admit(taken: &mut Taken, counter: Counter) -> Admission {
    taken.admit(counter, &digest_of(counter), None)
}

#[test]
fn a_counter_is_new_once_and_a_repeat_after_that() {
    let mut taken = Taken::default();
    assert_eq!(admit(&mut taken, at(0, 3)), Admission::New);
    assert_eq!(taken.open_gaps(), [(0, 0, 2)]);
    assert_eq!(admit(&mut taken, at(0, 3)), Admission::Repeat);
    assert_eq!(taken.admit(at(0, 3), &Digest([9; 32]), None), Admission::Equivocation);
    for sequence in [0, 2, 1] {
        assert_eq!(admit(&mut taken, at(0, sequence)), Admission::New);
    }
    assert_eq!(taken.open_gaps(), []);
    assert_eq!(Taken::decode(&taken.encode()), Ok(taken));
}
