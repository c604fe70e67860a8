use super::*;

fn at(epoch: u32, sequence: u64) -> Counter {
    Counter { epoch, sequence }
}

#[test]
fn an_honest_repeat_is_told_from_a_forgery_and_from_what_is_late() {
    let (one, other) = (Digest([1; 32]), Digest([2; 32]));
    let mut window = Window::new(2);
    assert_eq!(window.look(at(0, 0), &one), Look::Fresh);
    window.admit(at(0, 0), one);
    assert_eq!(window.look(at(0, 0), &one), Look::Repeat);
    assert_eq!(window.look(at(0, 0), &other), Look::Forged);
    window.admit(at(1, 5), one);
    window.admit(at(1, 6), one);
    assert_eq!(window.look(at(0, 0), &other), Look::Late, "no longer remembered: not judged here");
    assert_eq!(window.look(at(1, 4), &one), Look::Late);
    assert_eq!(window.look(at(1, 7), &one), Look::Fresh);
    assert_eq!(window.look(at(2, 0), &one), Look::Fresh, "a later epoch is newer at any sequence");
}
