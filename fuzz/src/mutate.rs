//! Seeded mutation of bytes.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose mutations.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }
}

/// Bytes at which CBOR, DER and MQTT change their meaning: heads, widths, ends.
const TELLING: [u8; 24] = [
    0x00, 0x01, 0x10, 0x17, 0x18, 0x1b, 0x30, 0x32, 0x3b, 0x40, 0x58, 0x5b, 0x5f, 0x7b, 0x7f, 0x80,
    0x82, 0x9b, 0x9f, 0xbf, 0xf6, 0xfb, 0xfe, 0xff,
];

/// One to four changes; now and then a part of `other` in the middle.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], len_max: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        change(bytes, other, random);
    }
    bytes.truncate(len_max);
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let width = 1 + random.below(8);
    let end = (at + width).min(bytes.len());
    match random.below(11) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 if at < bytes.len() => bytes[at] = random.draw() as u8,
        3 | 4 if at < bytes.len() => bytes[at] = TELLING[random.below(TELLING.len())],
        5 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
        6 => _ = bytes.drain(at..end),
        7 => bytes.truncate(at),
        8 => {
            let copied = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copied);
        }
        9 if !other.is_empty() => {
            let from = random.below(other.len());
            let to = (from + 1 + random.below(64)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            let large = [0_u64, 1, 23, 24, 255, 256, 65_535, 65_536, u32::MAX as u64, u64::MAX];
            let value = large[random.below(large.len())].to_be_bytes();
            bytes.splice(at..end, value[8 - (end - at)..].iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes() {
        let mutated = |seed| {
            let mut bytes = b"an accepted message".to_vec();
            let mut random = Random::new(seed);
            for _ in 0..100 {
                mutate(&mut bytes, b"another", 64, &mut random);
            }
            bytes
        };
        assert_eq!(mutated(7), mutated(7));
        assert_ne!(mutated(7), mutated(8));
        assert!(mutated(9).len() <= 64);
    }
}
