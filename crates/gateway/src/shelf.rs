//! Which images the cache holds, and which have to go for another. Pure.
//!
//! Promises: what it holds and what is on its way together take no more than `bytes_max` (INV-COST-1); whoever was used
//! longest ago goes first; what somebody reads goes only for want of room on the disk.
//! Never: touches a file: whoever owns one does what is said here.

use model::Digest;
use std::collections::HashMap;

/// One image, or the beginning of one.
#[derive(Clone, Debug)]
struct Image {
    /// What it takes; while it grows: what it will take.
    len: u64,
    state: State,
    readers: usize,
    /// Grows with each use of any image.
    used: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Some of it, of a fetch that came to its end early.
    Part,
    /// A fetch is at it.
    Growing,
    /// All of it, as it was found at the start, or in doubt since: what it is has to be looked at before it is given to anybody.
    Found,
    /// All of it, and this process has seen its digest, and nothing that speaks against it.
    Verified,
}

/// What is there of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Nothing,
    /// Its beginning.
    Part,
    /// Somebody is at it.
    Growing,
    /// All of it, to be verified first.
    Unverified,
    Ready {
        len: u64,
    },
}

/// It would not fit if everything else were gone, or everything else is read or on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    pub ever: bool,
}

#[derive(Clone, Debug)]
pub struct Shelf {
    bytes_max: u64,
    uses: u64,
    images: HashMap<Digest, Image>,
}

impl Shelf {
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, uses: 0, images: HashMap::new() }
    }

    /// Something that was there before this process, in the order of its use.
    pub fn found(&mut self, digest: Digest, len: u64, is_whole: bool) {
        let state = if is_whole { State::Found } else { State::Part };
        let used = self.next_use();
        self.images.insert(digest, Image { len, state, readers: 0, used });
    }

    /// What has to go at once: there may have been more room before this process.
    pub fn fit(&mut self) -> Vec<Digest> {
        self.drop_until(self.bytes_max).unwrap_or_default()
    }

    pub fn look(&mut self, digest: &Digest) -> Look {
        let used = self.next_use();
        let Some(image) = self.images.get_mut(digest) else { return Look::Nothing };
        image.used = used;
        match image.state {
            State::Part => Look::Part,
            State::Growing => Look::Growing,
            State::Found => Look::Unverified,
            State::Verified => Look::Ready { len: image.len },
        }
    }

    /// An image of so many bytes is on its way: says what goes for it. Nothing changes where there is no room.
    pub fn begin(&mut self, digest: Digest, len: u64) -> Result<Vec<Digest>, NoRoom> {
        let left = self.bytes_max.checked_sub(len).ok_or(NoRoom { ever: false })?;
        let before = self.images.remove(&digest);
        match self.drop_until(left) {
            Ok(gone) => {
                let used = self.next_use();
                let readers = before.map_or(0, |image| image.readers);
                self.images.insert(digest, Image { len, state: State::Growing, readers, used });
                Ok(gone)
            }
            Err(no_room) => {
                self.images.extend(before.map(|image| (digest, image)));
                Err(no_room)
            }
        }
    }

    /// Whether a fetch may go on: it may not once its room was given away.
    pub fn is_growing(&self, digest: &Digest) -> bool {
        self.images.get(digest).is_some_and(|image| image.state == State::Growing)
    }

    /// All of it is there, and its digest is right.
    pub fn verified(&mut self, digest: &Digest) {
        if let Some(image) = self.images.get_mut(digest) {
            image.state = State::Verified;
        }
    }

    /// A fetch came to its end early, with so many bytes that a later one can begin with.
    pub fn left_off(&mut self, digest: &Digest, len: u64) {
        if let Some(image) = self.images.get_mut(digest) {
            (image.state, image.len) = (State::Part, len);
        }
    }

    /// There is reason to think that it is not what it was: it is verified again before it is given to anybody.
    pub fn doubt(&mut self, digest: &Digest) {
        if let Some(image) = self.images.get_mut(digest)
            && image.state == State::Verified
        {
            image.state = State::Found;
        }
    }

    pub fn forget(&mut self, digest: &Digest) {
        self.images.remove(digest);
    }

    /// Somebody reads it from now on.
    pub fn pin(&mut self, digest: &Digest) {
        if let Some(image) = self.images.get_mut(digest) {
            image.readers += 1;
        }
    }

    pub fn unpin(&mut self, digest: &Digest) {
        if let Some(image) = self.images.get_mut(digest) {
            image.readers = image.readers.saturating_sub(1);
        }
    }

    /// Somebody else needs so many bytes of the disk more than there are: what goes for that. At first what nobody reads;
    /// then what is on its way or read, since a device can go on where it was, and what was acknowledged must have its place.
    pub fn give_way(&mut self, bytes: u64) -> Vec<Digest> {
        let mut images: Vec<(bool, u64, Digest)> = self
            .images
            .iter()
            .map(|(digest, image)| (!image.is_idle(), image.used, *digest))
            .collect();
        images.sort_unstable();
        let mut freed = 0;
        let mut gone = Vec::new();
        for (_, _, digest) in images {
            if freed >= bytes {
                break;
            }
            freed += self.images.remove(&digest).map_or(0, |image| image.len);
            gone.push(digest);
        }
        gone
    }

    /// What all of it takes, or will take.
    pub fn bytes(&self) -> u64 {
        self.images.values().map(|image| image.len).sum()
    }

    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Everything, used longest ago first.
    pub fn in_order(&self) -> Vec<Digest> {
        let mut all: Vec<(u64, Digest)> =
            self.images.iter().map(|(digest, image)| (image.used, *digest)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Removes what is idle until all takes at most so many bytes; or nothing, if that is not enough.
    fn drop_until(&mut self, bytes_max: u64) -> Result<Vec<Digest>, NoRoom> {
        let mut bytes = self.bytes();
        let mut gone = Vec::new();
        for digest in self.in_order() {
            if bytes <= bytes_max {
                break;
            }
            if self.images[&digest].is_idle() {
                bytes -= self.images[&digest].len;
                gone.push(digest);
            }
        }
        if bytes > bytes_max {
            return Err(NoRoom { ever: true });
        }
        for digest in &gone {
            self.images.remove(digest);
        }
        Ok(gone)
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

impl Image {
    fn is_idle(&self) -> bool {
        self.readers == 0 && self.state != State::Growing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(n: u8) -> Digest {
        Digest([n; 32])
    }

    /// 1, 2 and 3, of 10 bytes each, in the order of their use.
    fn three() -> Shelf {
        let mut shelf = Shelf::new(30);
        for n in 1..=3 {
            assert_eq!(shelf.begin(d(n), 10), Ok(vec![]));
            shelf.verified(&d(n));
        }
        shelf
    }

    #[test]
    fn who_was_used_longest_ago_goes_first() {
        let mut shelf = three();
        assert_eq!(shelf.look(&d(1)), Look::Ready { len: 10 });
        assert_eq!(shelf.begin(d(4), 11), Ok(vec![d(2), d(3)]));
        assert_eq!((shelf.bytes(), shelf.images()), (21, 2));
        assert_eq!(shelf.in_order(), [d(1), d(4)]);
    }

    /// INV-COST-1.
    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut shelf = three();
        assert_eq!(shelf.begin(d(4), 31), Err(NoRoom { ever: false }));
        shelf.pin(&d(1));
        assert_eq!(shelf.begin(d(4), 21), Err(NoRoom { ever: true }));
        assert_eq!((shelf.bytes(), shelf.images()), (30, 3));
        shelf.unpin(&d(1));
        assert_eq!(shelf.begin(d(4), 21), Ok(vec![d(1), d(2), d(3)]));
        // What grows is nobody's to take.
        assert_eq!(shelf.begin(d(5), 10), Err(NoRoom { ever: true }));
        assert_eq!(shelf.look(&d(4)), Look::Growing);
        // The length that a part had was not yet that of the whole.
        shelf.left_off(&d(4), 3);
        assert_eq!((shelf.bytes(), shelf.look(&d(4))), (3, Look::Part));
        assert_eq!(shelf.begin(d(4), 31), Err(NoRoom { ever: false }));
        assert_eq!(shelf.look(&d(4)), Look::Part);
        assert_eq!(shelf.begin(d(4), 30), Ok(vec![]));
    }

    #[test]
    fn want_of_room_on_the_disk_takes_what_is_idle_first_and_all_in_the_end() {
        let mut shelf = three();
        shelf.pin(&d(1));
        assert_eq!(shelf.give_way(1), [d(2)]);
        shelf.forget(&d(3));
        assert!(shelf.begin(d(4), 10).is_ok());
        assert_eq!(shelf.give_way(100), [d(1), d(4)]);
        assert!(!shelf.is_growing(&d(4)));
        // Whoever was at it comes to know, and its end changes nothing any more.
        shelf.left_off(&d(4), 5);
        shelf.verified(&d(4));
        shelf.unpin(&d(1));
        assert_eq!((shelf.bytes(), shelf.images()), (0, 0));
        assert_eq!(shelf.give_way(1), []);
    }

    #[test]
    fn what_was_found_is_verified_before_it_is_given_and_fits_into_less() {
        let mut shelf = Shelf::new(25);
        for n in 1..=3 {
            shelf.found(d(n), 10, n != 2);
        }
        assert_eq!(shelf.fit(), [d(1)]);
        assert_eq!((shelf.look(&d(2)), shelf.look(&d(3))), (Look::Part, Look::Unverified));
        shelf.verified(&d(3));
        assert_eq!(shelf.look(&d(3)), Look::Ready { len: 10 });
        assert_eq!(shelf.look(&d(1)), Look::Nothing);
        // Once more, when there is reason to; what is no whole image is not believed anyway.
        for n in 1..=3 {
            shelf.doubt(&d(n));
        }
        assert_eq!(
            [1, 2, 3].map(|n| shelf.look(&d(n))),
            [Look::Nothing, Look::Part, Look::Unverified]
        );
    }
}
